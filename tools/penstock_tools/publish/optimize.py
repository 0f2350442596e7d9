"""Finds a faster form of a registered version, and what it costs in accuracy; registers it as the next version if asked.

Each form is loaded as a server loads it and timed beside the version itself: where kernels run a graph already, few others
are faster. Accuracy counts on rows that calibrated nothing. What is registered has no role: a rollout compares it with the
champion on real requests.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock_server.drift.baseline import Baseline
from penstock_server.errors import InvalidInputError, PenstockError, UnsupportedError
from penstock_server.explain.explanation import Unexplained
from penstock_server.features.pipeline import Pipeline
from penstock_server.models import artifact as artifacts
from penstock_server.models.artifact import Artifact
from penstock_server.models.classes import class_outputs
from penstock_server.models.execution import CPU, ExecutionSettings
from penstock_server.models.loader import load
from penstock_server.models.manifest import MAX_THREADS, GraphOptimization
from penstock_server.models.servable import Servable
from penstock_server.prediction.outputs import LabelOutput, output_reader
from penstock_tools.progress import Report
from penstock_tools.publish import logged, onnx, onnx_graph, reduced
from penstock_tools.publish.onnx_graph import Graph
from penstock_tools.publish.straight import straight
from penstock_tools.sklearn_compiler.load import read_sample, with_labels
from penstock_tools.sklearn_compiler.sample import specification_sample

LEAST_ROWS: Final = 200
"""Fewer rows say too little of accuracy."""
SIZES: Final = (1, 64, 256)
"""The batches that are timed."""
DEVICE_SIZES: Final = (1, 256, 4096)
"""The same on a device, which is hardly busy with 64 rows."""
UNIT: Final = 1
"""The place of the batch that decides, of 64 or 256 rows: many small requests in flight."""
LEAST_SPEEDUP: Final = 1.1
"""What is not this much faster is not worth another version."""
_LESS_REWRITING: Final[tuple[GraphOptimization, ...]] = ("basic", "extended")
_TIMED_S: Final = 1.0
_REPEATS: Final = 5


@dataclass(frozen=True, slots=True)
class Tuning:
    """How onnxruntime runs a graph, as a version's manifest says it; None leaves it open.

    Attributes:
        threads: within one operator.
        graph_optimization: how much it rewrites the graph.
    """

    threads: int | None = None
    graph_optimization: GraphOptimization | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A form that is to be measured: `make` gives its graph, or raises a `PenstockError` that says why there is none."""

    kind: str
    make: Callable[[], Any]
    tuning: Tuning


@dataclass(frozen=True, slots=True)
class Form:
    """A form of the version, measured.

    Attributes:
        kind: what it is, such as "int8".
        times_s: what batches of the sizes take; empty where it cannot be used.
        accuracy: by the measure that counts.
        engine: what runs it.
        refusal: why it cannot be used; "" if it can.
        graph: the form itself.
        tuning: how it is run.
    """

    kind: str
    times_s: tuple[float, ...] = ()
    accuracy: float = 0.0
    engine: str = ""
    refusal: str = ""
    graph: Graph | None = None
    tuning: Tuning = Tuning()


@dataclass(frozen=True, slots=True)
class Optimized:
    """What was found.

    Attributes:
        address: the version that was measured.
        measure: what accuracy means, such as "AUC".
        forms: the version as it is, and the others.
        chosen: the one to take; None if it is the version as it is.
        reason: why none is taken, in a sentence; "" if one is.
        registered: the version that it has become; "" if it was not registered.
        sizes: the rows of the batches that were timed.
    """

    address: str
    measure: str
    forms: tuple[Form, ...]
    chosen: Form | None
    reason: str
    registered: str = ""
    sizes: tuple[int, ...] = SIZES


