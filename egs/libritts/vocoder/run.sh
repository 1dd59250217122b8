#!/usr/bin/env bash
# Mel to waveform for many readers of audio books, 24 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=libritts
experiment=libritts_vocoder
task=vocoder

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
