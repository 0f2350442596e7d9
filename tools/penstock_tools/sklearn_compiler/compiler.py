"""Compiles a fitted scikit-learn pipeline: a feature specification, and an estimator that becomes the ONNX graph.

It finds where the transformers end and the model begins, and which raw columns requests must have. Nothing is fitted or
changed. `proof` checks afterwards that both halves together answer as the pipeline does.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.pipeline import Pipeline

from penstock_server.errors import InvalidInputError
from penstock_server.features.spec.blocks import Block, Take
from penstock_server.features.spec.spec import Column, Datatype, FeatureSpec, NumberColumn, StringColumn
from penstock_tools.sklearn_compiler import in_graph
from penstock_tools.sklearn_compiler.columns import Numbers, Part, Parts, Strings
from penstock_tools.sklearn_compiler.refusals import place
from penstock_tools.sklearn_compiler.sample import Missing, RawColumn, Sample, pipeline_sample
from penstock_tools.sklearn_compiler.walk import Stage, Walk, fitted_branches


@dataclass(frozen=True, slots=True)
class Compiled:
    """A pipeline in two halves.

    Attributes:
        pipeline: the fitted pipeline, without a search around it.
        sample: the rows that it was compiled for.
        block: computes the graph's input.
        estimator: the fitted estimator for the graph, with the transformers in front of it that are in the graph; None
            where the pipeline has none.
        stages: what each transformer became, in order.
        unused: raw columns that nothing reads; requests may leave them out.
    """

    pipeline: Any
    sample: Sample
    block: Block
    estimator: Any
    stages: tuple[Stage, ...]
    unused: tuple[str, ...]

    @property
    def in_graph(self) -> tuple[str, ...]:
        """The places of the transformers that are in the graph."""
        return tuple(place(stage.path) for stage in self.stages if stage.is_in_graph)

    @property
    def estimator_name(self) -> str:
        """The class of the estimator, without transformers in front of it."""
        return type(self.estimator.steps[-1][1] if hasattr(self.estimator, "steps") else self.estimator).__name__

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
    transformers, estimator = halves(found)
    rows = pipeline_sample(found, sample, _dropped(transformers))
    walk = Walk()
    parts = walk.through(Pipeline(transformers), _raw(rows.columns), ()) if transformers else _raw(rows.columns)
    _check_no_text(parts)
    whole = in_graph.stacked(parts)
    if whole.transformer is not None and estimator is not None:
        estimator = in_graph.chained(whole.transformer, estimator)
    elif whole.transformer is not None:
        estimator = whole.transformer
    return Compiled(found, rows, whole.block, estimator, tuple(walk.stages), _unused(rows, whole.block))


def unwrapped(pipeline: Any) -> Any:
    """The fitted pipeline in a search or a frozen estimator."""
    for name in ("best_estimator_", "estimator"):
        inner = getattr(pipeline, name, None)
        if inner is not None and type(pipeline).__name__ in _WRAPPERS[name]:
            return unwrapped(inner)
    return pipeline


_WRAPPERS = {
    "best_estimator_": ("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV"),
    "estimator": ("FrozenEstimator",),
}


def halves(pipeline: Any) -> tuple[list[tuple[str, Any]], Any]:
    """The transformers with their names, and the estimator that predicts; None where there is none."""
    if type(pipeline) is TransformedTargetRegressor:
        transformers, regressor = halves(pipeline.regressor_)
        estimator = copy.copy(pipeline)
        estimator.regressor_ = regressor
        return transformers, estimator
    if type(pipeline) is not Pipeline:
        return ([], pipeline) if hasattr(pipeline, "predict") else ([("transform", pipeline)], None)
    *before, (name, last) = pipeline.steps
    if type(last) in (Pipeline, TransformedTargetRegressor):
        inner, estimator = halves(last)
        return [*before, *((f"{name} → {one}", step) for one, step in inner)], estimator
    return (before, last) if hasattr(last, "predict") else ([*before, (name, last)], None)


def _dropped(transformers: Sequence[tuple[str, Any]]) -> frozenset[str]:
    """The columns by name that the first transformer was fitted on and drops."""
    first = transformers[0][1] if transformers else None
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
        return FeatureSpec(kept, block, datatype)
    except ValueError as error:
        raise InvalidInputError(f"the pipeline makes no feature specification: {error}") from error


def _raw(columns: Iterable[RawColumn]) -> Parts:
    return tuple(_raw_part(column) for column in columns)


def _raw_part(column: RawColumn) -> Part:
    if column.kind == "time":
        raise InvalidInputError(
            f"column {column.name!r} holds times, expected numbers or text; make numbers of it before the pipeline"
        )
    if column.is_text:
        return Strings(column.name, {"": column.missing or frozenset(Missing)})
    return Numbers(Take((column.name,)))


def _column(column: RawColumn) -> Column:
    return StringColumn(column.name) if column.is_text else NumberColumn(column.name)


def _check_no_text(parts: Parts) -> None:
    texts = [part.column for part in parts if isinstance(part, Strings)]
    if texts:
        raise InvalidInputError(f"column {texts[0]!r} reaches the model as text; encode it in the pipeline")
    if not parts:
        raise InvalidInputError("no columns reach the model; expected one at least")


def _unused(rows: Sample, block: Block) -> tuple[str, ...]:
    """The columns of a frame that nothing reads. All columns of an array must be sent, since only their places name them."""
    read_by_block = set(block.raw_columns)
    if not rows.has_names:
        return ()
    return tuple(column.name for column in rows.columns if column.name not in read_by_block)
