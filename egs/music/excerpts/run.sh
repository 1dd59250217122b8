#!/usr/bin/env bash
# Excerpts of music from noise, unconditional, from a folder of recordings, 22.05 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=music
experiment=music
task=sample
source_needed=yes
prepare_args=(--sample-rate 22050 --mono --remove-offset)
synthesize_args=(--count 16 --seconds 6)

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
