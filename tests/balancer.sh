#!/usr/bin/env bash
# tuning/nginx.conf as it is, but for addresses, folders and sizes, in front of two nodes: the page, requests and
# WebSockets go through it, also over a connection that carried plain requests before; an idle WebSocket stays
# open; while one node drains, nobody notices. The nodes have a store each, so nobody talks across them here.
#
#   tests/balancer.sh target/release/caffis-chat      (needs nginx, curl, python3; half a minute)
set -euo pipefail
cd "$(dirname "$0")/.."

READY_S_MAX=20
PATH="$PATH:/usr/sbin:/sbin"
command -v nginx >/dev/null || { echo "balancer: nginx is not installed" >&2; exit 1; }
folder=$(mktemp -d)
mkdir "$folder/nginx"
chmod 755 "$folder"
as_user=()
if [ "$(id -u)" -eq 0 ]; then
  # As in the image that compose.yaml names.
  chown 65534:65534 "$folder/nginx"
  as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all)
fi
pids=()
finish() {
  # nginx ends its workers itself, if it is asked.
  [ "${#pids[@]}" -lt 3 ] || { kill -TERM "${pids[2]}" && wait "${pids[2]}"; } 2>/dev/null || true
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT

fail() {
  echo "balancer: $1" >&2
  for log in "$folder"/*.log "$folder"/nginx/*.log; do echo "--- $log"; tail -n 20 "$log"; done >&2
  exit 1
}

# Ports that the kernel gives out are free now, and are not given out again for a while.
read -r port1 port2 port < <(python3 - <<'PORTS'
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(s.getsockname()[1] for s in sockets))
PORTS
)
secret=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
for node in 1 2; do
  address="127.0.0.1:$port1"
  [ "$node" = 1 ] || address="127.0.0.1:$port2"
  # One user opens all of them.
  env CAFFIS_LISTEN="$address" CAFFIS_DATA_DIR="$folder/data-$node" CAFFIS_NODE="chat-$node" CAFFIS_SHARDS=2 CAFFIS_CONNECTIONS_PER_USER=0 \
    CAFFIS_JWT_SECRET="$secret" CAFFIS_DRAIN_MS=500 "$1" >"$folder/node-$node.log" 2>&1 &
  pids+=($!)
done

sed -e "s#chat-1:8080#127.0.0.1:$port1#; s#chat-2:8080#127.0.0.1:$port2#; s#listen 8080#listen 127.0.0.1:$port#" \
  -e "s#/tmp/#$folder/nginx/#; s#/dev/stderr#$folder/nginx/error.log#; s#/dev/stdout#$folder/nginx/access.log#" \
  -e "s#^worker_processes .*#worker_processes 1;#; s#^worker_rlimit_nofile .*#worker_rlimit_nofile 4096;#; s#worker_connections .*#worker_connections 1024;#" \
  tuning/nginx.conf >"$folder/nginx.conf"
"${as_user[@]}" nginx -t -q -e "$folder/nginx/error.log" -c "$folder/nginx.conf" || fail "nginx refuses its configuration"
"${as_user[@]}" nginx -e "$folder/nginx/error.log" -c "$folder/nginx.conf" -g 'daemon off;' &
pids+=($!)

for address in "$port1/readyz" "$port2/readyz" "$port/healthz"; do
  deadline=$((SECONDS + READY_S_MAX))
  until [ "$(curl -s -o /dev/null -m 2 -w '%{http_code}' "http://127.0.0.1:$address")" = 200 ]; do
    [ "$SECONDS" -lt "$deadline" ] || fail "$address is not ready"
    sleep 0.05
  done
done

python3 tests/ship/balancer.py --balancer "$port" --nodes "$port1" "$port2" --first-node-pid "${pids[0]}" \
  --node-logs "$folder/node-1.log" "$folder/node-2.log" --access-log "$folder/nginx/access.log" || fail "see above"
if grep -E '"status":5|\[(error|crit|alert|emerg)\]' "$folder"/nginx/*.log | grep -v 'Connection refused\|connect() failed'; then
  fail "the balancer complains"
fi
