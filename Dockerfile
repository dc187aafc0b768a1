# syntax=docker/dockerfile:1
# One build for both binaries, and one small image for each: --target api, --target reconciler.

FROM rust:1.95.0-bookworm AS builder
# librdkafka is built from its own source, with the make and gcc that this image has.
WORKDIR /src
# The image's own toolchain is the pinned one; without this rustup would fetch clippy and rustfmt first.
ENV RUSTUP_TOOLCHAIN=1.95.0
COPY . .
# The caches outlive the layer, the binaries must not be left in them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked -p boxoffice-api -p boxoffice-reconciler \
    && install -D -t /out target/release/boxoffice-api target/release/boxoffice-reconciler

FROM debian:bookworm-20260803-slim AS runtime
# curl makes the health check. The certificates are for the keys of tokens, which the API reads by https (BOXOFFICE_JWT_JWKS);
# PostgreSQL, Redis and Kafka are spoken to without TLS.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin boxoffice
USER 10001:10001
WORKDIR /

FROM runtime AS reconciler
COPY --from=builder /out/boxoffice-reconciler /usr/local/bin/boxoffice-reconciler
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s CMD ["boxoffice-reconciler", "status"]
ENTRYPOINT ["boxoffice-reconciler"]
CMD ["run"]

FROM runtime AS api
ENV BOXOFFICE_LISTEN=0.0.0.0:8080
EXPOSE 8080
COPY --from=builder /out/boxoffice-api /usr/local/bin/boxoffice-api
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8080/livez"]
ENTRYPOINT ["boxoffice-api"]
