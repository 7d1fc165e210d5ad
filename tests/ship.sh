#!/usr/bin/env bash
# What is shipped beside the program, against the program: the balancer's configuration, the seccomp profile, the
# alerts, the dashboard, the unit, the compose file. Under a minute. What is needed must be installed:
# nginx, prometheus (promtool), systemd (systemd-analyze), python3-seccomp, curl, jq, node with tests/ship installed.
#
#   tests/ship.sh target/release/caffis-chat
set -euo pipefail
cd "$(dirname "$0")/.."

server=$1
folder=$(mktemp -d)
pid=""
finish() {
  [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT

fail() {
  echo "ship: $1" >&2
  exit 1
}

# The slowest first, beside the others: it waits for a ping of 25 s.
tests/balancer.sh "$server" >"$folder/balancer.log" 2>&1 &
balancer=$!

tests/seccomp.sh "$server"

# Alerts: their syntax, that they fire and are silent where they must, and that every expression of the dashboard
# is one. That the metrics exist is proved by tests/process.rs.
promtool check rules tuning/alerts.yaml >"$folder/rules.log" 2>&1 || { cat "$folder/rules.log" >&2; fail "promtool refuses the alerts"; }
promtool test rules tests/ship/alerts_test.yaml >"$folder/rules.log" 2>&1 || { cat "$folder/rules.log" >&2; fail "an alert does not fire as it must"; }
jq '{groups: [{name: "dashboard", rules: [[.. | .expr? // empty] | to_entries[] | {record: "panel:\(.key)",
  expr: (.value | gsub("\\$__rate_interval"; "1m") | gsub("\\$instance"; ".*"))}]}]}' \
  tuning/grafana-dashboard.json >"$folder/dashboard.yaml"
promtool check rules "$folder/dashboard.yaml" >"$folder/rules.log" 2>&1 || { cat "$folder/rules.log" >&2; fail "an expression of the dashboard is none"; }
for alert in $(sed -n 's/^ *- alert: //p' tuning/alerts.yaml); do
  grep -q "^| \`$alert\`" docs/operations.md || fail "docs/operations.md does not say what to do about $alert"
done

# The metrics themselves, after some requests.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
env CAFFIS_LISTEN="127.0.0.1:$port" CAFFIS_DATA_DIR="$folder/data" "$server" >"$folder/server.log" 2>&1 &
pid=$!
deadline=$((SECONDS + 20))
until CAFFIS_LISTEN="127.0.0.1:$port" "$server" health >/dev/null 2>&1; do
  [ "$SECONDS" -lt "$deadline" ] || fail "the server is not ready"
  sleep 0.05
done
curl -sf "http://127.0.0.1:$port/metrics" >"$folder/metrics"
promtool check metrics <"$folder/metrics" >"$folder/metrics.log" 2>&1 || { cat "$folder/metrics.log" >&2; fail "promtool refuses the metrics"; }
[ ! -s "$folder/metrics.log" ] || { cat "$folder/metrics.log" >&2; fail "promtool has something to say about the metrics"; }

# The unit, with the program where it really is.
mkdir "$folder/unit"
sed "s#/usr/local/bin/caffis-chat#$(realpath "$server")#" tuning/caffis-chat.service >"$folder/unit/caffis-chat.service"
systemd-analyze verify "$folder/unit/caffis-chat.service" 2>"$folder/unit.log" || { cat "$folder/unit.log" >&2; fail "systemd refuses the unit"; }
! grep caffis-chat "$folder/unit.log" || fail "systemd has something to say about the unit"
# In tenths; 9.6 is a unit without any of it.
systemd-analyze security --offline=yes --threshold=20 --no-pager "$folder/unit/caffis-chat.service" >"$folder/unit.log" 2>&1 ||
  { tail -n 3 "$folder/unit.log" >&2; fail "the unit leaves too much open"; }

(cd tests/ship && npm run --silent check)

wait "$balancer" || { cat "$folder/balancer.log" >&2; fail "the balancer"; }
cat "$folder/balancer.log"
echo "ship: $(grep -c '# TYPE' "$folder/metrics") metrics, $(grep -c -- '- alert:' tuning/alerts.yaml) alerts, $(jq '[.panels[] | select(.type != "row")] | length' tuning/grafana-dashboard.json) panels, the unit: $(tail -n 1 "$folder/unit.log" | grep -o 'exposure level.*' | tr -dc '0-9.a-zA-Z: -')"
