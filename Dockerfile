# The worker as a container image.
#
#   docker build -t faas-worker .                   worker, example handlers, sh: the last stage
#   docker build --target worker -t faas-worker .   one static file in an empty image
#
# It is built for the platform of the builder, or by `docker buildx build --platform linux/arm64`. The worker
# names its commit with `--build-arg REVISION="$(git rev-parse HEAD)"`.
#
# Any other image takes the program from either by one line:
#
#   COPY --from=faas-worker /usr/local/bin/faas-worker /usr/local/bin/
#
# For the classic builder and BuildKit alike: no heredocs, no RUN --mount, no COPY --chmod.

# ---- Dependencies: built again only when Cargo.toml or Cargo.lock change ---------------------------
FROM rust:1-slim-bookworm AS dependencies
WORKDIR /src
ENV CARGO_TARGET_DIR=/target
# Static files need no libc at run time. The target is named, though it is the machine's own:
# without that the flags would hold for procedural macros too, which cannot be static. The flags are those of
# scripts/release/program.sh, which take the paths of this place out of messages: of the same commit, compiler
# and C library, the worker here has the same bytes as the one in a release.
RUN mkdir /.cargo && { \
        printf '[build]\ntarget = "%s"\nrustflags = [' "$(rustc -vV | sed -n 's/^host: //p')" \
        && printf '"%s", ' -C target-feature=+crt-static -C linker=cc \
            --remap-path-prefix=/src=/faas-worker \
            --remap-path-prefix=/target=/faas-worker/target \
            "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" \
            "--remap-path-prefix=$(rustc --print sysroot)=/rust" \
        && echo ']'; \
    } >/.cargo/config.toml
COPY Cargo.toml Cargo.lock ./
# Empty sources stand in for ours, so the targets that the manifest names are left out. Twice, as
# below: the features that tests ask of the libraries must not reach the worker.
RUN sed -i '/^\[\[/,/^$/d' Cargo.toml \
    && mkdir src examples && touch src/lib.rs \
    && echo 'fn main() {}' | tee src/main.rs >examples/stub.rs \
    && cargo build --locked --release --bin faas-worker \
    && cargo build --locked --release --no-default-features --features handler --examples \
    && rm -r src examples

# ---- Our own sources ----------------------------------------------------------------------------
FROM dependencies AS build
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY examples examples
# What `faas-worker --version` and faas_build_info give as the commit; a new one builds only our own sources.
ARG REVISION=unknown
# Cargo compares times, and a checkout may be older than the stand-ins built above.
RUN if [ "$REVISION" != unknown ]; then export FAAS_REVISION="$REVISION"; fi \
    && find src examples -name '*.rs' -exec touch {} + \
    && cargo build --locked --release --bin faas-worker \
    && cargo build --locked --release --no-default-features --features handler \
        --example default --example decode_type_a --example decode_type_b --example echo
# Seconds since 1970, which the files bear as their time: two builds then give the last stage the same layer.
ARG SOURCE_DATE_EPOCH=0
# Owned by root and written by nobody: the worker runs as another user.
RUN share=/out/usr/local/share \
    && mkdir -p /out/usr/local/bin /out/handlers $share/man/man1 \
        $share/bash-completion/completions $share/zsh/site-functions \
    && cp /target/*/release/faas-worker /out/usr/local/bin/ \
    && /out/usr/local/bin/faas-worker man >$share/man/man1/faas-worker.1 \
    && /out/usr/local/bin/faas-worker completions bash \
        >$share/bash-completion/completions/faas-worker \
    && /out/usr/local/bin/faas-worker completions zsh >$share/zsh/site-functions/_faas-worker \
    && for name in default decode_type_a decode_type_b echo; do \
        cp /target/*/release/examples/$name /out/handlers/ || exit 1; \
    done \
    && cp -r examples/shell /out/handlers/ \
    && chmod -R u=rwX,go=rX /out \
    && find /out -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} + \
    && if readelf --program-headers /out/usr/local/bin/faas-worker /out/handlers/default \
        | grep INTERP; then echo 'not a static file' >&2; exit 1; fi

# ---- The program alone --------------------------------------------------------------------------
FROM scratch AS worker
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="faas-worker" \
      org.opencontainers.image.description="Turns any command into an HTTP function" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /out/usr/local/bin/faas-worker /usr/local/bin/faas-worker
USER 65532:65532
# A load balancer, or the engine itself, sends requests for a moment after it was told to stop.
ENV HOST=0.0.0.0 PORT=8000 FAAS_DRAIN_DELAY=2s
EXPOSE 8000
STOPSIGNAL SIGTERM
# Ready, not merely alive: a version whose handler does not start must not roll out. Within the start
# period a process that sends no ready line counts as up (10 s), and failures do not count.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/faas-worker", "health", "--ready"]
ENTRYPOINT ["/usr/local/bin/faas-worker"]

# ---- The program with the example handlers and the sh that some of them need ------------------------
FROM debian:bookworm-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="faas-worker" \
      org.opencontainers.image.description="Turns any command into an HTTP function" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /out/ /
# A number, so that a platform can see that it is not root.
USER 65532:65532
WORKDIR /handlers
# In a container the loopback address is the container's own.
# A load balancer, or the engine itself, sends requests for a moment after it was told to stop.
ENV HOST=0.0.0.0 PORT=8000 FAAS_DRAIN_DELAY=2s HANDLER_FUNCTION=/handlers/default
EXPOSE 8000
STOPSIGNAL SIGTERM
# Ready, not merely alive: a version whose handler does not start must not roll out. Asks at the
# address from HOST and PORT (or FAAS_ADMIN), so set PORT rather than --port.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/faas-worker", "health", "--ready"]
# The exec form: the worker is PID 1 and gets the signals itself.
ENTRYPOINT ["/usr/local/bin/faas-worker"]
