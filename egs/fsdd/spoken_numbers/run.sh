#!/usr/bin/env bash
# Spoken numbers such as "three one four", from single digits put together on the fly, 8 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=fsdd
experiment=spoken_numbers
task=speak
label=digit
texts=$recipe/texts

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
