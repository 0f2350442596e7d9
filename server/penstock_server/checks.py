"""Checks before anything starts what can be known by then: folders, installed libraries, limits of the machine.

`check` refuses settings with which a server could never do what they ask for. What may still work is only warned of. `app` and
`penstock serve --check` call it; what the settings alone tell has been checked when they were read.
"""

import os
import resource
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from penstock_server.access.credentials import check_files
from penstock_server.cores import cores
from penstock_server.errors import InvalidInputError
from penstock_server.kernels.compiled import check_writable
from penstock_server.models import execution
from penstock_server.paths import cache_dir, data_dir
from penstock_server.settings import ServerSettings
from penstock_server.sources import registry
from penstock_server.tracing.layout import REGION_BYTES
from penstock_server.tracing.settings import certificates_in
from penstock_server.transport.address import UNIX
from penstock_server.transport.choose import native_refusal
from penstock_server.transport.settings import COMPLETION_QUEUE, NATIVE

HTTP_CONNECTIONS: Final = 256
"""Many times what probes, scrapes and people need at once."""
_PYTHON: Final = ("sklearn", "pandas", "joblib")
"""What the process of every pipeline imports."""
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the system's shared memory
_SHARED_BYTES: Final = 1024 * 1024
"""What a worker's counters of a few versions take."""
_DESCRIPTORS: Final = 512
"""What the supervisor needs: its HTTP connections, and a margin."""
_WORKER_DESCRIPTORS: Final = 64
"""What it needs more for each worker, with which a worker by itself has enough for its libraries."""


def check(settings: ServerSettings) -> None:
    """Checks that a server with these settings can start.

    Raises:
        InvalidInputError: it cannot; one sentence says why, and what to do.
    """
    _check_sources(settings)
    _check_cache(settings)
    _check_request_log(settings)
    _check_labels(settings)
    if settings.webhook.is_on:
        settings.webhook.read_secret()
    _check_execution(settings)
    for files in (settings.grpc.tls, settings.http.tls):
        if files is not None:
            files.check()
    check_files(settings.access)
    if settings.tracing.is_on:
        certificates_in(os.environ)


def warnings(settings: ServerSettings) -> Iterator[str]:
    """What is likely to go wrong on this machine, a sentence each."""
    if settings.workers > (usable := cores()):
        yield f"{settings.workers} workers share {usable} cores; more workers than cores make answers slower"
    if settings.transport == NATIVE and (reason := native_refusal()):
        yield f"{reason}; without the native transport, gRPC is served over {COMPLETION_QUEUE}"
    needed = _DESCRIPTORS + _WORKER_DESCRIPTORS * settings.workers
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        yield f"a process may have {soft} files and connections open, expected at least {needed}; raise `ulimit -n`"
    if _SHARED_MEMORY.is_dir():
        found = os.statvfs(_SHARED_MEMORY)
        free = found.f_bavail * found.f_frsize
        needed = settings.workers * (_SHARED_BYTES + (REGION_BYTES if settings.tracing.is_on else 0))
        if free < needed:
            yield (
                f"{_SHARED_MEMORY} has {free >> 20} MiB left, expected {-(-needed >> 20)} or more for the counters; for a "
                "container, set --shm-size"
            )
    if settings.python.allow and (missing := [name for name in _PYTHON if find_spec(name) is None]):
        yield f"versions that run Python need {', '.join(missing)}, not installed here; run: pip install 'penstock[python]'"
    yield from _access_warnings(settings)
    yield from _execution_warnings(settings)
    if settings.registry is None and (reason := _cache_failure()):
        yield f"{reason}; the server keeps no last known state, and compiles no kernels"


def _access_warnings(settings: ServerSettings) -> Iterator[str]:
    access, host = settings.access, settings.grpc_host
    is_local = host.startswith(UNIX) or host in {"localhost", "127.0.0.1", "::1", "[::1]"}
    if (access.tokens is not None or access.issuers) and not is_local:
        for table, files in (("grpc", settings.grpc.tls), ("http", settings.http.tls)):
            if files is None:
                yield f"tokens can be read by the network: {table}.tls_certificate and {table}.tls_key are not set"
    for name, issuer in access.issuers.items():
        if issuer.jwks.startswith("http://") and urlsplit(issuer.jwks).hostname not in {
            "localhost",
            "127.0.0.1",
            "::1",
        }:
            yield f"the network can replace the keys of access.issuers.{name}: {issuer.jwks} is not encrypted"


