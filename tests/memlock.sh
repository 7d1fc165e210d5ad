#!/usr/bin/env bash
# A user with the usual 8 MiB of locked memory gets four shards; with next to none, the server refuses
# and names the limit to raise. Root is exempt from the limit, so this runs as another user.
#
#   tests/memlock.sh target/release/caffis-chat
set -euo pipefail

READY_S_MAX=20
folder=$(mktemp -d)
# The other user must reach the program, wherever the repository lies, and write its data.
cp "$1" "$folder/server"
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

# start KIBIBYTES: the server in the background, with that much memory to lock.
start() {
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  env CAFFIS_LISTEN="127.0.0.1:$port" CAFFIS_DATA_DIR="$folder/data" CAFFIS_MODE=development CAFFIS_SHARDS=4 \
    "${as_user[@]}" bash -c "ulimit -l $1 && exec \"$folder/server\"" >"$folder/log" 2>&1 &
  server=$!
}

# settled: waits until the server is ready (prints "ready") or has ended (prints "ended").
settled() {
  local deadline=$((SECONDS + READY_S_MAX))
  while [ "$SECONDS" -lt "$deadline" ]; do
    if [ "$(curl -s -o /dev/null -m 2 -w '%{http_code}' "http://127.0.0.1:$port/readyz")" = 200 ]; then echo ready; return; fi
    if ! kill -0 "$server" 2>/dev/null; then echo ended; return; fi
    sleep 0.05
  done
  echo "neither ready nor ended within $READY_S_MAX s"
}

fail() {
  echo "memlock: $1; the server said:" >&2
  cat "$folder/log" >&2
  exit 1
}

start 8192
result=$(settled)
[ "$result" = ready ] || fail "with 8192 KiB: $result, wanted ready"
kill -TERM "$server"
wait "$server" || fail "with 8192 KiB: did not end well when asked to"

start 64
result=$(settled)
[ "$result" = ended ] || fail "with 64 KiB: $result, wanted a refusal"
if wait "$server"; then fail "with 64 KiB: ended with success"; fi
server=""
grep -qE 'RLIMIT_MEMLOCK|LimitMEMLOCK' "$folder/log" || fail "with 64 KiB: the refusal does not name the limit"
refusal=$(grep -E 'RLIMIT_MEMLOCK|LimitMEMLOCK' "$folder/log" | head -1 | cut -c1-200)

# The doctor says so before anything is started.
if env CAFFIS_DATA_DIR="$folder/data" CAFFIS_SHARDS=4 CAFFIS_LISTEN=127.0.0.1:0 "${as_user[@]}" \
  bash -c "ulimit -l 64 && exec \"$folder/server\" doctor" >"$folder/log" 2>&1; then
  fail "with 64 KiB: the doctor finds nothing wrong"
fi
grep -q '^FAIL  locked memory' "$folder/log" && grep -q 'LimitMEMLOCK=' "$folder/log" || fail "with 64 KiB: the doctor does not name the limit"
env CAFFIS_DATA_DIR="$folder/data" CAFFIS_SHARDS=4 CAFFIS_LISTEN=127.0.0.1:0 "${as_user[@]}" \
  bash -c "ulimit -l 8192 && exec \"$folder/server\" doctor" >"$folder/log" 2>&1 || fail "with 8192 KiB: the doctor finds something wrong"
echo "memlock: four shards in 8192 KiB; with 64 KiB refused: $refusal"
