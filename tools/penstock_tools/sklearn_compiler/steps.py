"""What the containers of transformers and estimators hold once they are fitted: steps, branches, members.

The walk, the proof and the graph all go through a pipeline; here stands what they pass.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sklearn import ensemble, model_selection, multiclass, multioutput
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.pipeline import Pipeline

from penstock_tools.sklearn_compiler import kinds


def predicting_steps(pipeline: Any) -> list[tuple[str, Any]]:
    """The steps of a pipeline that have a part in its answers; imblearn's samplers have one only when it is fitted."""
    return [(name, step) for name, step in pipeline.steps if not hasattr(step, "fit_resample")]


def is_pipeline(fitted: Any) -> bool:
    """Whether it is a pipeline, also imblearn's."""
    return kinds.lookup({Pipeline: True}, fitted) is not None


def fitted_branches(columns: ColumnTransformer) -> Iterator[tuple[str, Any, list[int]]]:
    """The branches of a column transformer that have columns: name, fitted transformer, and the columns' places."""
    places: Mapping[str, Sequence[int]] = columns._transformer_to_input_indices  # noqa: SLF001 - names and slices resolved
    for name, transformer, _ in columns.transformers_:
        if chosen := [int(at) for at in places[name]]:
            yield name, transformer, chosen


@dataclass(frozen=True, slots=True)
class Member:
    """An estimator that another holds.

    Attributes:
        name: what people call it.
        estimator: fitted.
        columns: the places of the columns that it gets; None for all.
    """

    name: str
    estimator: Any
    columns: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """The members of a container that get the rows which it gets itself.

    Attributes:
        members: in order; those that get something else, such as the answers of others, are none of them.
        reads_rows: whether the container needs the rows for more than that.
    """

    members: tuple[Member, ...]
    reads_rows: bool = False


def held(estimator: Any) -> Held | None:
    """What a fitted estimator holds; None where it is no container."""
    found = kinds.lookup(_HELD, estimator)
    return None if found is None else found(estimator)


def _named(model: Any) -> Held:
    kept = [name for name, each in model.estimators if each != "drop"]
    members = tuple(map(Member, kept, model.estimators_))
    return Held(members, reads_rows=bool(getattr(model, "passthrough", False)))


def _numbered(model: Any) -> Held:
    return Held(tuple(Member(f"estimator {at}", each) for at, each in enumerate(model.estimators_)))


def _bagged(model: Any) -> Held:
    every = list(range(model.n_features_in_))
    members = []
    for at, (each, features) in enumerate(zip(model.estimators_, model.estimators_features_, strict=True)):
        chosen = [int(place) for place in features]
        members.append(Member(f"estimator {at}", each, None if chosen == every else chosen))
    return Held(tuple(members))


def _one_vs_one(model: Any) -> Held | None:
    return None if model.pairwise_indices_ is not None else _numbered(model)


def _calibrated(model: Any) -> Held:
    found = model.calibrated_classifiers_
    return Held(tuple(Member(f"fold {at}", each.estimator) for at, each in enumerate(found)))


def _single(name: str, *attributes: str) -> Callable[[Any], Held]:
    def single(model: Any) -> Held:
        inner = next(getattr(model, attribute) for attribute in attributes if hasattr(model, attribute))
        return Held((Member(name, inner),))

    return single


_HELD: Final[dict[type, Callable[[Any], Held | None]]] = {
    ensemble.VotingClassifier: _named,
    ensemble.VotingRegressor: _named,
    ensemble.StackingClassifier: _named,
    ensemble.StackingRegressor: _named,
    ensemble.BaggingClassifier: _bagged,
    ensemble.BaggingRegressor: _bagged,
    ensemble.AdaBoostClassifier: _numbered,
    ensemble.AdaBoostRegressor: _numbered,
    multioutput.MultiOutputClassifier: _numbered,
    multioutput.MultiOutputRegressor: _numbered,
    multiclass.OneVsRestClassifier: _numbered,
    multiclass.OneVsOneClassifier: _one_vs_one,
    multiclass.OutputCodeClassifier: _numbered,
    CalibratedClassifierCV: _calibrated,
    TransformedTargetRegressor: _single("regressor", "regressor_"),
    model_selection.FixedThresholdClassifier: _single("estimator", "estimator_", "estimator"),
    model_selection.TunedThresholdClassifierCV: _single("estimator", "estimator_"),
}
