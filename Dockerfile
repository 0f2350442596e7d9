# The server in a small image: kernels and wheels are made in one stage, and only what runs is in the other.
#
#   docker build -t penstock .
#   docker run -p 8001:8001 -p 8002:8002 -e MLFLOW_TRACKING_URI=http://mlflow:5000 penstock
#
# With REST: -p 8000:8000, and --rest-port 8000 behind the image's name.
#
# For an NVIDIA GPU, let the build stage end with the two lines below, and run with `--gpus all`. The packages bring CUDA and cuDNN,
# some gigabytes, and the driver is the host's. onnxruntime-gpu takes the place of onnxruntime, whose module it has.
#   RUN uv pip uninstall --python /opt/penstock/bin/python onnxruntime \
#    && uv pip install --no-cache --python /opt/penstock/bin/python 'onnxruntime-gpu[cuda,cudnn]'
FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements.lock ./
# The lock fixes the version and the digest of each package, so that two builds of a commit hold the same ones.
RUN pip install --no-cache-dir "$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)"
# numba and its LLVM, 200 MB, only compile the kernels: for every machine of the image's architecture, so that none
# waits at its first start. They run as fast as those compiled for one machine, within some percent.
RUN python -m venv --without-pip /opt/compile \
 && uv pip install --no-cache --python /opt/compile/bin/python --constraints requirements.lock msgspec numba rich typer
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY server server
COPY client client
COPY tools tools
RUN PYTHONPATH=protos:server:tools /opt/compile/bin/python -m penstock_tools.cli.main compile --baseline
RUN python -m venv --without-pip /opt/penstock \
 && uv pip install --no-cache --python /opt/penstock/bin/python --constraints requirements.lock \
    --build-constraints requirements.lock ".[native,server]"
# Bytecode of what is imported, and of nothing else: without it each start would compile it again, for seconds.
RUN /opt/penstock/bin/python -c "import penstock_tools.cli.serve, penstock_server.cli, penstock_server.worker, \
penstock_server.sources.mlflow_client, mlflow.tracking, mlflow.store.artifact.artifact_repository_registry, \
mlflow.store.model_registry.rest_store, mlflow.store.tracking.rest_store, mlflow.store.artifact.mlflow_artifacts_repo, \
mlflow.store.model_registry.sqlalchemy_store, mlflow.store.tracking.sqlalchemy_store, urllib.request; \
from penstock_server.kernel_sets import KERNEL_SETS; from penstock_server.kernels import compiled; \
[compiled.load(each, compiled.find_shipped(each)[1]) for each in KERNEL_SETS]"

FROM python:3.11-slim
RUN install -d -o 10001 -g 10001 /var/cache/penstock /var/lib/penstock
COPY --from=build /opt/penstock /opt/penstock
ENV PATH=/opt/penstock/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/penstock \
    PENSTOCK_CACHE_DIR=/var/cache/penstock \
    PENSTOCK_DATA_DIR=/var/lib/penstock
# A number, so that Kubernetes can tell that it is not root.
USER 10001:10001
VOLUME ["/var/cache/penstock", "/var/lib/penstock"]
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --start-period=10s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8002/readyz', timeout=5)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["penstock", "serve", "--host", "0.0.0.0"]
