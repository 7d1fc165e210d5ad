#!/usr/bin/env bash
# The server under the filter of tuning/seccomp.json, loaded as a container engine would, as another user than
# root: it starts, people can connect, nothing that it asks for is refused it. And without the three calls of
# io_uring it refuses to start, and says what to allow.
#
#   tests/seccomp.sh target/release/caffis-chat      (needs python3-seccomp, curl)
set -euo pipefail
cd "$(dirname "$0")/.."

READY_S_MAX=20
# The Debian package is of Debian's own interpreter.
python=/usr/bin/python3
"$python" -c 'import seccomp' 2>/dev/null || { echo "seccomp: python3-seccomp is not installed" >&2; exit 1; }
folder=$(mktemp -d)
cp "$1" "$folder/server"
cp tuning/seccomp.json tests/ship/under_seccomp.py "$folder/"
mkdir "$folder/data"
chmod 755 "$folder" "$folder/server"
as_user=()
if [ "$(id -u)" -eq 0 ]; then
  chown 65534:65534 "$folder/data"
  as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all)
fi
server=""
finish() {
  [ -z "$server" ] || kill -9 "$server" 2>/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT

fail() {
  echo "seccomp: $1; the server said:" >&2
  cat "$folder/log" >&2
  exit 1
}

# start FILTER...: the server under the filter, in the background.
start() {
  port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  env CAFFIS_LISTEN="127.0.0.1:$port" CAFFIS_DATA_DIR="$folder/data" CAFFIS_SHARDS=2 CAFFIS_DRAIN_MS=100 \
    "${as_user[@]}" "$python" "$folder/under_seccomp.py" "$@" "$folder/server" >"$folder/log" 2>&1 &
  server=$!
}

settled() {
  local deadline=$((SECONDS + READY_S_MAX))
  while [ "$SECONDS" -lt "$deadline" ]; do
    if [ "$(curl -s -o /dev/null -m 2 -w '%{http_code}' "http://127.0.0.1:$port/readyz")" = 200 ]; then echo ready; return; fi
    if ! kill -0 "$server" 2>/dev/null; then echo ended; return; fi
    sleep 0.05
  done
  echo "neither ready nor ended within $READY_S_MAX s"
}

# As written.
start "$folder/seccomp.json"
result=$(settled)
[ "$result" = ready ] || fail "under the filter: $result, wanted ready"
curl -sf -o /dev/null "http://127.0.0.1:$port/" || fail "no page"
curl -sf -o /dev/null -H 'content-type: application/json' -d '{"name":"Ada"}' "http://127.0.0.1:$port/v1/demo/login" || fail "no login"
upgraded=$(curl -s -o /dev/null -m 1 -w '%{http_code}' -H 'connection: upgrade' -H 'upgrade: websocket' \
  -H 'sec-websocket-version: 13' -H 'sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==' \
  -H 'sec-websocket-protocol: caffis.chat.v1' "http://127.0.0.1:$port/v1/ws" || true)
[ "$upgraded" = 101 ] || fail "the upgrade was answered $upgraded"
CAFFIS_LISTEN="127.0.0.1:$port" "$folder/server" health >/dev/null || fail "the health check failed"
kill -TERM "$server"
wait "$server" || fail "did not end well when asked to"

# The same, but everything outside the filter kills: so the server asks for nothing that is refused it.
start --kill "$folder/seccomp.json"
result=$(settled)
[ "$result" = ready ] || fail "it asks for a system call that the filter refuses: $result"
curl -sf -o /dev/null -H 'content-type: application/json' -d '{"name":"Ada"}' "http://127.0.0.1:$port/v1/demo/login" || fail "no login"
kill -TERM "$server"
wait "$server" || fail "it asks for a system call that the filter refuses when it ends"

# As under Docker's own profile.
start --without io_uring_setup,io_uring_enter,io_uring_register "$folder/seccomp.json"
result=$(settled)
[ "$result" = ended ] || fail "without io_uring: $result, wanted a refusal"
if wait "$server"; then fail "without io_uring: ended with success"; fi
server=""
grep -q seccomp "$folder/log" || fail "the refusal does not say what to do"
echo "seccomp: $(jq '[.syscalls[].names[]] | length' tuning/seccomp.json) system calls are enough; without io_uring refused: $(grep -m1 seccomp "$folder/log" | sed 's/.*ERROR *//' | cut -c1-200)"
