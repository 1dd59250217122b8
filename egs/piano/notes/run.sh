#!/usr/bin/env bash
# Piano notes from noise, by pitch, 22.05 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=piano
experiment=piano
task=generate
prepare_args=(--sample-rate 22050 --mono --peak 0.5) # high keys are 20 dB softer than low ones
synthesize_args=(--each pitch)

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
