#!/usr/bin/env bash
# Mel to waveform for speakers that were not heard in training, 24 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=vctk
experiment=vctk_vocoder
task=vocoder
prepare_args=(--sample-rate 24000)

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