def optimize(
    name: str,
    data: Path,
    *,
    version: str | None = None,
    labels: str | None = None,
    max_loss: float = 0.002,
    provider: str = CPU,
    threads: int | None = None,
    register: bool = False,
    registry: str | None = None,
    report: Report = lambda _: None,
) -> Optimized:
    """Measures the forms of a version on rows, and chooses the fastest that loses no more than it may.

    Args:
        name: the registered model.
        data: rows like those of requests, .csv or .parquet; half of them calibrate, the others are judged.
        version: its version or alias; None for the champion.
        labels: the column of the rows with the truth; None compares with the version's own answers.
        max_loss: how much accuracy may be lost, by the measure that counts: AUC of two classes, else the share of right
            classes, of numbers R².
        provider: what runs the forms, as in the settings of a server.
        threads: each form is measured with so many threads besides; None for those that the version has.
        register: whether the chosen form becomes the model's next version.
        registry: where it is kept; None for `MLFLOW_TRACKING_URI`, else a local file.
        report: called with each step as it begins.

    Raises:
        InvalidInputError: the rows or the settings do not fit.
        UnsupportedError: the version is no graph that takes one matrix.
        NotFoundError, UnavailableError: there is no such version, or the registry does not answer.
    """
    if not max_loss >= 0:
        raise InvalidInputError(f"the loss is {max_loss}, expected 0 or more")
    if threads is not None and not 2 <= threads <= MAX_THREADS:
        raise InvalidInputError(f"there are {threads} threads to be tried, expected 2 to {MAX_THREADS}")
    settings = ExecutionSettings((CPU,) if provider == CPU else (provider, CPU))
    sizes = DEVICE_SIZES if settings.has_device else SIZES
    report(f"fetching {name}")
    with logged.fetched(_address(name, version), registry) as model:
        if model.flavour != "onnx":
            raise UnsupportedError(f"{model.address} runs as Python; only graphs have other forms")
        base = artifacts.read(model.folder)
        graph = onnx_graph.read(base.model_path)
        report(f"reading {data}")
        matrix, truth = _rows(base, graph, data, labels)
        calibration, judged = _halves(len(matrix))
        accuracy = _accuracy(graph, base, matrix[judged], None if truth is None else truth[judged])
        with tempfile.TemporaryDirectory(prefix="penstock-") as scratch:
            found = _measured(
                _candidates(graph.model, matrix[calibration], base, threads),
                base,
                matrix[judged],
                accuracy,
                settings=settings,
                sizes=sizes,
                folder=Path(scratch),
                report=report,
            )
        chosen, reason = decide(found, max_loss, accuracy.measure)
        outcome = Optimized(model.address, accuracy.measure, found, chosen, reason, sizes=sizes)
        if not register or chosen is None:
            return outcome
        report(f"registering {name}")
        return replace(outcome, registered=_registered(name, outcome, base, chosen, registry))


def _candidates(model: Any, calibration: NDArray[Any], base: Artifact, threads: int | None) -> list[Candidate]:
    """The version as it is, and what may be faster: fewer bits, less rewriting of its graph, more threads."""
    own = Tuning() if base.manifest is None else Tuning(base.manifest.threads, base.manifest.graph_optimization)
    forms = [
        Candidate("as it is", lambda: model, own),
        Candidate("int8", lambda: reduced.int8(model, calibration), own),
        Candidate("int8, dynamic", lambda: reduced.dynamic_int8(model), own),
        Candidate("fp16", lambda: reduced.fp16(model), own),
    ]
    # Rewriting seldom makes a graph slower, but it may: for a processor whose layouts do not suit it.
    rewritten = [
        Candidate(f"{level} rewriting", lambda: model, replace(own, graph_optimization=level))
        for level in _LESS_REWRITING
        if level != own.graph_optimization
    ]
    if threads in (None, own.threads):
        return [*forms, *rewritten]
    tuning = replace(own, threads=threads)
    return [*forms, *rewritten, *(Candidate(f"{each.kind}, {threads} threads", each.make, tuning) for each in forms)]


def decide(forms: Sequence[Form], max_loss: float, measure: str) -> tuple[Form | None, str]:
    """The fastest form that may be taken, or why there is none; the first one is the version as it is."""
    base, *others = forms
    usable = [form for form in others if not form.refusal]
    if not usable:
        return None, "no other form can be used"
    fast = [form for form in usable if speedup(base, form) >= LEAST_SPEEDUP]
    if not fast:
        return None, f"no other form is {LEAST_SPEEDUP:g} times as fast"
    kept = [form for form in fast if base.accuracy - form.accuracy <= max_loss]
    if not kept:
        return None, f"each faster form loses more than {max_loss:g} {measure}"
    return max(kept, key=lambda form: speedup(base, form)), ""


def speedup(base: Form, form: Form) -> float:
    """How many times as fast a form is, by the batch that decides."""
    return base.times_s[UNIT] / form.times_s[UNIT]


def lines(found: Optimized) -> list[str]:
    """The findings, for people."""
    heads = "".join(f"{f'{size:,} rows':>12}" for size in found.sizes)
    wide = max(len(form.kind) for form in found.forms) + 2
    shown = [f"{found.address}, microseconds per batch", f"  {'':{wide}}{heads}  {found.measure:>12}"]
    for form in found.forms:
        if form.refusal:
            shown.append(f"  {form.kind:{wide}}cannot be used: {form.refusal}")
            continue
        times = "".join(f"{took_s * 1e6:>12,.0f}" for took_s in form.times_s)
        shown.append(f"  {form.kind:{wide}}{times}{form.accuracy:>14.6f}  {form.engine.partition(':')[0]}")
    if found.chosen is None:
        return [*shown, f"the version stays as it is: {found.reason}"]
    gain = f"{found.chosen.kind} is {speedup(found.forms[0], found.chosen):.1f} times as fast"
    change = found.chosen.accuracy - found.forms[0].accuracy
    return [*shown, f"{gain}, and changes {found.measure} by {change:+.6f}"]


