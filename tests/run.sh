#!/usr/bin/env bash
# Checks a change: lint and types, then unit tests, tests on real servers, whole runs, one by one.
#   bash tests/run.sh [pytest arguments]            everything; sets up the CPU stack first
#   bash tests/run.sh unit [pytest arguments]       stops after the unit tests
#   bash tests/run.sh library [pytest arguments]    the unit tests that need no stack, in the Python
#       that PYTHON names, after: pip install -e ".[dev]" psutil
set -euo pipefail
unset CDPATH # with it, cd goes elsewhere or prints
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
fast="not (stack or slow or gpu or contract)"
without_stack=(
  --ignore tests/cpu --ignore tests/stack --ignore tests/contracts
  --ignore tests/test_pins.py --ignore tests/tiny/test_make_checkpoint.py
  --ignore tests/tiny/test_shipped_checkpoint.py --ignore tests/tiny/test_measure_checkpoint.py
  --ignore tests/tiny/test_training_sequences.py
)
summaries="$(mktemp)"
trap 'rm -f "$summaries"' EXIT
status=0

# Runs a command and keeps the last line it printed. pytest's 5, nothing selected, is no failure.
part() {
  local name="$1" code=0 out
  shift
  out="$(mktemp)"
  echo "== $name"
  "$@" 2>&1 | tee "$out" || code=$?
  printf '%-8s %s\n' "$name" "$(tail -n 1 "$out")" >>"$summaries"
  rm -f "$out"
  ((code == 0 || code == 5)) || status=1
}

check() {
  part lint "$bin/ruff" check
  part format "$bin/ruff" format --check
  part types "$bin/basedpyright" --pythonpath "$python"
}

tests() {
  local name="$1"
  shift
  part "$name" "$python" -m pytest -q -rs -p no:cacheprovider "$@"
}

what=all
case "${1:-}" in
  unit | library) what="$1" && shift ;;
esac

if [[ "$what" == library ]]; then
  python="${PYTHON:-python3}"
  tests library tests -m "$fast" --ignore tests/smoke "${without_stack[@]}" "$@"
else
  bash scripts/cpu/setup.sh
  bin="${VENV:-.venv}/bin"
  python="$bin/python"
  check
  tests unit tests -m "$fast" --ignore tests/smoke "$@"
fi
if [[ "$what" == all ]]; then
  tests stack tests -m "stack or slow or contract" --ignore tests/smoke "$@"
  tests smoke tests/smoke "$@"
fi
echo "== summary"
cat "$summaries"
exit "$status"
