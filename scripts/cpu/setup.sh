#!/usr/bin/env bash
# Makes the virtual environment of the stack without a GPU, and of what checks a change: .venv in
# the repository root, or $VENV. A second call ends at once. PIP_INDEX_URL or PIP_EXTRA_INDEX_URL,
# which pip reads, can name an index with CPU builds of torch (the usual one brings several GB of
# CUDA along, which works as well).
set -euo pipefail
unset CDPATH # with it, cd goes elsewhere or prints

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2 && exit 2; }

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="${VENV:-$(cd "$here/../.." && pwd)/.venv}"
if [[ -L "$venv" ]]; then # to another disk: venv itself takes no links
  target="$(readlink -f "$venv")" || die "$venv is a link that leads nowhere"
  venv="$target"
fi
sglang="sglang==0.5.23"
stamp="$venv/.rubric-rl-installed" # hash of what is installed, written last
begun="$venv/.rubric-rl-begun"     # there during an install: one that was killed leaves it
log="$venv/install.log"
pins=("$here"/{requirements,dev,constraints}.txt)
wanted="$(cat "${pins[@]}" "${BASH_SOURCE[0]}" | sha256sum | cut -d ' ' -f 1)"

installed() {
  [[ ! -e "$begun" && -x "$venv/bin/python" && "$(cat "$stamp" 2>/dev/null)" == "$wanted" ]]
}

# Runs pip with these arguments, its noise in the log; a line every 20 seconds says that it lives.
# It keeps the lock should this script be killed.
run_pip() {
  "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off "$@" \
    >>"$log" 2>&1 &
  local pip=$! seconds=0 found
  trap 'kill "$pip" 2>/dev/null; exit 130' INT TERM
  while kill -0 "$pip" 2>/dev/null; do
    sleep 1
    ((++seconds % 20)) && continue
    found="$(grep -c '^Collecting' "$log" || true)"
    say "$found packages found, $seconds s ..."
  done
  wait "$pip" ||
    die "pip failed; the end of $log:"$'\n'"$(grep -v '^WARNING: Location' "$log" | tail -n 12)"
  trap - INT TERM
}

main() {
  installed && exit 0
  local python="${PYTHON:-python3}" version free
  version="$("$python" --version 2>&1 || true)"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    die "Python 3.11 or newer is needed ($python: $version); set PYTHON=/path/to/python3.11"
  # The lock is on the folder that holds the environment: clones may share one through VENV.
  mkdir -p "$(dirname "$venv")" 2>/dev/null || die "$venv cannot be made; set VENV=/another/path"
  exec 9<"$(dirname "$venv")"
  flock -n 9 || { say "another install is at work, waiting" && flock 9; }
  installed && exit 0

  if [[ -e "$begun" ]]; then
    say "an earlier install did not finish: beginning again"
    rm -rf "$venv"
  elif [[ -n "$(ls -A "$venv" 2>/dev/null)" && ! -e "$venv/pyvenv.cfg" ]]; then
    die "$venv is there and is not a virtual environment; remove it or set VENV=/another/path"
  fi
  mkdir -p "$venv" || die "$venv cannot be made; set VENV=/another/path"
  : >"$begun"
  rm -f "$stamp"
  free="$(df -Pk "$venv" | awk 'NR == 2 { print int($4 / 1048576) }')"
  ((free >= 5)) || [[ -e "$venv/pyvenv.cfg" ]] ||
    die "$venv: $free GB of disk are free, 5 are needed"
  say "making $venv and installing what scripts/cpu/ pins (2-4 minutes)"
  "$python" -m venv "$venv" >"$log" 2>&1 ||
    die "$python cannot make a virtual environment: $(tail -n 3 "$log")"
  run_pip -r "$here/requirements.txt" -r "$here/dev.txt" -c "$here/constraints.txt"
  run_pip --no-deps "$sglang"
  printf '%s\n' "$wanted" >"$stamp.new"
  mv "$stamp.new" "$stamp"
  rm -f "$begun"
  say "done in $SECONDS s"
}

main
