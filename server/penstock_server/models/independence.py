"""Decides whether requests may share a batch, by running rows together, permuted, split and alone, and comparing.

A graph with a free first axis need not treat its rows one by one: a softmax over the candidates of a request gives other
answers when other requests' rows stand beside them. The loader asks `decide` once per version. What is not proven runs
alone, which is slower and never wrong.

What the probe cannot see: a dependence that needs more rows than `ROWS` together, or values that it did not try. It
tries golden requests first, then rows drawn from the drift baseline, then rows that it makes up. A publisher and the
settings have the last word.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.batching.limits import Batching
from penstock_server.errors import ModelFailedError
from penstock_server.models.rows import KINDS, Row, from_baseline, joined, made_up
from penstock_server.models.servable import BatchingVerdict, Servable
from penstock_server.models.signature import ANY, Signature

ROWS: Final = 32
"""The most rows that are run together."""
LEAST_ROWS: Final = 4
"""Fewer rows prove nothing."""
BUDGET_S: Final = 2.0
"""About how long the probe of a slow model may take; it tries fewer rows of it."""
RTOL: Final = 1e-3
"""Sums of floats differ in their last digits between batch sizes, which comes to less; a dependence comes to more."""
_ATOL: Final = 1e-7
_RESOLUTIONS: Final = 16
_GROUPS: Final = (1, 2, 8)
"""A model may take several rows at least, such as one that answers with the best three of them."""
_RARE: Final = 8
"""One row in this many may get another answer, if that does not happen again: on a threshold, noise decides."""
_FRESH: Final = 3

Answers = Sequence[NDArray[Any]]
Draw = Callable[[], list[Row]]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of some rows.

    Attributes:
        rows: how many ran alone.
        is_telling: they got different answers alone, and the same ones together.
        difference: what differed; "" where nothing did.
        is_rare: it differed in so few rows that it may be noise.
    """

    rows: int = 0
    is_telling: bool = False
    difference: str = ""
    is_rare: bool = False


def decide(
    servable: Servable,
    asked: Batching | None,
    golden: Sequence[Row],
    categories: Mapping[str, Sequence[str]],
) -> BatchingVerdict:
    """Whether the version's requests share batches.

    Args:
        servable: the version, ready to run.
        asked: what the settings say, or a probe in another process found; None leaves it to the publisher and the probe.
        golden: the rows of its golden requests; none where it has none.
        categories: the strings that a plain graph knows, by input.
    """
    why = obstacle(servable.model.signature)
    manifest, config = servable.artifact.manifest, servable.artifact.config
    published = (None if manifest is None else manifest.batching) or (None if config is None else config.batching)
    if why:
        claim = ' although batching = "rows" is set' if "rows" in {asked, published} else ""
        reason = f"each request runs alone{claim}: {why}"
        return BatchingVerdict("request", reason, reason if claim else "")
    if asked == "rows":
        return BatchingVerdict("rows", 'requests are batched by rows, as batching = "rows" says')
    if asked == "request" or published == "request":
        who = "its publisher says" if asked is None else 'batching = "request" says'
        return BatchingVerdict("request", reason := f"each request runs alone, as {who}", reason)
    verdict = prove(servable, golden, categories)
    if published == "rows" and verdict.batching == "request":
        reason = f"requests are batched by rows, as its publisher says, but {verdict.reason.partition(': ')[2]}"
        return BatchingVerdict("rows", reason, reason)
    return verdict


