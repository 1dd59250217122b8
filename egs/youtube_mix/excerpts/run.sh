#!/usr/bin/env bash
# Eight seconds of one long mix from noise, unconditional, 16 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=music
experiment=youtube_mix
task=sample
source_needed=yes
prepare_args=(--sample-rate 16000 --mono --remove-offset --excerpt-seconds 60)
synthesize_args=(--count 16 --seconds 8.192)

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
