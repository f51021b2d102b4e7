#!/usr/bin/env bash
# Sets up the stack without a GPU and runs the tests: unit tests, then real servers, then whole runs, one at a time.
#   bash tests/run.sh [unit] [pytest arguments]        `unit` stops after the unit tests
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
bash scripts/cpu/setup.sh
python="${VENV:-.venv}/bin/python"
summaries="$(mktemp)"
trap 'rm -f "$summaries"' EXIT
status=0

# One pytest over the tests a marker expression and paths select; its last line is kept. Nothing selected is no failure.
part() {
  local name="$1" code=0 out
  shift
  out="$(mktemp)"
  echo "== $name tests"
  "$python" -m pytest -q -rs -p no:cacheprovider "$@" 2>&1 | tee "$out" || code=$?
  printf '%-6s %s\n' "$name" "$(tail -n 1 "$out")" >>"$summaries"
  rm -f "$out"
  ((code == 0 || code == 5)) || status=1
}

only=""
[[ "${1:-}" != unit ]] || { only=unit && shift; }
part unit tests -m "not (stack or slow or gpu or contract)" --ignore tests/smoke "$@"
if [[ -z "$only" ]]; then
  part stack tests -m "stack or slow or contract" --ignore tests/smoke "$@"
  part smoke tests/smoke "$@"
fi
echo "== summary"
cat "$summaries"
exit "$status"
