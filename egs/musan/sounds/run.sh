#!/usr/bin/env bash
# A second of music, speech or noise from noise, by kind, 16 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=musan
experiment=musan_sounds
task=generate
label=kind
synthesize_args=(--each kind --count 30 --seconds 1)

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
