#!/usr/bin/env bash
# Plucked strings and sung vowels from noise, on a corpus made on the spot: the smallest whole run.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=mini
archive=no
experiment=mini
task=generate
label=sound
synthesize_args=(--each sound --count 10)
judge_args=(--updates 150)

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