def runnable(settings: ServerSettings) -> ServerSettings:
    """The settings with the transport that can run here.

    Decided once, before any worker starts: supervisor and workers must agree on who listens.

    Raises:
        InvalidInputError: no other transport can do what is wanted of it.
    """
    if settings.transport == NATIVE and native_refusal():
        return replace(settings, transport=COMPLETION_QUEUE)
    return settings


def http_connections() -> int:
    """How many HTTP connections may take descriptors: a quarter at most, so that what serves models never lacks them."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return HTTP_CONNECTIONS if soft == resource.RLIM_INFINITY else max(4, min(HTTP_CONNECTIONS, soft // 4))


def raise_descriptor_limit() -> None:
    """Lets this process, and those that it starts, have as many files and connections open as it is allowed to."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS refuses an infinite limit
        return


def _check_sources(settings: ServerSettings) -> None:
    if settings.registry is None and settings.model_repository is None:
        raise InvalidInputError("there is nowhere to get models from; set a registry or a model repository")
    if settings.registry is not None:
        registry.check_uri(settings.registry)
    folder = settings.model_repository
    if folder is not None:
        try:
            os.listdir(folder)
        except OSError as error:
            raise InvalidInputError(
                f"the model repository {folder} cannot be read ({error.strerror}); "
                "expected a folder with <model>/<version>/model.onnx in it"
            ) from error


def _check_cache(settings: ServerSettings) -> None:
    """Versions of a registry are fetched into the cache; a folder's are served where they are."""
    if settings.registry is not None and (reason := _cache_failure()):
        raise InvalidInputError(f"{reason}; set PENSTOCK_CACHE_DIR to a folder to write to")


def _cache_failure() -> str:
    folder = cache_dir()
    try:
        check_writable(folder)
    except OSError as error:
        return f"the cache folder {folder} cannot be written to: {error.strerror}"
    return ""


def _available(settings: ServerSettings) -> Sequence[str]:
    """The providers that onnxruntime offers, where a setting asks for others than the CPU; it is imported only then."""
    if not any(each.has_device for _, each in settings.execution.each()):
        return [execution.PROVIDERS[execution.CPU].name]
    from penstock_server.models import onnx_model

    return onnx_model.available()


def _check_execution(settings: ServerSettings) -> None:
    available = _available(settings)
    for where, each in settings.execution.each():
        try:
            execution.offered(each, available)
        except InvalidInputError as error:
            raise InvalidInputError(f"{where}.providers is {list(each.providers)}: {error}") from error


def _execution_warnings(settings: ServerSettings) -> Iterator[str]:
    available = _available(settings)
    for where, each in settings.execution.each():
        if reason := execution.missing(each, available):
            yield f"{where}.providers is {list(each.providers)}, of which some are not there: {reason}"
        can_be_limited = any(execution.PROVIDERS[name].memory for name in each.providers)
        if can_be_limited and each.memory_mib is None and settings.workers > 1:
            yield (
                f"{settings.workers} workers load each version onto the device, and none has a limit; "
                f"set {where}.memory_mib to what a version may take in one worker"
            )


def _check_labels(settings: ServerSettings) -> None:
    labels = settings.labels
    if not labels.is_on:
        return
    if labels.folder is None and settings.port == 0 and not settings.grpc_host.startswith(UNIX):
        raise InvalidInputError(
            "labels.folder is not set, and with port 0 no later server would find what is kept; set it"
        )
    folder = labels.folder or data_dir()
    try:
        check_writable(folder)
    except OSError as error:
        raise InvalidInputError(
            f"labels are kept in {folder}, which cannot be written to ({error.strerror}); set labels.folder"
        ) from error
    if labels.peer_token_file is not None:
        try:
            labels.peer_token_file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(
                f"labels.peer_token_file is {labels.peer_token_file}, which cannot be read"
            ) from error


def _check_request_log(settings: ServerSettings) -> None:
    folder = settings.request_log.directory
    if folder is None:
        return
    if find_spec("pyarrow") is None:
        raise InvalidInputError(
            "request_log.directory needs pyarrow, which is not installed; run: pip install 'penstock[log]'"
        )
    try:
        check_writable(folder)
    except OSError as error:
        raise InvalidInputError(
            f"request_log.directory is {folder}, which cannot be written to ({error.strerror}); expected a folder, "
            "which is made if it is not there"
        ) from error
