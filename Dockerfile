# The image of caffis-chat: the program, the libraries it is linked with, the roots of trust, and nothing
# else: no shell, no package manager. `docker build -t caffis-chat .`; tests/image.sh builds and runs it
# without an engine.
#
# It listens on all addresses, and therefore starts in production mode: give it CAFFIS_JWT_SECRET and
# CAFFIS_ALLOWED_ORIGINS. io_uring needs tuning/seccomp.json and 1 MiB of locked memory per shard:
#
#   docker run --security-opt seccomp=tuning/seccomp.json --ulimit memlock=16777216 -p 8080:8080 \
#     -v chat:/data -e CAFFIS_JWT_SECRET -e CAFFIS_ALLOWED_ORIGINS caffis-chat
ARG BUILDER=rust:1.95-bookworm

FROM ${BUILDER} AS build
WORKDIR /source
COPY Cargo.toml Cargo.lock ./
COPY benches benches
COPY examples examples
COPY loadtest loadtest
COPY migrations migrations
COPY src src
COPY web/dist web/dist
RUN cargo build --release --locked --bin caffis-chat
# What the program needs at run time, in the places where it looks for it. Its symbols stay, so that a
# backtrace has names; the line tables, two thirds of it, do not.
RUN set -eu; \
    mkdir -p /image/usr/bin /image/etc/ssl/certs /image/data /image/tmp; \
    objcopy --strip-debug target/release/caffis-chat /image/usr/bin/caffis-chat; \
    ldd target/release/caffis-chat | grep -o '/[^ ]*' | sort -u | while read -r library; do \
      mkdir -p "/image$(dirname "$library")"; cp -L "$library" "/image$library"; \
    done; \
    cp -L /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/; \
    echo 'caffis:x:10001:10001:caffis-chat:/data:/nonexistent' >/image/etc/passwd; \
    echo 'caffis:x:10001:' >/image/etc/group; \
    echo 'hosts: files dns' >/image/etc/nsswitch.conf; \
    chown 10001:10001 /image/data; \
    chmod 700 /image/data; \
    chmod 1777 /image/tmp

FROM scratch
COPY --from=build /image /
USER 10001:10001
ENV CAFFIS_MODE=production CAFFIS_LISTEN=0.0.0.0:8080 CAFFIS_DATA_DIR=/data
WORKDIR /data
VOLUME /data
EXPOSE 8080
# The node drains, for CAFFIS_DRAIN_MS and the last closes: stop it with a timeout of 30 s (docker stop -t 30).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=8s --start-period=10s --retries=3 CMD ["/usr/bin/caffis-chat", "health"]
ENTRYPOINT ["/usr/bin/caffis-chat"]
