# syntax=docker/dockerfile:1
# One image, both binaries: /millrace (the entry point) and /millrace-operator.
#
#   docker build -t millrace:0.1.0 .                                       compiles
#   docker buildx build --platform linux/amd64,linux/arm64 …               for both, compiled on this machine's own
#   docker build --build-arg PREBUILT=dist -t millrace:0.1.0 .             packs dist/millrace and dist/millrace-operator,
#                                                                          static binaries for the platform asked for
#
# Where there is no Docker, tests/kube/testbed/mkimage packs the same binaries with the same entry point and
# user: change both together.
ARG PREBUILT=
ARG SOURCE=${PREBUILT:+prebuilt}

FROM scratch AS prebuilt
ARG PREBUILT
COPY --chmod=755 ${PREBUILT}/millrace ${PREBUILT}/millrace-operator /

FROM --platform=$BUILDPLATFORM rust:1.95.0-bookworm AS compiled
ARG TARGETARCH
WORKDIR /src
RUN <<'RUN'
set -eu
case $TARGETARCH in
  amd64) gnu=x86_64-linux-gnu cross=x86-64-linux-gnu libc=amd64 rust=x86_64-unknown-linux-gnu;;
  arm64) gnu=aarch64-linux-gnu cross=aarch64-linux-gnu libc=arm64 rust=aarch64-unknown-linux-gnu;;
  *) echo "no build for $TARGETARCH" >&2; exit 1;;
esac
if [ "$(dpkg --print-architecture)" != "$TARGETARCH" ]; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "gcc-$cross" "libc6-dev-$libc-cross" >/dev/null
  rm -rf /var/lib/apt/lists/*
fi
variable=$(echo "$rust" | tr a-z- A-Z_)
cat >/etc/build.env <<ENV
export CARGO_BUILD_TARGET=$rust CARGO_TARGET_${variable}_LINKER=$gnu-gcc
export CC_$(echo "$rust" | tr - _)=$gnu-gcc AR_$(echo "$rust" | tr - _)=$gnu-ar
ENV
RUN
COPY rust-toolchain.toml ./
RUN . /etc/build.env && rustup target add "$CARGO_BUILD_TARGET"
COPY . .
# .cargo/config.toml links glibc statically: what it makes runs in an empty image.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,id=millrace-target-$TARGETARCH <<'RUN'
set -eu
. /etc/build.env
cargo build --locked --release --package millrace --package millrace-operator
mkdir /out
cp target/"$CARGO_BUILD_TARGET"/release/millrace target/"$CARGO_BUILD_TARGET"/release/millrace-operator /out/
RUN

FROM scratch AS compiled-binaries
COPY --from=compiled /out/ /

FROM ${SOURCE:-compiled-binaries} AS binaries

FROM scratch
LABEL org.opencontainers.image.title="millrace" \
      org.opencontainers.image.description="Message broker and its Kubernetes operator" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=binaries /millrace /millrace-operator /
# Large bodies go back to the system when they are freed: docs/decisions/2026-11-21-what-memory-counts.md
ENV MALLOC_MMAP_THRESHOLD_=131072
USER 65532:65532
EXPOSE 7070 7072
ENTRYPOINT ["/millrace"]
