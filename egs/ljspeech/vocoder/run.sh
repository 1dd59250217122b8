#!/usr/bin/env bash
# HiFi-GAN's mel to waveform, one reader, 22.05 kHz, frame-level network.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=ljspeech
experiment=ljspeech_vocoder
task=vocoder

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
