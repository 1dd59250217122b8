#!/usr/bin/env bash
# Notes of many instruments from noise, by family, source, pitch and velocity, 16 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=nsynth
experiment=nsynth
task=generate
label=instrument_family
synthesize_args=(--each instrument_family --count 30)
control_args=(--each instrument_family --each pitch=36:84:4)

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
