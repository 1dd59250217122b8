# shellcheck shell=bash
# The stages of every recipe, once. Sourced by egs/CORPUS/TASK/run.sh, which sets
#
#   recipe            its own folder
#   corpus            what `audiodiff prepare` knows
#   experiment        a file of recipes/experiment/
#   task              generate: sounds by label, scored by a judge of `label` and by the pitch and loudness asked for;
#                     vocoder: held-out audio, scored against it;
#                     speak: what a file of texts says, scored by the words that are heard and against the corpus;
#                     sample: sounds without labels, which nothing here scores (stages 5 and 6 are passed over)
#   label             generate, speak: the label that the judge has to recognise; of speak its values are the words
#   sets              yes: generate also compares the sounds as a set with the real test and training splits
#   texts             speak: a file of texts, one a line, or a folder of SPEAKER.txt
#   transcripts       speak: instead of texts, so many of the test split, which are scored against their recordings
#   speakers          yes: the recipe is told the speakers of the training split
#   archive           no: nothing to download (a corpus made on the spot)
#   source_needed     yes: no archive either, --source has to name the corpus
#   control_args      generate: array, arguments of more sounds in stage 4, of asked pitches or levels
#   prepare_args, synthesize_args, judge_args, recognizer_args     arrays: more arguments of stages 1, 4 and 5
#
# A finished stage leaves FOLDER/.done/STAGE with its arguments or recipe and the checksums of the files that it
# read. It is skipped as long as all of these stay the same, and done again when one of them changes.

