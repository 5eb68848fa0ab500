# The image of tuneloop: one binary on a small Debian, run by an unprivileged user.
#
#   docker build -t tuneloop --build-arg VERSION=0.1.0 .
#   docker run --rm -p 8080:8080 -e DATABASE_URL=… -e OPENAI_API_KEY=… tuneloop

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Downloads and compiled dependencies stay in the builder's cache, so a change of the source compiles one crate.
# Cargo compares times of files, and a checkout may be older than what the cache was made from: touch the roots.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    touch build.rs src/lib.rs src/main.rs \
    && cargo build --profile dist --locked --bin tuneloop \
    && install -D target/dist/tuneloop /out/usr/local/bin/tuneloop \
    # Providers are trusted by the system's root certificates, which the small Debian does not have.
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ca-certificates.crt

FROM debian:bookworm-slim
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tuneloop" \
      org.opencontainers.image.description="A control plane that keeps a production language model improving by itself" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# The working directory holds the datasets (data/datasets) unless DATASET_STORE_URL names another place.
RUN install -d -o 65532 -g 65532 /var/lib/tuneloop /var/lib/tuneloop/data
COPY --from=build /out /

# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
WORKDIR /var/lib/tuneloop
ENV TUNELOOP_LISTEN=0.0.0.0:8080
EXPOSE 8080
ENTRYPOINT ["tuneloop"]
CMD ["serve"]
