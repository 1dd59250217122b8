#!/usr/bin/env bash
# Spoken digits from noise, by digit and speaker, 8 kHz.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=fsdd
experiment=fsdd_digits
task=generate
label=digit
synthesize_args=(--each digit --each speaker --count 5)

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "$@"
