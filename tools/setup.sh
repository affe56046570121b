#!/usr/bin/env bash
# Prepares a checkout: Debian packages that are missing, then .venv/ from requirements.lock.
# Idempotent: a second run that finds everything in place takes well under a second.
# Arguments: more lists of packages (tools/apt-packages-rt.txt), for targets that need more than most do. What stands
# beside such a list as .debconf answers the questions of its packages.
set -euo pipefail
cd "$(dirname "$0")/.."
lists=(tools/apt-packages.txt "$@")

fail() { printf 'setup: %s\n' "$*" >&2; exit 5; }

find_python() {
  local candidate
  for candidate in ${UNLATCH_PYTHON:-} python3.11 python3.12 python3.13 python3; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
      && { command -v "$candidate"; return; }
  done
  return 1
}

missing_packages() {  # prints the package of each line whose command is absent
  local command package
  cat "${lists[@]}" | while read -r command package; do
    case $command in ''|'#'*) continue ;; esac
    if ! command -v "$command" >/dev/null 2>&1 && ! compgen -G "$command" >/dev/null; then echo "$package"; fi
  done | sort -u
}

install_packages() {  # PACKAGE...: through apt as root, without starting any service
  local as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
  local policy=/usr/sbin/policy-rc.d ours=0
  if [ ! -e "$policy" ]; then  # Debian's way to say: install, do not start
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"; ours=1
  fi
  echo "setup: installing Debian packages: $*"
  local rc=0 list
  for list in "${lists[@]}"; do
    if [ -e "${list%.txt}.debconf" ]; then "${as_root[@]}" debconf-set-selections "${list%.txt}.debconf"; fi
  done
  { "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$@" >/dev/null; } || rc=$?
  [ "$ours" -eq 0 ] || "${as_root[@]}" rm -f "$policy"
  return "$rc"
}

need=$(missing_packages)
if ! find_python >/dev/null; then need="$need python3 python3-venv"; fi
if [ -n "${need// /}" ]; then
  if command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }; then
    # shellcheck disable=SC2086  # a list of package names
    install_packages $need || fail "apt-get could not install: $(echo $need). Install them, then run make setup again."
  else
    fail "these Debian packages are missing and neither root nor password-less sudo is there: $(echo $need)
  Ask an administrator to run:  apt-get install $(echo $need)
  then run make setup again."
  fi
fi

python=$(find_python) || fail "no Python 3.11, 3.12 or 3.13 with venv found. Install python3.11 and python3.11-venv, or set UNLATCH_PYTHON."
stamp=.venv/.ready
wanted=$(cat requirements.lock pyproject.toml | sha256sum | cut -d' ' -f1)-$PWD
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then exit 0; fi

echo "setup: creating .venv with $("$python" --version)"
rm -f "$stamp"
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip --disable-pip-version-check install -q "uv==$(sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements.lock)"
.venv/bin/uv pip sync -q --python .venv/bin/python requirements.lock
.venv/bin/uv pip install -q --python .venv/bin/python --no-deps -e .
.venv/bin/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true  # uv ships no .pyc: the first start would pay for it
echo "$wanted" > "$stamp"
echo "setup: done, .venv/bin/unlatch is there"