def prove(servable: Servable, golden: Sequence[Row], categories: Mapping[str, Sequence[str]]) -> BatchingVerdict:
    """Runs rows in different company until some prove the rows independent, or dependent."""
    tried, is_telling, deadline_s = 0, False, perf_counter() + BUDGET_S
    for name, draws in _sources(servable, golden, categories, seed=1):
        proven = 0
        for draw in draws:
            outcome = _compare(servable, draw())
            if outcome.difference and not (outcome.is_rare and _is_noise(servable, categories)):
                return _alone(outcome.difference)
            tried += outcome.rows
            is_telling = is_telling or outcome.is_telling
            proven += outcome.rows
            if perf_counter() > deadline_s:
                break
        if is_telling and proven >= LEAST_ROWS:
            return BatchingVerdict("rows", f"requests are batched by rows: proven on {proven} {name}")
    hint = 'it is not proven that its rows are independent; where they are, set batching = "rows"'
    if tried < LEAST_ROWS:
        return _alone(f"the model fails on the rows that were tried, so {hint}")
    return _alone(f"all {tried} rows that were tried got the same answer, so {hint}")


def _alone(why: str) -> BatchingVerdict:
    reason = f"each request runs alone: {why}"
    return BatchingVerdict("request", reason, reason)


def obstacle(signature: Signature) -> str:
    """Why the graph's own shapes forbid batches; "" where they do not."""
    for what, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs:
            if not spec.shape or spec.shape[0] != ANY:
                return f"{what} {spec.name!r} of shape {list(spec.shape)} has no free first axis"
            if what == "input" and ANY in spec.shape[1:]:
                return f"input {spec.name!r} of shape {list(spec.shape)} has more than one free axis"
    return ""


