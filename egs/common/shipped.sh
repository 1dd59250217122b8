#!/usr/bin/env bash
# Sounds of the models that come with audiodiff, in seconds: bash egs/common/shipped.sh OUT
#
# One folder a model in OUT. What does not lie in models/ is passed over; vocoders are heard where they make speech.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
audiodiff=${AUDIODIFF:-$repository/.venv/bin/audiodiff}
out=${1:?"a folder for the sounds"}
made=0

# sounds NAME ARGS...: what one model makes.
sounds() {
  if [[ ! -f $repository/models/$1/release.json ]]; then return; fi
  set -- "$1" "${@:2}" --out "$out/$1"
  printf '+ audiodiff synthesize%s\n' "$(printf ' %q' "$@")"
  "$audiodiff" synthesize "$@"
  made=$((made + 1))
}

sounds digits --label seven --speaker theo --count 3
sounds digits-student --label four --speaker jackson --count 3
sounds drums --each class
sounds piano --label pitch=60 --count 2
sounds spoken-numbers --text "three one four" --speaker george
if ((made == 0)); then echo "models/ holds none of the models that make sounds by themselves"; fi
