#!/usr/bin/env bash
# Text and speaker to Vocos' mel, 109 speakers, 24 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=vctk
experiment=vctk_tts
task=speak
texts=$recipe/../../common/sentences.txt
speakers=yes
prepare_args=(--sample-rate 24000)

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