def _sources(
    servable: Servable, golden: Sequence[Row], categories: Mapping[str, Sequence[str]], seed: int
) -> Iterator[tuple[str, list[Draw]]]:
    """Rows to try, the most telling first, each as functions that draw a set of them."""
    random = np.random.default_rng(seed)
    if golden:
        some = [golden[at] for at in np.unique(np.linspace(0, len(golden) - 1, ROWS).astype(int))]
        yield "golden rows", [lambda: some]
    if servable.pipeline is not None and (baseline := servable.artifact.baseline) is not None:
        yield "rows like those of training", [partial(from_baseline, servable.pipeline, baseline, ROWS, random)]
    yield (
        "made-up rows",
        [partial(made_up, servable, kind, ROWS // 2, random, categories) for kind in KINDS],
    )


def _is_noise(servable: Servable, categories: Mapping[str, Sequence[str]]) -> bool:
    """Whether other rows all get the same answers in any company: noise at a threshold does not happen again."""
    seen = 0
    for seed in range(2, 2 + _FRESH):
        for _, draws in _sources(servable, (), categories, seed):
            for draw in draws:
                outcome = _compare(servable, draw())
                if outcome.difference:
                    return False
                seen += outcome.rows
    return seen >= ROWS


def _compare(servable: Servable, rows: Sequence[Row]) -> _Outcome:
    rows = _affordable(servable, rows)
    for size in _GROUPS:
        groups = [list(rows[at : at + size]) for at in range(0, len(rows) - size + 1, size)]
        answered = [(group, answers) for group in groups if (answers := _run(servable, group)) is not None]
        if answered:
            return _in_company(servable, [group for group, _ in answered], [answers for _, answers in answered])
    return _Outcome()


def _in_company(servable: Servable, groups: list[list[Row]], alone: list[Answers]) -> _Outcome:
    """Compares the answers that groups of rows, mostly single ones, got alone with those that they get together."""
    size, count = len(groups[0]), len(groups)
    for spec, *arrays in zip(servable.outputs, *alone, strict=True):
        for array in arrays:
            if array.shape[:1] != (size,):
                return _Outcome(count, difference=f"output {spec.name!r} has shape {list(array.shape)} for {size} rows")
    if count < 2:
        return _Outcome(count * size)
    order = np.random.default_rng(0).permutation(count)
    third = max(1, count // 3)
    is_rare = True
    difference = ""
    for members in (range(count), order, range(third), range(third, count)):
        got = _run(servable, [row for at in members for row in groups[at]])
        if got is None:
            return _Outcome(count * size, difference=f"rows that it takes alone fail {len(members) * size} at a time")
        found, share = _difference(servable, [alone[at] for at in members], got)
        if found:
            difference = difference or found
            is_rare = is_rare and share * _RARE <= 1
    if difference and not is_rare and _is_random(servable, groups, alone):
        difference = "the model answers the same rows differently each time, so nothing shows that they are independent"
    return _Outcome(count * size, not difference and _are_different(alone), difference, is_rare)


def _run(servable: Servable, rows: Sequence[Row]) -> Answers | None:
    """The outputs for these rows; None where the model fails on them, or the features refuse one."""
    try:
        outputs = servable.predict(joined(rows), len(rows), None, None)
    except ModelFailedError:
        return None
    return outputs.arrays if outputs.refusal is None else None


def _affordable(servable: Servable, rows: Sequence[Row]) -> Sequence[Row]:
    """As many of the rows as the budget allows, judged by one: each runs alone, and with others three times."""
    started = perf_counter()
    _run(servable, rows[:1])
    took_s = perf_counter() - started
    return rows[: max(LEAST_ROWS, min(ROWS, int(BUDGET_S / (4 * max(took_s, 1e-9)))))]


def _difference(servable: Servable, alone: Sequence[Answers], got: Answers) -> tuple[str, float]:
    """What differs between answers alone and together, and in which share of the rows."""
    rows = sum(len(answers[0]) for answers in alone)
    said, differing = "", np.zeros(rows, np.bool_)
    for at, spec in enumerate(servable.outputs):
        shapes = {answers[at].shape[1:] for answers in alone}
        if {got[at].shape} != {(rows, *shape) for shape in shapes}:
            mine = min(answers[at].shape for answers in alone)
            return (
                f"output {spec.name!r} has shape {list(mine)} for {mine[0]} rows, and {list(got[at].shape)} for {rows}",
                1.0,
            )
        expected = np.concatenate([answers[at] for answers in alone]).reshape(rows, -1)
        found = got[at].reshape(rows, -1)
        wrong = ~_agree(expected, found)
        differing |= wrong.any(axis=1)
        if wrong.any() and not said:
            row, place = np.argwhere(wrong)[0]
            said = (
                f"a row's answer depends on the rows beside it: output {spec.name!r} is "
                f"{_shown(expected[row, place])} alone and {_shown(found[row, place])} among {rows} rows"
            )
    return said, float(differing.mean()) if rows else 0.0


def _agree(expected: NDArray[Any], got: NDArray[Any]) -> NDArray[np.bool_]:
    """Where answers are the same but for noise, which is small beside the column's usual answers."""
    if expected.dtype.kind != "f":
        return np.asarray(expected == got, np.bool_)
    a, b = expected.astype(np.float64), got.astype(np.float64)
    size = np.abs(a)
    is_usual = np.isfinite(size) & (size > 0)
    usual = np.array(
        [np.median(column[kept]) if kept.any() else 0.0 for column, kept in zip(size.T, is_usual.T, strict=True)]
    )
    # Half floats resolve 1e-3 only.
    rtol = max(RTOL, _RESOLUTIONS * float(np.finfo(expected.dtype).eps))
    with np.errstate(invalid="ignore"):
        is_near = np.abs(a - b) <= _ATOL + rtol * np.maximum(size, usual)
    return np.asarray((a == b) | (is_near & np.isfinite(a)) | (np.isnan(a) & np.isnan(b)), np.bool_)


def _is_random(servable: Servable, groups: list[list[Row]], alone: list[Answers]) -> bool:
    for group, expected in zip(groups[:LEAST_ROWS], alone, strict=False):
        again = _run(servable, group)
        if again is None or _difference(servable, [expected], again)[0]:
            return True
    return False


def _are_different(alone: list[Answers]) -> bool:
    first = alone[0]
    return any(
        not np.array_equal(answer[:1], other[:1], equal_nan=answer.dtype.kind == "f")
        for answers in alone[1:]
        for answer, other in zip(first, answers, strict=True)
    )


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float | np.floating) else repr(str(value)[:40])
