#!/usr/bin/env bash
# SC09: the ten digit words of Speech Commands from noise, by word, 16 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=speech_commands
experiment=sc09
task=generate
label=digit
synthesize_args=(--each digit --count 30)

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
