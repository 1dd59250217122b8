#!/usr/bin/env bash
# Text to HiFi-GAN's mel, one reader, 22.05 kHz, as Grad-TTS.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=ljspeech
experiment=ljspeech_tts
task=speak
transcripts=100

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
