#!/usr/bin/env bash
# Spoken digits in one to four steps: a student of the model that egs/fsdd/digits trains.
# shellcheck disable=SC2034 # common/run.sh reads what is set here
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

corpus=fsdd
experiment=fsdd_digits_student
task=generate
label=digit
synthesize_args=(--each digit --each speaker --count 5)
teacher=${TEACHER:-$recipe/../digits/exp/fsdd_digits}

# shellcheck source=../../common/run.sh
source "$recipe/../../common/run.sh" "teacher='$teacher'" "init='$teacher'" "$@"
