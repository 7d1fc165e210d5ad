#!/usr/bin/env bash
# Builds the image of the Dockerfile for real, without a Docker engine, and runs what came out: as the image's
# own user, in the image's own files, until the image's own health check says that it is ready. Needs root,
# buildah, debootstrap and 12 GB of room; the release build in it takes most of the time (6 minutes on two idle
# cores). The builder stage is Debian with this machine's Rust toolchain and crates, so it builds offline.
#
#   tests/image.sh [FOLDER]     FOLDER keeps the builder image for the next time
set -euo pipefail
cd "$(dirname "$0")/.."

READY_S_MAX=30
[ "$(id -u)" -eq 0 ] || { echo "image: run it as root" >&2; exit 1; }
for tool in buildah debootstrap; do
  command -v "$tool" >/dev/null || { echo "image: $tool is not installed" >&2; exit 1; }
done

keep=${1:-}
folder=${keep:-$(mktemp -d)}
mkdir -p "$folder"
server=""
mounted=""
build() { buildah --root "$folder/storage" --runroot "$folder/run" --storage-driver vfs "$@"; }
finish() {
  [ -z "$server" ] || kill -9 "$server" 2>/dev/null || true
  wait 2>/dev/null || true
  [ -z "$mounted" ] || build rm "$mounted" >/dev/null 2>&1 || true
  [ -n "$keep" ] || { build rmi --all --force >/dev/null 2>&1 || true; rm -rf "$folder"; }
}
trap finish EXIT
fail() {
  echo "image: $1" >&2
  [ ! -e "$folder/server.log" ] || cat "$folder/server.log" >&2
  exit 1
}

if ! build inspect --type image localhost/caffis-builder >/dev/null 2>&1; then
  echo "image: the builder stage"
  [ -e "$folder/debian/etc/debian_version" ] ||
    debootstrap --variant=minbase --include=gcc,libc6-dev,binutils,ca-certificates bookworm "$folder/debian" >"$folder/debootstrap.log" ||
    { tail "$folder/debootstrap.log" >&2; fail "debootstrap"; }
  sysroot=$(rustc --print sysroot)
  cargo_home=${CARGO_HOME:-$HOME/.cargo}
  mounted=$(build from scratch)
  root=$(build mount "$mounted")
  cp -a "$folder/debian/." "$root/"
  cp -a "$sysroot/bin" "$sysroot/lib" "$root/usr/local/"
  mkdir -p "$root/usr/local/cargo"
  cp -a "$cargo_home/registry" "$root/usr/local/cargo/"
  build config --env PATH=/usr/local/bin:/usr/bin:/bin --env CARGO_HOME=/usr/local/cargo --env CARGO_NET_OFFLINE=true "$mounted"
  build umount "$mounted" >/dev/null
  build commit --quiet --rm "$mounted" localhost/caffis-builder >/dev/null
  mounted=""
fi

echo "image: the build"
build bud --isolation chroot --pull-never --format docker --build-arg BUILDER=localhost/caffis-builder \
  --tag localhost/caffis-chat . >"$folder/build.log" 2>&1 || { tail -n 30 "$folder/build.log" >&2; fail "the build"; }

field() { build inspect --type image --format "{{$1}}" localhost/caffis-chat; }
[ "$(field .Docker.Config.User)" = 10001:10001 ] || fail "its user is $(field .Docker.Config.User)"
[ "$(field .Docker.Config.StopSignal)" = SIGTERM ] || fail "its stop signal is $(field .Docker.Config.StopSignal)"
[ "$(field .Docker.Config.Volumes)" = 'map[/data:{}]' ] || fail "its volumes are $(field .Docker.Config.Volumes)"
[ "$(field .Docker.Config.ExposedPorts)" = 'map[8080/tcp:{}]' ] || fail "its ports are $(field .Docker.Config.ExposedPorts)"
[ "$(field .Docker.Config.Healthcheck.Test)" = '[CMD /usr/bin/caffis-chat health]' ] || fail "its health check is $(field .Docker.Config.Healthcheck.Test)"

mounted=$(build from localhost/caffis-chat)
root=$(build mount "$mounted")
size=$(du -sm --apparent-size "$root" | cut -f1)
[ ! -e "$root/bin/sh" ] || fail "there is a shell in it"
[ "$(stat -c %u:%a "$root/data")" = 10001:700 ] || fail "its data folder is $(stat -c %u:%a "$root/data")"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# The image's program, as its user, without any right, and with the memory to lock that is usual.
program=(env -i CAFFIS_MODE=production CAFFIS_DATA_DIR=/data CAFFIS_LISTEN="127.0.0.1:$port" CAFFIS_SHARDS=2
  CAFFIS_DRAIN_MS=100 CAFFIS_JWT_SECRET=6b1f0c9a83e2d4755f60718293a4b5c6 CAFFIS_ALLOWED_ORIGINS=https://app.example.org
  /usr/bin/bash -c 'ulimit -l 8192; exec "$@"' program
  /usr/sbin/chroot --userspec=10001:10001 --groups= "$root" /usr/bin/caffis-chat)
"${program[@]}" >"$folder/server.log" 2>&1 &
server=$!
deadline=$((SECONDS + READY_S_MAX))
until "${program[@]}" health >"$folder/health.log" 2>&1; do
  kill -0 "$server" 2>/dev/null || fail "the server ended"
  [ "$SECONDS" -lt "$deadline" ] || fail "not ready: $(cat "$folder/health.log")"
  sleep 0.1
done
[ "$(curl -s "http://127.0.0.1:$port/readyz")" = ready ] || fail "/readyz does not say ready"
curl -sf "http://127.0.0.1:$port/" | grep -qi '<!doctype html>' || fail "no page"
owner=$(awk '$1 == "Uid:" { print $3 }' "/proc/$server/status")
[ "$owner" = 10001 ] || fail "it runs as user $owner"
kill -TERM "$server"
wait "$server" || fail "it did not end well when asked to"
server=""
if "${program[@]}" health >/dev/null 2>&1; then fail "the health check says that a node that is gone is ready"; fi
echo "image: $size MB, user 10001, no shell; ready, healthy and ended as told"
