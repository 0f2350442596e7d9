"""Walks a fitted pipeline from its raw columns to its model: pipelines, column transformers, unions, and what is in them.

`rules` says what a transformer becomes, `in_graph` takes those without a rule. This module decides which columns reach
which transformer and which estimator, and records what each became, for the proof.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline

from penstock_server.errors import InvalidInputError, UnsupportedError
from penstock_tools.sklearn_compiler import in_graph, kinds, rules, rules_function, rules_words, words
from penstock_tools.sklearn_compiler.columns import Coded, InGraph, Parts, Strings, Times, Words, pick, together
from penstock_tools.sklearn_compiler.graph.estimators import is_known
from penstock_tools.sklearn_compiler.graph.plan import Plan
from penstock_tools.sklearn_compiler.graph.wrappers import unwrapped
from penstock_tools.sklearn_compiler.native import native_columns
from penstock_tools.sklearn_compiler.refusals import NotCompiled, Refused, StepPath, place, step_of
from penstock_tools.sklearn_compiler.rows import Rows
from penstock_tools.sklearn_compiler.steps import Held, fitted_branches, held, is_pipeline, predicting_steps
from penstock_tools.sklearn_compiler.tracing.trace import NotTraced


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

    def model(self, fitted: Any, parts: Parts, path: StepPath, rows: Rows | None = None) -> Plan:
        """What reaches the estimators of a model: a pipeline, a container, an estimator or a transformer alone.

        Args:
            fitted: the model.
            parts: what reaches it.
            path: where it is; empty for the whole.
            rows: as `through` takes them.

        Raises:
            UnsupportedError, InvalidInputError: as `through`; or text reaches an estimator.
        """
        fitted = unwrapped(fitted)
        if not hasattr(fitted, "predict"):
            here = path or (() if type(fitted) in _CONTAINERS else (step_of("transform", fitted),))
            return Plan(None, _rows(self.through(fitted, parts, here, rows)))
        if is_pipeline(fitted):
            *before, (name, last) = predicting_steps(fitted)
            for step_name, step in before:
                parts = self.through(step, parts, branch_path(path, step_name, step), rows)
                rows = None if rows is None else rows.after(step)
            return self.model(last, parts, branch_path(path, name, last) if _is_named(last) else path, rows)
        found = held(fitted)
        if found is None:
            parts, fitted = words.fold(parts, fitted)
            return Plan(fitted, _rows(_encoded(fitted, parts, path)))
        return self._held(fitted, found, parts, path, rows)

    def _held(self, fitted: Any, found: Held, parts: Parts, path: StepPath, rows: Rows | None) -> Plan:
        if not any(_has_transformers(member.estimator) for member in found.members):
            # What the graph makes of the rows is made once for all members.
            made_of = {type(part) for part in parts}
            parts = (_rows(parts),) if InGraph in made_of and Words not in made_of else parts
        members = {}
        for member in found.members:
            here = (*path, member.name)
            try:
                own = parts if member.columns is None else pick(parts, member.columns)
            except (NotCompiled, Refused) as reason:
                raise in_graph.refusal(fitted, here, str(reason)) from reason
            own_rows = rows if rows is None or member.columns is None else rows.picked(member.columns)
            members[id(member.estimator)] = self.model(member.estimator, own, here, own_rows)
        return Plan(fitted, _rows(parts) if found.reads_rows else None, members)

    def through(self, transformer: Any, parts: Parts, path: StepPath, rows: Rows | None = None) -> Parts:
        """What the transformer makes of the parts.

        Args:
            transformer: fitted; "passthrough", None and "drop" too.
            parts: what reaches it.
            path: where it is, its own name included.
            rows: the sample's rows as they reach it; without them, functions cannot be traced.

        Raises:
            UnsupportedError: it can neither be compiled nor put in the graph; names its place and what would work.
            InvalidInputError: its parameters exceed a limit of specifications.
        """
        if transformer is None or isinstance(transformer, str):
            return () if transformer == "drop" else parts
        container = kinds.lookup(_CONTAINERS, transformer)
        if container is not None:
            return container(self, transformer, parts, path, rows)
        made = self._leaf(transformer, together(parts), path, rows)
        self.stages.append(Stage(path, made))
        return made

    def _leaf(self, transformer: Any, parts: Parts, path: StepPath, rows: Rows | None) -> Parts:
        try:
            return self._compiled(transformer, parts, rows)
        except NotTraced as reason:
            raise in_graph.refusal(transformer, path, str(reason)) from reason
        except NotCompiled as reason:
            return (in_graph.applied(transformer, parts, path, reason),)
        except Refused as reason:
            raise in_graph.refusal(transformer, path, str(reason)) from reason
        except ValueError as error:
            raise InvalidInputError(f"{place(path)} does not fit a feature specification: {error}") from error

    def _compiled(self, transformer: Any, parts: Parts, rows: Rows | None) -> Parts:
        """By its rule, else by tracing what it does."""
        times = [part.column for part in parts if isinstance(part, Times)]
        if times and not rules_function.is_traceable(transformer):
            raise Refused(
                f"column {times[0]!r} holds times when it gets there; take their parts first, such as .dt.hour"
            )
        try:
            return rules.of(transformer)(transformer, parts)
        except NotCompiled:
            if rows is None or not rules_function.is_traceable(transformer) or is_known(transformer):
                raise
        return rules_function.traced(transformer, parts, rows)

    def _pipeline(self, pipeline: Pipeline, parts: Parts, path: StepPath, rows: Rows | None) -> Parts:
        for name, step in predicting_steps(pipeline):
            parts = self.through(step, parts, branch_path(path, name, step), rows)
            rows = None if rows is None else rows.after(step)
        return parts

    def _columns(self, columns: ColumnTransformer, parts: Parts, path: StepPath, rows: Rows | None) -> Parts:
        weights = columns.transformer_weights or {}
        made: list[Any] = []
        for name, transformer, chosen in fitted_branches(columns):
            here = branch_path(path, name, transformer)
            try:
                picked = pick(parts, chosen)
            except (NotCompiled, Refused) as reason:
                raise in_graph.refusal(columns, here, str(reason)) from reason
            own = None if rows is None else rows.picked(chosen, is_one=_is_one_name(columns, name))
            made += _weighted(self.through(transformer, picked, here, own), weights.get(name), here)
        return together(made)

    def _union(self, union: FeatureUnion, parts: Parts, path: StepPath, rows: Rows | None) -> Parts:
        weights = union.transformer_weights or {}
        made: list[Any] = []
        for name, transformer in union.transformer_list:
            here = branch_path(path, name, transformer)
            made += _weighted(self.through(transformer, parts, here, rows), weights.get(name), here)
        return together(made)


def branch_path(path: StepPath, name: str, transformer: Any) -> StepPath:
    """The path of a step in a container. A container is called by its name alone."""
    return (*path, name if kinds.lookup(_CONTAINERS, transformer) is not None else step_of(name, transformer))


def _is_named(fitted: Any) -> bool:
    """Whether steps of it need its name in their paths."""
    return is_pipeline(fitted) or held(unwrapped(fitted)) is not None


def _has_transformers(fitted: Any) -> bool:
    fitted = unwrapped(fitted)
    found = held(fitted)
    return is_pipeline(fitted) or (
        found is not None and any(_has_transformers(each.estimator) for each in found.members)
    )


def _is_one_name(columns: ColumnTransformer, branch: str) -> bool:
    """Whether a branch asks for one column by a bare name or place: scikit-learn gives it one axis then."""
    chosen = next((chosen for name, _, chosen in columns.transformers_ if name == branch), None)
    return isinstance(chosen, str | int) and not isinstance(chosen, bool)


def _encoded(fitted: Any, parts: Parts, path: StepPath) -> Parts:
    """What the estimator's own encoder makes of the parts, if it has one; the proof compares the answers alone."""
    try:
        columns = native_columns(fitted)
    except Refused as reason:
        raise in_graph.refusal(fitted, path, str(reason)) from reason
    if columns is None:
        return parts
    made: list[Any] = []
    for column in columns:
        own = pick(parts, [column.place])
        made += own if column.encoder is None else Walk().through(column.encoder, own, path)
    return together(made)


