#!/usr/bin/env bash
# Drum one-shots whose level follows the one asked for: the model of egs/drums/one_shots goes on learning.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=drums
experiment=drums_levels
task=generate
label=class
sets=yes
prepare_args=(--sample-rate 22050 --mono)
synthesize_args=(--each class --count 20)
control_args=(--each class --each loudness=-40:-13:3 --count 2) # the loudest stroke of the kit lies at -11
base=${BASE:-$recipe/../one_shots/exp/drums}

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "init='$base'" "$@"
