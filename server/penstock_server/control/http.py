"""The HTTP port: /metrics for Prometheus, /healthz and /readyz for probes, /v1/models and /v1/drift."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from penstock_server.control.view import ServerView
from penstock_server.errors import NotFoundError, UnavailableError
from penstock_server.rollout.plan import weight_in_percent
from penstock_server.sources.combined_source import SourceState


class AdminServer:
    """The HTTP server of the supervisor.

    Args:
        view: what the supervisor knows now.
        sources: the state of each source of models.
        registry: the metrics.
        drift: the JSON of /v1/drift for a model and a version, "" for all; raises `NotFoundError`.
    """

    def __init__(
        self,
        *,
        view: Callable[[], ServerView],
        sources: Callable[[], tuple[SourceState, ...]],
        registry: CollectorRegistry,
        drift: Callable[[str, str], bytes],
    ) -> None:
        self._view = view
        self._sources = sources
        self._registry = registry
        self._drift_of = drift
        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._health),
                web.get("/readyz", self._ready),
                web.get("/v1/models", self._models),
                web.get("/v1/drift", self._drift),
                web.get("/v1/drift/{model}", self._drift),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, host: str, port: int) -> int:
        """Listens, and returns the port.

        Raises:
            UnavailableError: the address cannot be bound.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {host}:{port} for HTTP: {error.strerror or error}; choose another with --http-port"
            ) from error
        found: int = self._runner.addresses[0][1]
        return found

    async def close(self) -> None:
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        # Rendered on a thread: hundreds of series take milliseconds, and workers' events would wait for them.
        body = await asyncio.to_thread(encode, self._registry)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _request: web.Request) -> web.Response:
        is_ready = self._view().is_ready
        return web.Response(text="ready\n" if is_ready else "not ready\n", status=200 if is_ready else 503)

    async def _models(self, _request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self.state()), content_type="application/json")

    async def _drift(self, request: web.Request) -> web.Response:
        """`/v1/drift/{model}?version=V`, where V is a number or an alias such as @champion."""
        model, version = request.match_info.get("model", ""), request.query.get("version", "")
        try:
            body, status = await asyncio.to_thread(self._drift_of, model, version), 200
        except NotFoundError as error:
            body, status = msgspec.json.encode({"error": str(error)}), 404
        return web.Response(body=body, status=status, content_type="application/json")

    def state(self) -> dict[str, Any]:
        """What /v1/models shows: a row per version and role, weights in percent."""
        view = self._view()
        return {
            "models": [
                {
                    "name": version.model,
                    "version": version.version,
                    "role": role,
                    "wanted": version.wanted,
                    "weight": None if role != "canary" or version.weight is None else weight_in_percent(version.weight),
                    "state": version.state,
                    "reason": version.reason,
                }
                for version in view.versions
                for role in version.roles or ("",)
            ]
            + [
                {"name": model, "version": "", "role": "", "weight": None, "state": "UNAVAILABLE", "reason": problem}
                for model, problem in sorted(view.problems.items())
                if all(version.model != model for version in view.versions)
            ],
            "sources": [
                {"name": source.name, "state": source.state, "reason": source.reason} for source in self._sources()
            ],
            "workers": [
                {"slot": worker.slot, "pid": worker.pid, "listening": worker.is_listening, "restarts": worker.restarts}
                for worker in view.workers
            ],
            "ready": view.is_ready,
        }
