"""Ray's engine: parts scored by actors of Ray Data, on this machine or on a cluster.

Ray runs a part again where an actor or a machine is lost, also one whose answers were written before that was known. Outputs
take each part once, so no row is lost or doubled.
"""

import io
import logging
import pickle
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from penstock_server.errors import PenstockError, UnavailableError, first_line
from penstock_tools.batch.job import Part, PartResult, Recipe
from penstock_tools.batch.worker import Worker


def run(parts: Iterable[Part], recipe: Recipe, address: str, actors: int | None) -> Iterator[PartResult]:
    """The results of parts, as they come.

    Args:
        parts: of an input that every machine of the cluster reaches.
        recipe: how they are scored; the version's files go along.
        address: of the cluster, such as ray://head:10001 or auto; "local" starts one on this machine.
        actors: how many processes score; None for one per core of the cluster.

    Raises:
        PenstockError: as `Worker.score`.
        UnavailableError: there is no such cluster, or it failed.
    """
    import ray

    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UnavailableError(f"there is no cluster of Ray at {address}: {first_line(error)}") from error
    try:
        yield from _results(ray, list(parts), recipe, actors or _cores(ray))
    finally:
        if started:
            ray.shutdown()


def _cores(ray: Any) -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _results(ray: Any, parts: list[Part], recipe: Recipe, actors: int) -> Iterator[PartResult]:
    if not parts:
        return
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"part": pickle.dumps(part)} for part in parts]
    scored = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Actor,
        fn_constructor_args=(recipe, zipped(recipe.folder)),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(parts))),
        num_cpus=1,
    )
    try:
        for row in scored.iter_rows():
            yield msgspec.msgpack.decode(row["result"], type=PartResult)
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, PenstockError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if isinstance(cause, PenstockError):
            raise cause from error
        raise UnavailableError(f"the cluster of Ray failed: {first_line(error)}") from error


class Actor:
    """A process of the cluster, which holds the version."""

    def __init__(self, recipe: Recipe, archive: bytes) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="penstock-")
        folder = Path(self._scratch.name) / recipe.folder.parent.name / recipe.folder.name
        with zipfile.ZipFile(io.BytesIO(archive)) as files:
            files.extractall(folder)
        self._worker = Worker(replace(recipe, folder=folder))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results = [msgspec.msgpack.encode(self._worker.score(pickle.loads(part))) for part in batch["part"]]  # noqa: S301
        return {"result": np.array([*results, None], object)[:-1]}


def zipped(folder: Path) -> bytes:
    """A version's files as one archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as files:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                files.write(path, path.relative_to(folder))
    return content.getvalue()
