# Two images: `engine` (the default) and `test-head`, the reference sender.
#
#     docker build -t ringest .
#     docker build -t ringest-test-head --target test-head .
#
# Works with BuildKit and with the classic builder; needs no syntax image.

# The Rust release must be that of rust-toolchain.toml.
ARG RUST_IMAGE=rust:1.95.0-slim-trixie
ARG DEBIAN_IMAGE=debian:trixie-slim

# The sender comes first: the classic builder builds every stage above the requested one, and the
# sender should not require compiling the engine.
FROM ${DEBIAN_IMAGE} AS test-head
LABEL org.opencontainers.image.title="ringest test head" \
      org.opencontainers.image.description="Reference sender of records for the ringest engine" \
      org.opencontainers.image.licenses="MIT"
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/*
COPY test_head.py /usr/local/lib/ringest/test_head.py
# Log lines appear as they are printed, and no bytecode files are written.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["python3", "/usr/local/lib/ringest/test_head.py"]
CMD ["engine"]

FROM ${RUST_IMAGE} AS build
WORKDIR /build
# The image ships without debug data; a build outside Docker keeps its line tables.
ENV CARGO_PROFILE_RELEASE_DEBUG=none CARGO_PROFILE_RELEASE_STRIP=debuginfo
# rust-toolchain.toml is left out: it makes rustup download rustfmt and clippy, which a build does
# not need.
COPY Cargo.toml Cargo.lock ./
# Compiles the dependencies, with empty sources in place of ours, in a layer that only Cargo.toml and
# Cargo.lock can invalidate. Our own crate is then cleaned: its real files may be older than that
# build, and Cargo compares times. Benchmarks are not built, but Cargo requires their files to exist.
RUN mkdir src benches \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs \
 && sed -n '/^\[\[bench\]\]/,/^$/ s/^name = "\(.*\)"$/benches\/\1.rs/p' Cargo.toml \
    | xargs -r touch \
 && cargo build --release --locked \
 && cargo clean --release --locked --package ringest
COPY src src
RUN cargo build --release --locked

FROM ${DEBIAN_IMAGE} AS engine
LABEL org.opencontainers.image.title="ringest" \
      org.opencontainers.image.description="io_uring engine: records in, grouped results out" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /build/target/release/ringest /usr/local/bin/ringest
# Numeric, so that a host can tell that it is not root without reading this image's /etc/passwd.
USER 65532:65532
# Records, messages, and metrics with health and state.
EXPOSE 9000 5000 6000
ENTRYPOINT ["ringest"]
CMD ["serve"]