def _rows(parts: Parts) -> InGraph:
    texts = [part.column for part in parts if isinstance(part, Strings)]
    if texts:
        raise InvalidInputError(f"column {texts[0]!r} reaches the model as text; encode it in the pipeline")
    if any(isinstance(part, Coded) for part in parts):
        raise InvalidInputError("a text that a function chose reaches the model; encode it in the pipeline")
    times = [part.column for part in parts if isinstance(part, Times)]
    if times:
        raise InvalidInputError(f"column {times[0]!r} reaches the model as times; make numbers of them in the pipeline")
    if not parts:
        raise InvalidInputError("no columns reach the model; expected one at least")
    try:
        return in_graph.stacked(parts)
    except Refused as reason:
        raise UnsupportedError(f"the columns that reach the model are too many: {reason}") from reason


def _weighted(parts: Parts, weight: float | None, path: StepPath) -> Parts:
    if weight is None or not parts:
        return parts
    try:
        return rules_words.weighted(parts, float(weight))
    except NotCompiled as reason:
        raise InvalidInputError(f"{place(path)} has a weight, and {reason}") from reason


_CONTAINERS: Final[dict[type, Callable[[Walk, Any, Parts, StepPath, Rows | None], Parts]]] = {
    Pipeline: Walk._pipeline,  # noqa: SLF001 - a table of its own methods
    ColumnTransformer: Walk._columns,  # noqa: SLF001
    FeatureUnion: Walk._union,  # noqa: SLF001
}
