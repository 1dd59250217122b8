#!/usr/bin/env bash
# Mel to waveform for six speakers of digits, 8 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=fsdd
experiment=fsdd_vocoder
task=vocoder

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
