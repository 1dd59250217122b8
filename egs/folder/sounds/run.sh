#!/usr/bin/env bash
# Sounds of your own folder of audio from noise, by class, 22.05 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=folder
source_needed=yes
experiment=folder_sounds
task=generate
label=class
prepare_args=(--sample-rate 22050 --mono)
synthesize_args=(--each class --count 10 --seconds 1)

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