usage() {
  cat <<HELP
${recipe#"$repository"/}/run.sh: $corpus, experiment $experiment

  --stage N            first stage (default 0)
  --stop-stage N       last stage (default 6)
                         0 download     the public archive, checked (not with --source)
                         1 prepare      every file checked; train, dev and test manifests
                         2 statistics   what the model normalises by
                         3 train        goes on where an interrupted run stopped
                         4 synthesize   wav files and spectrograms
                         5 evaluate     metrics.json and RESULTS.md
                         6 pack         model and results in one tar file
  --source DIR         the corpus, where you have it already
  --data DIR           prepared corpus (default ${recipe%/*}/data)
  --exp DIR            model, samples and results (default $recipe/exp/EXPERIMENT)
  --experiment NAME    another file of recipes/experiment/ for this corpus
  --seed N             of training, sampling and scoring (default 0)
  --ngpu N             GPUs to train on; 0: none (default 1 where nvidia-smi finds one, else 0)
  --launch CMD         put before each command of stages 2 to 5, for clusters ("srun --gres=gpu:1")
  --prepare-args ARGS, --synthesize-args ARGS, --control-args ARGS, --judge-args ARGS, --recognizer-args ARGS
                       more arguments of the commands of stages 0 and 1, 4, 5 ("--count 2 --steps 50")
  key=value            changes the recipe (Hydra): size=tiny training.updates=100

A finished stage is skipped until its arguments, its recipe or its inputs change. A run that was trained with
another recipe is kept in EXP/before-1, before-2, ...; remove .done/STAGE in the data or experiment folder to
repeat a stage.
HELP
}

say() { printf '%s\n' "$*"; }
die() {
  printf 'run.sh: %s\n' "$*" >&2
  exit 2
}
absolute() { case $1 in /*) printf '%s' "$1" ;; *) printf '%s/%s' "$PWD" "$1" ;; esac; }
quoted() { printf "'%s'" "${1//\'/\\\'}"; } # a path as a Hydra value
number() { [[ $2 =~ ^(0|[1-9][0-9]*)$ ]] || die "$1: got '$2', expected a whole number"; }

# key TEXT... -- FILE...: one line per argument, without the folders' own places, and one per input's checksum.
key() {
  while [[ $1 != -- ]]; do
    set -- "${1//"$exp"/EXP}" "${@:2}"
    printf '%s\n' "${1//"$data"/DATA}"
    shift
  done
  shift
  local file
  for file; do
    if [[ -f $file ]]; then printf '%s %s\n' "${file##*/}" "$(cksum <"$file")"; else printf '%s absent\n' "${file##*/}"; fi
  done
}

# begin NUMBER NAME FOLDER PRODUCT KEY: whether to do a stage now.
begin() {
  (($1 >= first && $1 <= last)) || return 1
  local mark=$3/.done/$1_$2 before=
  if [[ -f $mark ]]; then before=$(<"$mark"); elif [[ -f $mark.begun ]]; then before=$(<"$mark.begun"); fi
  if [[ -f $mark && -e $4 && $before == "$5" ]]; then
    say "stage $1 $2: done already, skipped"
    return 1
  fi
  if [[ -n $before && $before != "$5" ]]; then
    say "stage $1 $2: changed since the last time (< before, > now), done again"
    diff <(say "$before") <(say "$5") | grep '^[<>]' | sed 's/^/  /' || true
  else
    say "stage $1 $2"
  fi
  mkdir -p "$3/.done" && printf '%s\n' "$5" >"$mark.begun" && rm -f "$mark" || die "$3 cannot be written"
  current=$mark
}
finish() {
  mv "$current.begun" "$current"
  if ((${#retired[@]})); then rm -rf "${retired[@]}"; fi
  retired=()
}

# retire FOLDER...: what a stage made before, removed when it has finished again.
retire() {
  local part
  for part; do
    if [[ -e $part ]]; then
      rm -rf "$part.old"
      mv "$part" "$part.old"
      retired+=("$part.old")
    fi
  done
}

# run ARGS...: the command line audiodiff, shown; launched ARGS...: the same behind --launch.
run() {
  printf '+ audiodiff%s\n' "$(printf ' %q' "$@")"
  "$audiodiff" "$@"
}
launched() {
  printf '+ audiodiff%s\n' "$(printf ' %q' "$@")"
  if [[ $1 == train ]] && ((ngpu > 1)); then
    set -- "$(dirname "$audiodiff")/torchrun" --standalone --nproc-per-node "$ngpu" --no-python "$audiodiff" "$@"
  else
    set -- "$audiodiff" "$@"
  fi
  ${launch[@]+"${launch[@]}"} "$@"
}

# What is left of a run that was trained with another recipe is kept, out of the way.
set_aside() {
  local n=1 part parts=()
  for part in model checkpoints log; do
    if [[ -e $exp/$part ]]; then parts+=("$exp/$part"); fi
  done
  if ((${#parts[@]} == 0)); then return; fi
  while [[ -e $exp/before-$n ]]; do n=$((n + 1)); done
  mkdir "$exp/before-$n"
  mv "${parts[@]}" "$exp/before-$n/"
  say "  the run before is kept in $exp/before-$n"
}

: "${recipe:?}" "${corpus:?}" "${experiment:?}" "${task:?}"
repository=$(cd "$recipe/../../.." && pwd)
first=0 last=6 retired=() source_dir='' data=${recipe%/*}/data exp='' seed=0 launch=() overrides=()
ngpu=$(if nvidia-smi -L >/dev/null 2>&1; then echo 1; else echo 0; fi)
prepare_args=(${prepare_args[@]+"${prepare_args[@]}"})
synthesize_args=(${synthesize_args[@]+"${synthesize_args[@]}"})
control_args=(${control_args[@]+"${control_args[@]}"})
judge_args=(${judge_args[@]+"${judge_args[@]}"})
recognizer_args=(${recognizer_args[@]+"${recognizer_args[@]}"})
while (($#)); do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" && continue ;;
    -*) (($# > 1)) || die "$1: expected a value after it, or an unknown flag (see --help)" ;;
    data_dir=* | out=* | experiment=*) die "$1: say it with --data, --exp or --experiment" ;;
    *=*) overrides+=("$1") && shift && continue ;;
    *) die "unknown argument '$1' (see --help)" ;;
  esac
  case $1 in
    --stage) first=$2 ;;
    --stop-stage) last=$2 ;;
    --source) source_dir=$(absolute "$2") ;;
    --data) data=$(absolute "$2") ;;
    --exp) exp=$(absolute "$2") ;;
    --experiment) experiment=$2 ;;
    --seed) seed=$2 ;;
    --ngpu) ngpu=$2 ;;
    --launch) read -r -a launch <<<"$2" ;;
    --prepare-args) read -r -a more <<<"$2" && prepare_args+=(${more[@]+"${more[@]}"}) ;;
    --synthesize-args) read -r -a more <<<"$2" && synthesize_args+=(${more[@]+"${more[@]}"}) ;;
    --control-args) read -r -a more <<<"$2" && control_args+=(${more[@]+"${more[@]}"}) ;;
    --judge-args) read -r -a more <<<"$2" && judge_args+=(${more[@]+"${more[@]}"}) ;;
    --recognizer-args) read -r -a more <<<"$2" && recognizer_args+=(${more[@]+"${more[@]}"}) ;;
    *) die "unknown flag '$1' (see --help)" ;;
  esac
  shift 2
done
number --stage "$first" && number --stop-stage "$last" && number --seed "$seed" && number --ngpu "$ngpu"
exp=${exp:-$recipe/exp/$experiment}
audiodiff=$(command -v "${AUDIODIFF:-audiodiff}" || command -v "${AUDIODIFF:-$repository/.venv/bin/audiodiff}") ||
  die "${AUDIODIFF:-audiodiff} is not installed: run 'make setup' in $repository, or set AUDIODIFF"
device=cpu
if ((ngpu > 0)); then device=cuda; else export CUDA_VISIBLE_DEVICES=''; fi
manifests=("$data/train.jsonl.gz" "$data/dev.jsonl.gz" "$data/test.jsonl.gz")

# 0 and 1: without --source, a corpus that was prepared here from a folder stays as it is.
prepare=(prepare "$corpus" --out "$data" ${prepare_args[@]+"${prepare_args[@]}"})
if [[ -n $source_dir ]]; then
  prepare+=(--source "$source_dir")
elif [[ ${archive:-yes} == yes && ! -d $data/download && -f ${manifests[0]} ]]; then
  if ((first < 2)); then say "stages 0 and 1: $data is prepared already, skipped"; fi
  prepare=()
elif [[ ${source_needed:-no} == yes ]]; then
  ((first > 1)) || die "$corpus has no public archive: name the folder that holds it with --source"
  prepare=()
elif [[ ${archive:-yes} == yes ]]; then
  prepare+=(--download)
  if begin 0 download "$data" "$data/download" "$(key "${prepare[@]}" --)"; then
    run "${prepare[@]}" --only-download
    finish
  fi
fi
if ((${#prepare[@]})) && begin 1 prepare "$data" "${manifests[2]}" "$(key "${prepare[@]}" --)"; then
  run "${prepare[@]}"
  finish
fi

# What a folder alone knows (rate, classes) comes before the changes of the user, which count more.
if [[ -f $data/recipe.txt ]]; then
  mapfile -t told <"$data/recipe.txt"
  overrides=("${told[@]}" ${overrides[@]+"${overrides[@]}"})
fi

# The speakers of the training split, as report.json counts them.
if [[ ${speakers:-no} == yes && -f $data/report.json ]]; then
  told=$(awk '/^    "train": \{/ { train = 1 } /^    "dev": \{/ { train = 0 }
    train && /^        "speaker": \{/ { inside = 1; next } inside && /\}/ { exit }
    inside { split($0, part, "\""); printf "%s\x27%s\x27", count++ ? "," : "", part[2] }' "$data/report.json")
  overrides=("data.labels.speaker=[$told]" ${overrides[@]+"${overrides[@]}"})
fi

# 2 and 3: the whole recipe is their key, so that an edited file of recipes/ counts as well. A run goes on where it
# stopped unless what was trained has changed; what only synthesis reads (guidance, sampler, ...) is not part of it.
hydra=("experiment=$experiment" "training.seed=$seed" ${overrides[@]+"${overrides[@]}"})
places=("data_dir=$(quoted "$data")" "out=$(quoted "$exp")")
composed='' trained=''
if ((first < 4 && last > 1)); then
  composed=$("$audiodiff" train "${hydra[@]}" "${places[@]}" --cfg job --resolve 2>/dev/null) || {
    "$audiodiff" statistics "${hydra[@]}" "${places[@]}" # says in one line what is wrong with the recipe
    die "the recipe cannot be composed"
  }
  trained=$(awk '/^[A-Za-z_]/ { skip = /^(guidance|guidance_rescale|guidance_interval|sampler|mel_iterations):/ } !skip' <<<"$composed")
fi
if begin 2 statistics "$exp" "$exp/statistics.json" "$(key "$trained" -- "${manifests[0]}")"; then
  rm -f "$exp/statistics.json"
  launched statistics "${hydra[@]}" "${places[@]}"
  finish
fi
weights=$exp/model/model.safetensors
processes="processes $((ngpu > 1 ? ngpu : 1))"
inputs=("${manifests[0]}" "${manifests[1]}" "$exp/statistics.json")
if begin 3 train "$exp" "$weights" "$(key "$composed" "$processes" -- "${inputs[@]}")"; then
  run_key=$(key "$trained" "$processes" -- "${inputs[@]}")
  if [[ -f $exp/.done/run && $(<"$exp/.done/run") != "$run_key" ]]; then set_aside; fi
  say "$run_key" >"$exp/.done/run"
  launched train "${hydra[@]}" "${places[@]}"
  finish
fi

# 4: what the trained model makes; for sounds by label also what the same network makes before training.
samples=$exp/samples control=$exp/control untrained=$exp/untrained config=$exp/model/config.yaml
synthesize_args+=(--seed "$seed")
if [[ $task == generate ]]; then
  if ((${#control_args[@]})); then control_args+=(--seed "$seed"); fi
  if begin 4 synthesize "$exp" "$samples/samples.json" \
    "$(key synthesize "${synthesize_args[@]}" ${control_args[@]+"${control_args[@]}"} -- "$weights" "$config")"; then
    retire "$samples" "$control" "$untrained"
    launched synthesize "$exp" --out "$samples" --device "$device" "${synthesize_args[@]}"
    if ((${#control_args[@]})); then
      launched synthesize "$exp" --out "$control" --device "$device" "${control_args[@]}"
    fi
    launched train "${hydra[@]}" training.updates=0 "${places[0]}" "out=$(quoted "$untrained")"
    launched synthesize "$untrained" --out "$untrained/samples" --device "$device" "${synthesize_args[@]}"
    finish
  fi
elif [[ $task == sample ]]; then
  if begin 4 synthesize "$exp" "$samples/samples.json" "$(key synthesize "${synthesize_args[@]}" -- "$weights" "$config")"; then
    retire "$samples"
    launched synthesize "$exp" --out "$samples" --device "$device" "${synthesize_args[@]}"
    finish
  fi
  last=$((last < 4 ? last : 4))
elif [[ $task == speak ]]; then
  if [[ -n ${transcripts:-} ]]; then texts=$exp/transcripts.txt; fi
  if [[ -d $texts ]]; then files=("$texts"/*.txt); else files=("$texts"); fi
  inputs=("$weights" "$config")
  if [[ -n ${transcripts:-} ]]; then inputs+=("${manifests[2]}"); else inputs+=("${files[@]}"); fi
  if begin 4 synthesize "$exp" "$samples" "$(key speak "${transcripts:-}" "${synthesize_args[@]}" -- "${inputs[@]}")"; then
    retire "$samples"
    if [[ -n ${transcripts:-} ]]; then run texts "${manifests[2]}" --out "$texts" --most "$transcripts"; fi
    for file in "${files[@]}"; do
      place=$samples who=()
      if [[ -d $texts ]]; then
        name=$(basename "$file" .txt)
        place=$samples/$name who=(--speaker "$name")
      fi
      launched synthesize "$exp" --text-file "$file" ${who[@]+"${who[@]}"} --out "$place" --device "$device" "${synthesize_args[@]}"
    done
    finish
  fi
elif begin 4 synthesize "$exp" "$samples/samples.json" \
  "$(key vocode "${synthesize_args[@]}" -- "$weights" "$config" "${manifests[2]}")"; then
  retire "$samples"
  launched vocode "$exp" "${manifests[2]}" --out "$samples" --device "$device" "${synthesize_args[@]}"
  finish
fi

# 5: the judge belongs to the corpus, the scores to the experiment.
evaluate=(evaluate "$samples" --model "$exp/model" --out "$exp/results" --seed "$seed")
inputs=("$weights" "$samples/samples.json")
if [[ $task == speak && -d $texts ]]; then inputs=("$weights" "$samples"/*/samples.json); fi
if [[ -n ${label:-} ]]; then
  judge=$data/judge_$label
  if begin 5 judge "$data" "$judge" "$(key "$label" ${judge_args[@]+"${judge_args[@]}"} -- "${manifests[@]}")"; then
    launched judge "$data" --label "$label" --out "$judge" ${judge_args[@]+"${judge_args[@]}"}
    finish
  fi
fi
if [[ $task == generate ]]; then
  evaluate+=(--system "untrained=$untrained/samples")
  inputs+=("$untrained/samples/samples.json")
  if [[ -n ${label:-} ]]; then evaluate+=(--judge "$judge" --label "$label") && inputs+=("$judge/config.json"); fi
  if [[ ${sets:-no} == yes ]]; then evaluate+=(--data "$data") && inputs+=("${manifests[0]}" "${manifests[2]}"); fi
  if ((${#control_args[@]})); then evaluate+=(--system "control=$control") && inputs+=("$control/samples.json"); fi
elif [[ $task == speak && -n ${label:-} ]]; then
  recognizer=$data/recognizer_$label
  if begin 5 recognizer "$data" "$recognizer" "$(key ${recognizer_args[@]+"${recognizer_args[@]}"} -- "$judge/config.json" "${manifests[@]}")"; then
    launched recognizer "$data" --judge "$judge" --out "$recognizer" ${recognizer_args[@]+"${recognizer_args[@]}"}
    finish
  fi
  evaluate+=(--judge "$recognizer" --reference "$data")
  inputs+=("$recognizer/config.json" "${manifests[2]}")
elif [[ $task == speak && -n ${transcripts:-} ]]; then
  evaluate+=(--reference "$data")
  inputs+=("${manifests[2]}")
fi
if begin 5 evaluate "$exp" "$exp/results/RESULTS.md" "$(key "${evaluate[@]}" -- "${inputs[@]}")"; then
  retire "$exp/results"
  launched "${evaluate[@]}"
  finish
fi

pack=$exp/$experiment.tar
contents=(model results/RESULTS.md results/metrics.json)
if begin 6 pack "$exp" "$pack" "$(key "${contents[@]}" -- "$weights" "$exp/results/metrics.json")"; then
  for part in "${contents[@]}"; do [[ -e $exp/$part ]] || die "stage 6: $exp/$part is not there; run stages 3 to 5"; done
  tar -cf "$pack.part" -C "$exp" "${contents[@]}"
  mv "$pack.part" "$pack"
  finish
fi

for found in "$samples/spectrograms.png" "$exp/results/RESULTS.md" "$pack"; do
  if [[ -e $found ]]; then say "$found"; fi
done
if ((last > 1)); then say "all of it is in $exp"; else say "the prepared corpus is in $data"; fi
