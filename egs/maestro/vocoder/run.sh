#!/usr/bin/env bash
# Mel to waveform for piano, 44.1 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=maestro
experiment=maestro_vocoder
task=vocoder
prepare_args=(--sample-rate 44100 --mono)

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
