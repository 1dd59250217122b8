#!/usr/bin/env bash
# Piano performances from noise, unconditional, 44.1 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=maestro
experiment=maestro_piano
task=sample
prepare_args=(--sample-rate 44100 --mono)
synthesize_args=(--count 16 --seconds 12)

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
