# Shared by the run scripts of the clients on the JVM; source it, do not run it.
set -euo pipefail

CLIENTS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
CACHE="${WARREN_TEST_CACHE:-$HOME/.cache/warren-tests}"
export SLOW="${SLOW:-1}"
mkdir -p "$CACHE"

die() { echo "$(basename "$(dirname "$0")")/$(basename "$0"): $*" >&2; exit 1; }

# wait_until SECONDS COMMAND...: poll until COMMAND succeeds
wait_until() {
  local end=$((SECONDS + $1 * SLOW)); shift
  until "$@"; do ((SECONDS < end)) || return 1; sleep 0.2; done
}

need_java() {
  local packages=()
  command -v javac >/dev/null || packages+=(openjdk-17-jdk-headless)
  command -v mvn >/dev/null || packages+=(maven)
  ((${#packages[@]})) || return 0
  local sudo=; ((EUID == 0)) || sudo=sudo
  { $sudo apt-get update -q && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -qy --no-install-recommends "${packages[@]}"; } >&2 ||
    die "cannot install ${packages[*]}"
}

# maven PROJECT GOALS...: build a project into the cache unless that was done from these very files; TARGET is where
maven() {
  local project=$1 sum; shift
  sum=$(cd "$CLIENTS/$project" && find . -type f \( -path ./pom.xml -o -path './src/*' \) | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-16)
  TARGET="$CACHE/$project"
  mkdir -p "$TARGET"
  exec 8>"$TARGET.lock"; flock 8
  if [[ $(cat "$TARGET/built" 2>/dev/null) != "$sum" ]]; then
    rm -rf "$TARGET"; mkdir -p "$TARGET"
    mvn -B -q -f "$CLIENTS/$project/pom.xml" "-Dtarget=$TARGET" "$@" >"$TARGET/maven.log" 2>&1 ||
      { cat "$TARGET/maven.log" >&2; die "Maven could not build $project"; }
    echo "$sum" >"$TARGET/built"
  fi
  exec 8>&-
}

# free_ports N: print N ports on which nothing listens, below the range the system hands out for outgoing connections
free_ports() {
  local n=$1 p
  while ((n > 0)); do
    p=$((20000 + RANDOM % 10000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null; then echo "$p"; n=$((n - 1)); fi
  done | sort -u
}

# server_begin: one fresh server under test (or three, SERVER_KIND=ensemble) in a folder of its own, stopped and removed by server_end
server_begin() {
  WORK=$(mktemp -d)
  trap 'server_end $?' EXIT
  trap 'exit 130' INT TERM
  export SERVER_DIR="$WORK/server" SERVER_KIND="${SERVER_KIND:-warren}" SERVER_CTL="$CLIENTS/server"
  [[ $SERVER_KIND != ensemble ]] || SERVER_CTL="$CLIENTS/ensemble"
  SERVER_PORT=$(free_ports 1); export SERVER_PORT
  mkdir -p "$SERVER_DIR"
  "$SERVER_CTL" start || die "the server under test does not start"
  SERVERS=$("$SERVER_CTL" address)
}
before_end() { :; }
server_end() {
  trap - EXIT INT TERM
  before_end
  "$SERVER_CTL" end || true
  if (($1 != 0)) && [[ -n ${WARREN_TEST_KEEP:-} ]]; then echo "kept: $WORK"; else rm -rf "$WORK"; fi
  exit "$1"
}
