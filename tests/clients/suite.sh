# Shared by the `run` scripts of the client suites; source it, do not run it.
#
# A `run` script calls, in this order: packages, server_up, and then runs its program through run_suite.
# Everything that was started ends with the script, whatever way the script ends.
#
# environment: SERVER_KIND (or `ensemble`: three of ours, see there), WARREND, WARREN_TEST_CACHE and SLOW as the `server` script has them (SLOW also multiplies
# every limit of the tests), TEST_TIMES=1 to see how long each test takes, KEEP_SERVER_DIR=1 to keep the server's
# folder with its log when something failed.
set -euo pipefail

CLIENTS_DIR="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
CACHE="${WARREN_TEST_CACHE:-$HOME/.cache/warren-tests}"
mkdir -p "$CACHE"

say() { echo "$(basename "$SUITE_DIR"): $*" >&2; }

# packages COMMAND_OR_FILE=PACKAGE...: install the Debian packages whose command or file is missing
packages() {
  local item missing=()
  for item in "$@"; do
    case ${item%%=*} in
      /*) [[ -e ${item%%=*} ]] || missing+=("${item#*=}") ;;
      *) command -v "${item%%=*}" >/dev/null || missing+=("${item#*=}") ;;
    esac
  done
  ((${#missing[@]})) || return 0
  say "installing ${missing[*]}"
  local as_root=()
  [[ $(id -u) == 0 ]] || as_root=(sudo)
  {
    "${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}" ||
      { "${as_root[@]}" apt-get update && "${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}"; }
  } >"$CACHE/apt.log" 2>&1 || { tail -5 "$CACHE/apt.log" >&2; say "cannot install ${missing[*]}"; exit 1; }
}

# A port nobody listens on, below the range the kernel hands out for outgoing connections.
free_port() {
  local port try
  for try in {1..100}; do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return 0; }
  done
  say "no free port"; return 1
}

down() {
  local status=$?
  trap - EXIT INT TERM
  if [[ -n ${SUITE_PID:-} ]]; then kill -9 -- "-$SUITE_PID" 2>/dev/null || true; fi
  "$SERVER_CTL" end >/dev/null 2>&1 || true
  if ((status != 0)) && [[ -n ${KEEP_SERVER_DIR:-} ]]; then say "kept $SERVER_DIR"; else rm -rf "$SERVER_DIR"; fi
  exit "$status"
}

server_up() {
  export SERVER_KIND="${SERVER_KIND:-warren}" SERVER_CTL="$CLIENTS_DIR/server"
  [[ $SERVER_KIND != ensemble ]] || SERVER_CTL="$CLIENTS_DIR/ensemble"
  SERVER_DIR="$(mktemp -d)"
  SERVER_PORT="$(free_port)"
  export SERVER_DIR SERVER_PORT
  trap down EXIT
  trap 'exit 130' INT TERM
  "$SERVER_CTL" start >&2
}

# run_suite SECONDS COMMAND...: the whole suite, as a process group of its own, under one limit
run_suite() {
  local limit=$(($1 * ${SLOW:-1})) started=$SECONDS status=0
  shift
  setsid timeout --signal=KILL "$limit" "$@" --servers "$("$SERVER_CTL" address)" &
  SUITE_PID=$!
  wait "$SUITE_PID" || status=$?
  if ((status == 137)); then echo "FAIL $(basename "$SUITE_DIR")/suite: cut off after $limit s"; fi
  kill -9 -- "-$SUITE_PID" 2>/dev/null || true
  SUITE_PID=
  say "$((SECONDS - started)) s against $SERVER_KIND"
  ((status == 0)) || exit 1
}
