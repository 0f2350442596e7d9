# The server in a small image: wheels are installed in one stage, and only what runs is in the other.
#
#   docker build -t penstock .
#   docker run -p 8001:8001 -p 8002:8002 -e MLFLOW_TRACKING_URI=http://mlflow:5000 penstock
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/penstock
ENV PATH=/opt/penstock/bin:$PATH
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY protos protos
COPY server server
COPY client client
COPY tools tools
# The lock fixes the version and the digest of each package, so that two builds of a commit hold the same ones.
RUN pip install --no-cache-dir "$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)" \
 && uv pip install --no-cache --constraints requirements.lock --build-constraints requirements.lock ".[server]" \
 && pip uninstall --yes uv
# The kernels are compiled for the processor that runs them, so here only to prove that they compile; each machine
# compiles its own at the first start, into the volume below.
RUN PENSTOCK_CACHE_DIR=/tmp/cache python -m penstock_server.features.build

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 penstock && install -d -o penstock -g penstock /var/cache/penstock /var/lib/penstock
COPY --from=build /opt/penstock /opt/penstock
ENV PATH=/opt/penstock/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PENSTOCK_CACHE_DIR=/var/cache/penstock \
    PENSTOCK_DATA_DIR=/var/lib/penstock
USER penstock
VOLUME ["/var/cache/penstock", "/var/lib/penstock"]
EXPOSE 8001 8002
HEALTHCHECK --interval=10s --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8002/readyz', timeout=5)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["penstock", "serve", "--host", "0.0.0.0"]
