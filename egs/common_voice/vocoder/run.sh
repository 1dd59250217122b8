#!/usr/bin/env bash
# Mel to waveform for the volunteers of one language, 24 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=common_voice
source_needed=yes
experiment=common_voice_vocoder
task=vocoder
prepare_args=(--sample-rate 24000 --mono)

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
