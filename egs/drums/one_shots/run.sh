#!/usr/bin/env bash
# Drum one-shots from noise, by class and loudness, 22.05 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=drums
experiment=drums
task=generate
label=class
sets=yes
prepare_args=(--sample-rate 22050 --mono)
synthesize_args=(--each class --count 20)
control_args=(--each class --each loudness=-40:-13:3) # the loudest stroke of the kit lies at -11

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
