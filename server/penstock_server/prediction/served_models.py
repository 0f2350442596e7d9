"""What a worker serves: the routes that the supervisor has sent, over the versions that are loaded.

A promotion changes one model of thousands, so only what has changed is made anew, and tables that follow each other share the
rest (`routing_table`). The worker's commands change it, and read it, on their thread.
"""

from collections.abc import Iterable, Mapping

from penstock.names import VersionKey
from penstock_server.prediction.executor import Executor
from penstock_server.prediction.routing_table import ServedModel
from penstock_server.rollout.plan import ModelRoutes


class ServedModels:
    """The models that are served.

    Args:
        executors: the loaded versions, which the worker adds and removes.
        is_lazy: models are loaded when they are asked for.

    Attributes:
        routes: the last that were sent.
    """

    def __init__(self, executors: Mapping[VersionKey, Executor], *, is_lazy: bool) -> None:
        self.routes: Mapping[str, ModelRoutes] = {}
        self._executors = executors
        self._is_lazy = is_lazy
        self._models: dict[str, ServedModel] = {}
        self._changed: set[str] = set()

    def route(self, routes: Mapping[str, ModelRoutes], changed: Iterable[str]) -> None:
        """Takes the routes of all models, of which these are other than before, new, or gone."""
        self.routes = routes
        self._changed.update(changed)

    def change(self, model: str) -> None:
        """Takes note that a version of a model was loaded or unloaded."""
        self._changed.add(model)

    def refresh(self) -> list[ServedModel]:
        """Makes anew what has changed since the last time; returns that."""
        loaded: dict[str, dict[str, Executor]] = {name: {} for name in self._changed if name in self.routes}
        for (name, version), executor in self._executors.items():
            if name in loaded:
                loaded[name][version] = executor
        made = {name: self._served(name, versions) for name, versions in loaded.items()}
        for name in self._changed - made.keys():
            self._models.pop(name, None)
        self._models.update(made)
        self._changed.clear()
        return list(made.values())

    def _served(self, name: str, versions: Mapping[str, Executor]) -> ServedModel:
        routes = self.routes[name]
        return ServedModel(
            name,
            routes.plan,
            versions,
            routes.statuses,
            routes.problem,
            is_lazy=self._is_lazy,
            is_on_call=routes.is_on_call,
        )

    @property
    def models(self) -> dict[str, ServedModel]:
        """Those that are served, as they were refreshed last."""
        return dict(self._models)
