#!/usr/bin/env bash
# Text and speaker to Vocos' mel, audio books, 24 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=libritts
experiment=libritts_tts
task=speak
texts=$recipe/../../common/sentences.txt
speakers=yes

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
