#!/usr/bin/env bash
# DiffWave BASE as published: mel to waveform, one reader, 22.05 kHz, six sampling steps.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=ljspeech
experiment=ljspeech_diffwave
task=vocoder

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
