# A function in Python in its own image, with the worker added by one line.
#
#   docker build -t faas-worker .
#   docker build -t my-function -f examples/deploy/docker/python.Dockerfile examples/python
FROM python:3-slim-bookworm
COPY --from=faas-worker /usr/local/bin/faas-worker /usr/local/bin/
WORKDIR /app
COPY serve.py handler.py ./
USER 65532:65532
ENV HOST=0.0.0.0 PORT=8000 FAAS_DRAIN_DELAY=2s \
    HANDLER_FUNCTION="python3 serve.py handler.decode_type_a"
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["faas-worker", "health", "--ready"]
ENTRYPOINT ["faas-worker"]
