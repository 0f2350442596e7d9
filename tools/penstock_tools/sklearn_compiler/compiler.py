"""Compiles a fitted scikit-learn pipeline: a feature specification, and a plan of the estimators for the ONNX graph.

It finds where the transformers end and the model begins, and which raw columns requests must have. Nothing is fitted or
changed. `proof` checks afterwards that both halves together answer as the pipeline does.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sklearn.compose import ColumnTransformer

from penstock_server.errors import InvalidInputError
from penstock_server.features.spec import limits
from penstock_server.features.spec.blocks import Block, Take
from penstock_server.features.spec.spec import Column, Datatype, FeatureSpec, NumberColumn, StringColumn, TimeColumn
from penstock_tools.sklearn_compiler.columns import Numbers, Part, Parts, Strings, Times
from penstock_tools.sklearn_compiler.graph.plan import Plan, layout
from penstock_tools.sklearn_compiler.graph.wrappers import unwrapped
from penstock_tools.sklearn_compiler.refusals import place
from penstock_tools.sklearn_compiler.rows import MAX_ROWS, Rows
from penstock_tools.sklearn_compiler.sample import Missing, RawColumn, Sample, pipeline_sample
from penstock_tools.sklearn_compiler.steps import fitted_branches, held, is_pipeline, predicting_steps
from penstock_tools.sklearn_compiler.walk import Stage, Walk


@dataclass(frozen=True, slots=True)
class Compiled:
    """A pipeline in two halves.

    Attributes:
        pipeline: the fitted pipeline, without a search around it.
        sample: the rows that it was compiled for.
        block: computes the graph's input.
        plan: the estimators for the graph, and what reaches each.
        stages: what each transformer became, in order.
        unused: raw columns that nothing reads; requests may leave them out.
    """

    pipeline: Any
    sample: Sample
    block: Block
    plan: Plan
    stages: tuple[Stage, ...]
    unused: tuple[str, ...]

    @property
    def in_graph(self) -> tuple[str, ...]:
        """The places of the transformers that are in the graph."""
        return tuple(place(stage.path) for stage in self.stages if stage.is_in_graph)

    @property
    def estimator(self) -> Any:
        """The fitted estimator, without transformers in front of it; None where the pipeline has none."""
        return self.plan.estimator

    @property
    def estimator_name(self) -> str:
        """The class of the estimator; that of the pipeline where it has none."""
        if self.estimator is None:
            return type(self.pipeline).__name__
        fitted = unwrapped(self.pipeline)
        while is_pipeline(fitted):
            *_, (_, fitted) = predicting_steps(fitted)
            fitted = unwrapped(fitted)
        return type(fitted).__name__

    def features(self, datatype: Datatype = "FP32") -> FeatureSpec:
        """The specification with an output of this type.

        Raises:
            InvalidInputError: it exceeds a limit of specifications.
        """
        return _specification(self.sample.columns, self.block, datatype, self.unused)

    def features_of(self, block: Block) -> FeatureSpec:
        """A specification of all the sample's columns and another block, in FP64."""
        return _specification(self.sample.columns, block, "FP64")


def compile_pipeline(pipeline: Any, sample: Any) -> Compiled:
    """The two halves of a fitted pipeline.

    Args:
        pipeline: a fitted `Pipeline`, or an estimator alone; of a search, the best one that it found.
        sample: rows as the pipeline takes them, a frame or an array; they show which columns are text.

    Raises:
        UnsupportedError: a transformer can neither be compiled nor put in the graph; names its place and what would work.
        InvalidInputError: the sample is not the pipeline's, text reaches the model, or a limit is exceeded.
    """
    found = unwrapped(pipeline)
    rows = pipeline_sample(found, sample, _dropped(found))
    walk = Walk()
    block, plan = layout(walk.model(found, _raw(rows.columns), (), Rows.of(rows.some(MAX_ROWS).as_float64())))
    return Compiled(found, rows, block, plan, tuple(walk.stages), _unused(rows, block))


def _dropped(fitted: Any) -> frozenset[str]:
    """The columns by name that the model was fitted on, and that each transformer which gets the rows drops."""
    readers = [each for each in _readers(fitted) if not is_pipeline(each) and held(each) is None]
    dropped = [_dropped_by(each) for each in readers]
    return frozenset.intersection(*dropped) if dropped else frozenset()


def _readers(fitted: Any) -> Iterator[Any]:
    """The model, and what in it gets the rows as they come."""
    fitted = unwrapped(fitted)
    yield fitted
    found = held(fitted)
    if is_pipeline(fitted):
        first = next((step for _, step in predicting_steps(fitted) if step not in (None, "passthrough")), None)
        if first is not None:
            yield from _readers(first)
    elif found is not None:
        for member in found.members:
            yield from _readers(member.estimator)


def _dropped_by(first: Any) -> frozenset[str]:
    names = getattr(first, "feature_names_in_", None)
    if type(first) is not ColumnTransformer or names is None:
        return frozenset()
    branches = fitted_branches(first)
    read_places = {at for _, transformer, chosen in branches if not _is_drop(transformer) for at in chosen}
    return frozenset(str(name) for at, name in enumerate(names) if at not in read_places)


def _is_drop(transformer: Any) -> bool:
    return isinstance(transformer, str) and transformer == "drop"


def _specification(
    columns: Iterable[RawColumn], block: Block, datatype: Datatype, unused: Sequence[str] = ()
) -> FeatureSpec:
    kept = tuple(_column(column) for column in columns if column.name not in unused)
    try:
        return FeatureSpec(kept, block, datatype, ignored=_ignored(unused))
    except ValueError as error:
        raise InvalidInputError(f"the pipeline makes no feature specification: {error}") from error


def _ignored(unused: Sequence[str]) -> tuple[str, ...] | msgspec.UnsetType:
    """The columns that requests may bring in vain, as far as a specification can name them."""
    named = tuple(name for name in unused if 0 < len(name) <= limits.MAX_NAME and name.isprintable())
    return named[: limits.MAX_COLUMNS] or msgspec.UNSET


def _raw(columns: Iterable[RawColumn]) -> Parts:
    return tuple(_raw_part(column) for column in columns)


def _raw_part(column: RawColumn) -> Part:
    if column.kind == "time":
        return Times(column.name)
    if column.is_text:
        return Strings(column.name, {"": column.missing or frozenset(Missing)})
    return Numbers(Take((column.name,)))


def _column(column: RawColumn) -> Column:
    return _COLUMNS[column.kind](column.name)


_COLUMNS: Final[dict[str, type[Column]]] = {"number": NumberColumn, "text": StringColumn, "time": TimeColumn}


def _unused(rows: Sample, block: Block) -> tuple[str, ...]:
    """The columns of a frame that nothing reads. All columns of an array must be sent, since only their places name them."""
    read_by_block = set(block.raw_columns)
    if not rows.has_names:
        return ()
    return tuple(column.name for column in rows.columns if column.name not in read_by_block)
