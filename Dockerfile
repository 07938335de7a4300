# A static binary and nothing else: no shell, no package, no root.
#
#     docker build -t music-streams .
#     docker buildx build --platform linux/arm64,linux/amd64 -t REGISTRY/music-streams:VERSION --push .
#
# `make image` builds the last stage alone, from a binary that the machine has built.

FROM rust:1.95-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN make dist DIST=/dist

FROM scratch
COPY --from=build /dist /
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    MUSIC_STREAMS_HEALTH_ADDRESS=127.0.0.1:8080 \
    MUSIC_STREAMS_LOG_FORMAT=json
USER 65532:65532
# Docker's own; ECS takes it from the task definition.
HEALTHCHECK --interval=30s --timeout=5s --start-period=300s CMD ["/music-streams", "health"]
ENTRYPOINT ["/music-streams"]
CMD ["run"]