def _address(name: str, version: str | None) -> str:
    if version is None:
        return f"models:/{name}@champion"
    return f"models:/{name}{version}" if version.startswith("@") else f"models:/{name}/{version}"


def _rows(base: Artifact, graph: Graph, data: Path, labels: str | None) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The matrix that the graph gets of the rows, and the truth."""
    frame, truth = with_labels(read_sample(data), labels)
    if len(frame) < LEAST_ROWS:
        raise InvalidInputError(f"{data} has {len(frame)} rows, which say too little; expected at least {LEAST_ROWS}")
    if base.features is None:
        pipeline, frame = straight(graph, frame, None)
    else:
        pipeline = Pipeline(base.features)
    matrix = pipeline.transform(specification_sample(pipeline.spec, frame).on_the_wire())
    return matrix, None if truth is None else np.asarray(truth)


def _halves(rows: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to calibrate with, and others to judge by; the same ones each time."""
    order = np.random.default_rng(0).permutation(rows)
    return order[: rows // 2], order[rows // 2 :]


class _Accuracy:
    """Judges answers to rows, by the truth or by the version's own answers.

    Attributes:
        measure: what it counts.
    """

    def __init__(self, graph: Graph, base: Artifact, truth: NDArray[Any] | None, own: Sequence[NDArray[Any]]) -> None:
        manifest = base.manifest
        named = (None if manifest is None else manifest.classes) or graph.classes
        output = (None if manifest is None else manifest.class_output) or graph.class_output
        names = tuple(map(str, named or ()))
        self._reader = output_reader(graph.signature.outputs, class_outputs(graph.runtime.file), output, names)
        self._scores = self._two_columns(graph) if len(names) == 2 else None
        self._names = names
        self._truth = truth
        if truth is None:
            self._truth = self._classes(own) if self._has_classes else self._numbers(own)
            self._scores = None
        elif self._has_classes and names:
            self._truth = self._known(truth)
        of = "" if truth is not None else " against its own answers"
        self.measure = ("AUC" if self._scores is not None else "accuracy" if self._has_classes else "R2") + of

    @property
    def _has_classes(self) -> bool:
        return self._reader.classes is not None

    def of(self, outputs: Sequence[NDArray[Any]]) -> float:
        """How good these answers are; 1 at best."""
        from sklearn import metrics

        truth = self._truth
        assert truth is not None
        if self._scores is not None:
            scores = outputs[self._scores][:, 1]
            return float(metrics.roc_auc_score(truth == 1, scores)) if np.isfinite(scores).all() else 0.0
        if self._has_classes:
            return float((self._classes(outputs) == truth).mean())
        numbers = self._numbers(outputs)
        return float(metrics.r2_score(truth, numbers)) if np.isfinite(numbers).all() else -inf

    def _known(self, truth: NDArray[Any]) -> NDArray[Any]:
        """The truth as places among the classes."""
        places = {name: place for place, name in enumerate(self._names)}
        texts = [_text(value) for value in truth.tolist()]
        if strange := next((text for text in texts if text not in places), None):
            raise InvalidInputError(
                f"the label {strange} is none of the model's classes; expected {', '.join(self._names[:10])}"
            )
        if self._scores is not None and len(set(texts)) < 2:
            raise InvalidInputError("all labels are the same; expected both classes")
        return np.array([places[text] for text in texts])

    def _classes(self, outputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
        assert self._reader.classes is not None
        found = np.asarray(self._reader.classes(outputs)).reshape(-1)
        if isinstance(self._reader.classes, LabelOutput) and self._names:
            # Such a graph says the labels themselves; the truth is by their places.
            places = {int(name): place for place, name in enumerate(self._names)}
            return np.array([places.get(int(value), -1) for value in found])
        return found

    def _numbers(self, outputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
        at = self._reader.score
        if at is None:
            raise UnsupportedError("its answer is neither a class nor one number, so nothing says how good it is")
        return outputs[at].reshape(-1).astype(np.float64)

    def _two_columns(self, graph: Graph) -> int | None:
        shapes = [(at, spec) for at, spec in enumerate(graph.signature.outputs) if spec.datatype in ("FP32", "FP64")]
        return next((at for at, spec in shapes if len(spec.shape) == 2 and spec.shape[1] == 2), None)


def _text(value: Any) -> str:
    """A label as the manifest has it: pandas reads whole numbers beside a gap as floats, and booleans as such."""
    if isinstance(value, bool):
        return str(int(value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _accuracy(graph: Graph, base: Artifact, rows: NDArray[Any], truth: NDArray[Any] | None) -> _Accuracy:
    return _Accuracy(graph, base, truth, graph.runtime.run({graph.signature.inputs[0].name: rows}))


def _measured(
    candidates: Sequence[Candidate],
    base: Artifact,
    rows: NDArray[Any],
    accuracy: _Accuracy,
    *,
    settings: ExecutionSettings,
    sizes: tuple[int, ...],
    folder: Path,
    report: Report,
) -> tuple[Form, ...]:
    """Each form loaded as a server does, and timed in turns with the others."""
    made: dict[str, tuple[Graph, Servable]] = {}
    refusals: dict[str, str] = {}
    is_batched = True
    batching = None if base.manifest is None else base.manifest.batching
    for at, candidate in enumerate(candidates):
        kind, tuning = candidate.kind, candidate.tuning
        report(f"loading {kind} ({at + 1} of {len(candidates)})")
        place = folder / str(at)
        place.mkdir()
        try:
            graph = onnx_graph.read(candidate.make())
            (place / artifacts.MODEL).write_bytes(graph.model.SerializeToString())
            artifacts.write(place, threads=tuning.threads, graph_optimization=tuning.graph_optimization)
            servable, _ = load(
                (kind, ""), place, threads=None, max_rows=sizes[-1], batching=batching, execution=settings
            )
        except PenstockError as error:
            if not made:
                raise
            refusals[kind] = str(error)
            continue
        if not made:
            is_batched = servable.is_batched
        elif servable.is_batched < is_batched:
            refusals[kind] = f"requests could no longer share batches: {servable.batching_note}"
            continue
        made[kind] = graph, servable
    report(f"measuring {len(made)} forms in turns")
    tunings = {candidate.kind: candidate.tuning for candidate in candidates}
    times = _times_s([servable for _, servable in made.values()], rows, sizes)
    measured = {
        kind: Form(kind, took_s, accuracy.of(_answers(servable, rows)), servable.engine, "", graph, tunings[kind])
        for (kind, (graph, servable)), took_s in zip(made.items(), times, strict=True)
    }
    for _, servable in made.values():
        servable.close()
    return tuple(measured.get(kind) or Form(kind, refusal=refusals[kind]) for kind in tunings)


def _answers(servable: Servable, rows: NDArray[Any]) -> list[NDArray[Any]]:
    return servable.predict([rows.tobytes()], len(rows), [rows.shape], None).arrays


def _times_s(servables: Sequence[Servable], rows: NDArray[Any], sizes: tuple[int, ...]) -> list[tuple[float, ...]]:
    """The least that batches of each size took, in turns, so that what slows the machine slows all."""
    best = [[inf] * len(sizes) for _ in servables]
    for at, size in enumerate(sizes):
        batch = np.resize(rows, (size, rows.shape[1]))
        blocks, shapes = [batch.tobytes()], [batch.shape]
        started = time.perf_counter()
        turns = 0
        while turns < _REPEATS or time.perf_counter() - started < _TIMED_S / len(sizes):
            for servable, times in zip(servables, best, strict=True):
                begun = time.perf_counter()
                servable.predict(blocks, size, shapes, None)
                times[at] = min(times[at], time.perf_counter() - begun)
            turns += 1
    return [tuple(times) for times in best]


def without_holdout(baseline: Baseline) -> Baseline:
    """The baseline of a form: what was right of a hold-out is another model's, which may err elsewhere."""
    answers = tuple(msgspec.structs.replace(answer, holdout=None) for answer in baseline.answers)
    return msgspec.structs.replace(baseline, answers=answers)


def _registered(name: str, found: Optimized, base: Artifact, form: Form, registry: str | None) -> str:
    """Registers a form with all else that the version has, and its own golden answers."""
    manifest, golden = base.manifest, base.golden
    explanation = artifacts.read_explanation(base)
    if explanation is not None and not isinstance(explanation, Unexplained):
        explanation = Unexplained(
            f"it is the {form.kind} form of {found.address}, whose attributions would be another model's"
        )
    return onnx.publish(
        name,
        form.graph,
        registry=registry,
        features=base.features,
        baseline=None if base.baseline is None else without_holdout(base.baseline),
        sample=None if golden is None else golden.input_arrays(),
        explanation=explanation,
        importance=base.importance,
        classes=None if manifest is None else manifest.classes,
        class_output=None if manifest is None else manifest.class_output,
        batching=None if manifest is None else manifest.batching,
        threads=form.tuning.threads,
        graph_optimization=form.tuning.graph_optimization,
        record=onnx.Record(
            title=f"{name} {form.kind}",
            params={"optimized_from": found.address, "form": form.kind, "measure": found.measure},
            metrics={
                "speedup": speedup(found.forms[0], form),
                "accuracy": form.accuracy,
                "accuracy_before": found.forms[0].accuracy,
            },
        ),
    )
