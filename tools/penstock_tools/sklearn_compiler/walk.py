"""Walks a fitted pipeline from its raw columns to its model: pipelines, column transformers, unions, and what is in them.

`rules` says what a transformer becomes, `in_graph` takes those without a rule. This module decides which columns reach
which transformer, and records what each became, for the proof.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline

from penstock_server.errors import InvalidInputError
from penstock_server.features.spec.steps import Linear
from penstock_tools.sklearn_compiler import in_graph, rules
from penstock_tools.sklearn_compiler.columns import InGraph, Numbers, Parts, numbers, pick, then, together
from penstock_tools.sklearn_compiler.refusals import NotCompiled, Refused, StepPath, place, step_of


@dataclass(frozen=True, slots=True)
class Stage:
    """A transformer, and what came out of it."""

    path: StepPath
    parts: Parts

    @property
    def is_in_graph(self) -> bool:
        """Whether the graph computes it."""
        return any(isinstance(part, InGraph) for part in self.parts)


class Walk:
    """One walk; `stages` are the transformers that it passed, in their order."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []

    def through(self, transformer: Any, parts: Parts, path: StepPath) -> Parts:
        """What the transformer makes of the parts.

        Args:
            transformer: fitted; "passthrough", None and "drop" too.
            parts: what reaches it.
            path: where it is, its own name included.

        Raises:
            UnsupportedError: it can neither be compiled nor put in the graph; names its place and what would work.
            InvalidInputError: its parameters exceed a limit of specifications.
        """
        if transformer is None or isinstance(transformer, str):
            return () if transformer == "drop" else parts
        container = _CONTAINERS.get(type(transformer))
        if container is not None:
            return container(self, transformer, parts, path)
        made = self._leaf(transformer, together(parts), path)
        self.stages.append(Stage(path, made))
        return made

    def _leaf(self, transformer: Any, parts: Parts, path: StepPath) -> Parts:
        try:
            return rules.of(transformer)(transformer, parts)
        except NotCompiled as reason:
            return (in_graph.applied(transformer, parts, path, reason),)
        except Refused as reason:
            raise in_graph.refusal(transformer, path, str(reason)) from reason
        except ValueError as error:
            raise InvalidInputError(f"{place(path)} does not fit a feature specification: {error}") from error

    def _pipeline(self, pipeline: Pipeline, parts: Parts, path: StepPath) -> Parts:
        for name, step in pipeline.steps:
            parts = self.through(step, parts, branch_path(path, name, step))
        return parts

    def _columns(self, columns: ColumnTransformer, parts: Parts, path: StepPath) -> Parts:
        weights = columns.transformer_weights or {}
        made: list[Any] = []
        for name, transformer, chosen in fitted_branches(columns):
            here = branch_path(path, name, transformer)
            try:
                picked = pick(parts, chosen)
            except (NotCompiled, Refused) as reason:
                raise in_graph.refusal(columns, here, str(reason)) from reason
            made += _weighted(self.through(transformer, picked, here), weights.get(name), here)
        return together(made)

    def _union(self, union: FeatureUnion, parts: Parts, path: StepPath) -> Parts:
        weights = union.transformer_weights or {}
        made: list[Any] = []
        for name, transformer in union.transformer_list:
            here = branch_path(path, name, transformer)
            made += _weighted(self.through(transformer, parts, here), weights.get(name), here)
        return together(made)


def branch_path(path: StepPath, name: str, transformer: Any) -> StepPath:
    """The path of a step in a container. A container is called by its name alone."""
    return (*path, name if type(transformer) in _CONTAINERS else step_of(name, transformer))


def fitted_branches(columns: ColumnTransformer) -> Iterator[tuple[str, Any, list[int]]]:
    """The branches of a column transformer that have columns: name, fitted transformer, and the columns' places."""
    places: Mapping[str, Sequence[int]] = columns._transformer_to_input_indices  # noqa: SLF001 - names and slices resolved
    for name, transformer, _ in columns.transformers_:
        if chosen := [int(at) for at in places[name]]:
            yield name, transformer, chosen


def _weighted(parts: Parts, weight: float | None, path: StepPath) -> Parts:
    if weight is None or not parts:
        return parts
    try:
        return (Numbers(then(numbers(parts), Linear(scale=(float(weight),)))),)
    except NotCompiled as reason:
        raise InvalidInputError(f"{place(path)} has a weight, and {reason}") from reason


_CONTAINERS: Final[dict[type, Callable[[Walk, Any, Parts, StepPath], Parts]]] = {
    Pipeline: Walk._pipeline,  # noqa: SLF001 - a table of its own methods
    ColumnTransformer: Walk._columns,  # noqa: SLF001
    FeatureUnion: Walk._union,  # noqa: SLF001
}
