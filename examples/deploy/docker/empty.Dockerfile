# Two static files and nothing else: the worker and a handler in Rust, here an example's.
#
#   docker build -t faas-worker .
#   docker build -t my-function -f examples/deploy/docker/empty.Dockerfile .
FROM scratch
COPY --from=faas-worker /usr/local/bin/faas-worker /usr/local/bin/
COPY --from=faas-worker /handlers/decode_type_b /handler
USER 65532:65532
ENV HOST=0.0.0.0 PORT=8000 FAAS_DRAIN_DELAY=2s HANDLER_FUNCTION=/handler
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s \
    CMD ["/usr/local/bin/faas-worker", "health", "--ready"]
ENTRYPOINT ["/usr/local/bin/faas-worker"]
