"""A graph as a program of kernels: each operator has a rule, and each value a place in scratch memory.

A rule writes instructions for what onnxruntime computes, in the order and the precision in which it does. What a rule does not
know ends with `NotCompiledError`, and the graph is left to onnxruntime. `proof` finds out whether the rules are right.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.compiled_models import layout, tables
from penstock_server.compiled_models.graph import Graph, NotCompiledError, Operator
from penstock_server.compiled_models.tables import ProgramTables
from penstock_server.compiled_models.trees import Forest, forest

MAX_WEIGHTS: Final = 1 << 16
"""Of all products of matrices: onnxruntime multiplies larger ones faster."""
MAX_COLUMNS: Final = 4096
"""Of a value: scratch memory has `LANES` rows of each."""
MAX_INSTRUCTIONS: Final = 160
MAX_SCRATCH_BYTES: Final = 1 << 22
_DTYPES: Final = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64))
_TRANSFORMS: Final = {
    "NONE": layout.PLAIN,
    "LOGISTIC": layout.LOGISTICS,
    "SOFTMAX": layout.SOFTMAXES,
    "SOFTMAX_ZERO": layout.SOFTMAXES_BUT_ZEROS,
}
_ELEMENT_TYPES: Final = {1: layout.SINGLE, 11: layout.DOUBLE, 7: layout.INTEGER}


@dataclass(frozen=True, slots=True)
class Value:
    """What an operator gives for each row.

    Attributes:
        at: where in scratch memory.
        kind: the type of its elements.
        width: its columns.
        is_flat: it has shape [rows], not [rows, width].
        texts: a place in this table stands for a text; None for numbers.
        origin: for a matrix of input columns, which they are; None for what was computed.
    """

    at: int
    kind: int
    width: int
    is_flat: bool = False
    texts: tuple[str, ...] | None = None
    origin: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Vectors:
    """How the processor's vectors let Softmax add up, and the lowest number that its exponential takes."""

    lanes: int = 16
    lowest: float = -103.9720840454

    @classmethod
    def of(cls, flags: frozenset[str]) -> "Vectors":
        """Those of a processor with these features."""
        return cls() if "avx512f" in flags else cls(8, -88.3762626647949)


@dataclass(frozen=True, slots=True)
class Given:
    """What a graph is given and gives: a matrix, and outputs by name."""

    name: str
    columns: int
    kind: int


@dataclass(frozen=True, slots=True)
class Result:
    """An output: shape [rows, width] or [rows], of numbers or texts."""

    kind: int
    width: int
    is_flat: bool
    texts: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, eq=False)
class ModelProgram:
    """A graph, ready to run.

    Attributes:
        block: what the kernels read.
        scratch_bytes: the memory that a call needs.
        given: the input.
        results: the outputs, in the graph's order.
        forests: the trees that compare columns of the input, with the columns that they see.
        work: about how many steps a row takes.
        about: what the graph is, in a few words.
    """

    block: NDArray[np.int64]
    scratch_bytes: int
    given: Given
    results: tuple[Result, ...]
    forests: tuple[tuple[Forest, tuple[int, ...]], ...]
    work: int
    about: str


def compile_graph(graph: Graph, given: Given, vectors: Vectors) -> ModelProgram:
    """The program of a graph.

    Raises:
        NotCompiledError: an operator, or what it is given, has no rule.
    """
    if given.columns < 1 or given.columns > 1 << 20:
        raise NotCompiledError("its input is no matrix of a known width")
    return _Writer(graph, given, vectors).program()


class _Writer:
    """The program while it is written."""

    def __init__(self, graph: Graph, given: Given, vectors: Vectors) -> None:
        self.graph = graph
        self.given = given
        self.vectors = vectors
        self.constants: dict[str, NDArray[Any]] = dict(graph.constants)
        self.instructions: list[list[int]] = []
        # Instructions end before the tables, wherever these begin.
        self.tables = ProgramTables(8 * (layout.HEADER_WORDS + MAX_INSTRUCTIONS * layout.INSTRUCTION_WORDS))
        self.forests: list[tuple[Forest, tuple[int, ...]]] = []
        self.weights = self.work = 0
        self._scratch = layout.PARTIAL_BYTES
        self._values: dict[str, Value] = {}
        self._about: list[str] = []

    def program(self) -> ModelProgram:
        self._values[self.given.name] = Value(
            0, self.given.kind, self.given.columns, origin=tuple(range(self.given.columns))
        )
        for operator in self.graph.operators:
            self._write(operator)
        results = [self._store(number, name) for number, name in enumerate(self.graph.outputs)]
        if not 1 <= len(results) <= layout.MAX_OUTPUTS:
            raise NotCompiledError(f"it has {len(results)} outputs, and up to {layout.MAX_OUTPUTS} are compiled")
        if len(self.instructions) > MAX_INSTRUCTIONS or self._scratch > MAX_SCRATCH_BYTES:
            raise NotCompiledError("it has too many steps, or too many columns")
        words = [0, len(self.instructions), self.given.columns]
        words += [0] * (layout.HEADER_WORDS - len(words))
        for instruction in self.instructions:
            words += instruction
        block = self.tables.block(words)
        block[layout.WORDS] = len(block)
        return ModelProgram(
            block, self._scratch, self.given, tuple(results), tuple(self.forests), self.work, ", ".join(self._about)
        )

    def _write(self, operator: Operator) -> None:
        rule = _RULES.get((operator.domain, operator.name))
        if rule is None:
            raise NotCompiledError(f"the operator {operator.name} is not compiled")
        made = rule(self, operator)
        for name, value in zip(operator.outputs, made, strict=False):
            if name:
                self._values[name] = value

    def say(self, what: str) -> None:
        """Adds to what the graph is."""
        self._about.append(what)

    def value(self, name: str) -> Value:
        """What an operator reads; columns of the input are loaded when somebody asks for them."""
        value = self._values.get(name)
        if value is None:
            raise NotCompiledError(f"{name!r} is read as a value, which it is not")
        return self.load(value) if value.origin is not None and value.at == 0 else value

    def unloaded(self, name: str) -> Value:
        """The same, but columns of the input stay where they are."""
        value = self._values.get(name)
        if value is None:
            raise NotCompiledError(f"{name!r} is read as a value, which it is not")
        return value

    def load(self, value: Value) -> Value:
        """Columns of the input in scratch memory."""
        assert value.origin is not None
        made = replace(self.room(value.width, value.kind), origin=value.origin)
        columns = self.tables.add(np.array(value.origin, np.int64))
        self.add(layout.LOAD, made.kind, made.at, 0, made.width, {layout.COLUMNS: columns})
        return made

    def constant(self, name: str) -> NDArray[Any] | None:
        """A constant; None if it is a value."""
        return self.constants.get(name)

    def numbers(self, name: str) -> NDArray[Any]:
        """A constant of numbers."""
        found = self.constants.get(name)
        if found is None or found.dtype.kind not in "fi":
            raise NotCompiledError(f"{name!r} is not constant")
        return found

    def room(self, width: int, kind: int, *, is_flat: bool = False) -> Value:
        """A place for a value."""
        if not 0 < width <= MAX_COLUMNS:
            raise NotCompiledError(f"it has values of {width:,} columns")
        return Value(self.bytes(width * layout.LANES * _DTYPES[kind].itemsize), kind, width, is_flat)

    def bytes(self, size: int) -> int:
        """A place in scratch memory."""
        at = self._scratch
        self._scratch += -(-size // 64) * 64
        return at

    def add(  # noqa: PLR0917 - the words of every instruction, in their order
        self, operation: int, kind: int, to: int, source: int, width: int, fields: Mapping[int, int] = {}
    ) -> None:
        """Adds an instruction."""
        words = [0] * layout.INSTRUCTION_WORDS
        words[: layout.WIDTH + 1] = operation, kind, to, source, width
        for place, field in fields.items():
            words[place] = field
        self.instructions.append(words)
        self.work += width

    def _store(self, number: int, name: str) -> Result:
        value = self.value(name)
        self.add(layout.STORE, value.kind, 0, value.at, value.width, {layout.OUTPUT: number})
        return Result(value.kind, value.width, value.is_flat, value.texts)


Rule = Callable[[_Writer, Operator], Sequence[Value]]


def _trees(writer: _Writer, operator: Operator) -> Sequence[Value]:
    matrix = writer.unloaded(operator.inputs[0])
    if matrix.kind == layout.INTEGER or matrix.is_flat:
        raise NotCompiledError("its trees do not compare a matrix of floating-point numbers")
    dtype = _DTYPES[matrix.kind]
    found = forest(operator.name, operator.attributes, matrix.width, dtype)
    matrix, found = _loaded(writer, matrix, found)
    sums = writer.room(found.outputs, matrix.kind)
    trees = len(found.trees)
    is_classifier = operator.name == "TreeEnsembleClassifier"
    has_bases = len(found.bases) == found.outputs and not (is_classifier and found.outputs <= 2)
    fields = tables.add_forest(writer.tables, found, dtype)
    fields[layout.PLACES] = writer.bytes(4 * (trees + layout.TOGETHER + layout.LANES))
    fields[layout.BASES] = writer.tables.add(_bases(found, is_classifier)) if has_bases else layout.NONE
    divisor = np.array([trees], dtype)
    fields[layout.DIVISOR] = writer.tables.add(divisor) if found.is_average else layout.NONE
    writer.add(layout.TREES, matrix.kind, sums.at, matrix.at, found.outputs, fields)
    writer.work += sum(tree.depth for tree in found.trees)
    writer.say(f"{trees:,} trees of up to {max(len(tree.values) for tree in found.trees):,} leaves")
    if is_classifier:
        return _classified(writer, found, sums)
    if found.outputs > 1 and found.transform != "NONE":
        writer.add(
            layout.SCORES, sums.kind, sums.at, sums.at, sums.width, {layout.TRANSFORM: _TRANSFORMS[found.transform]}
        )
    # Only TreeEnsemble gives numbers of its matrix's type.
    return [sums if operator.name == "TreeEnsemble" else _converted(writer, sums, layout.SINGLE)]


def _bases(found: Forest, is_classifier: bool) -> NDArray[Any]:
    """What is added to each sum. A regressor's output without a leaf is 0 to onnxruntime, whatever its base."""
    if is_classifier or found.outputs == 1:
        return found.bases
    if found.possible != found.scored:
        raise NotCompiledError("some of its rows have no leaf for an output")
    return np.array(
        [base if output in found.scored else 0 for output, base in enumerate(found.bases)], found.bases.dtype
    )


def _loaded(writer: _Writer, matrix: Value, found: Forest) -> tuple[Value, Forest]:
    """The matrix with the columns that trees ask for, and the trees with their places in it."""
    if matrix.origin is None or matrix.at != 0:
        if matrix.origin is not None:
            writer.forests.append((found, matrix.origin))
        return matrix, found
    writer.forests.append((found, matrix.origin))
    used = found.features
    if not used.size:
        used = np.array([0])
    trees = tuple(replace(tree, feature=np.searchsorted(used, tree.feature)) for tree in found.trees)
    columns = tuple(matrix.origin[at] for at in used.tolist())
    return writer.load(replace(matrix, width=len(columns), origin=columns)), replace(found, trees=trees)


def _classified(writer: _Writer, found: Forest, sums: Value) -> Sequence[Value]:
    """The label and the probabilities of a classifier of trees."""
    transform = _TRANSFORMS[found.transform]
    if found.possible != found.scored:
        raise NotCompiledError("some of its rows have no score for a class")
    if found.outputs < 2:
        raise NotCompiledError("it has one class")
    place = writer.room(1, layout.INTEGER, is_flat=True)
    if found.outputs > 2:
        if found.scored != frozenset(range(found.outputs)) and not len(found.bases):
            raise NotCompiledError("it has classes without a score")
        writer.add(layout.LARGEST, sums.kind, place.at, sums.at, sums.width)
        writer.add(layout.SCORES, sums.kind, sums.at, sums.at, sums.width, {layout.TRANSFORM: transform})
        return [_labelled(writer, place, found.labels), _converted(writer, sums, layout.SINGLE)]
    is_binary, has_second = len(found.possible) == 1, 1 in found.scored
    if len(found.bases) > 2 or not (is_binary or has_second):
        raise NotCompiledError("its bases do not fit its classes")
    probabilities = writer.room(2, layout.SINGLE)
    bases = np.zeros(3, _DTYPES[sums.kind])
    bases[: len(found.bases)], bases[2] = found.bases, 1.0
    fields = {
        layout.TRANSFORM: transform,
        layout.LABEL: place.at,
        layout.HAS_SECOND: int(has_second),
        layout.BASE_COUNT: len(found.bases),
        layout.IS_BINARY: int(is_binary),
        layout.IS_POSITIVE: int(found.is_positive),
        layout.BASES: writer.tables.add(bases),
    }
    writer.add(layout.CLASSES_OF_TWO, sums.kind, probabilities.at, sums.at, 2, fields)
    # Where leaves vote for both classes, onnxruntime gives 0 and 1, whatever numbers the labels are.
    labels = found.labels if is_binary or isinstance(found.labels[0], str) else (0, 1)
    return [_labelled(writer, place, labels), probabilities]


def _labelled(writer: _Writer, place: Value, labels: Sequence[Any]) -> Value:
    """The labels at a place."""
    if isinstance(labels[0], str):
        return replace(place, texts=tuple(labels))
    if list(labels) == list(range(len(labels))):
        return place
    made = writer.room(place.width, layout.INTEGER, is_flat=place.is_flat)
    table = writer.tables.add(np.array(labels, np.int64))
    fields = {layout.TABLE: table, layout.TABLE_SIZE: len(labels)}
    writer.add(layout.LOOK_UP, layout.INTEGER, made.at, place.at, place.width, fields)
    return made


def _converted(writer: _Writer, value: Value, kind: int) -> Value:
    if value.kind == kind:
        return value
    if kind == layout.INTEGER or value.texts is not None:
        raise NotCompiledError("it makes whole numbers of others")
    made = writer.room(value.width, kind, is_flat=value.is_flat)
    writer.add(layout.CONVERT, kind, made.at, value.at, value.width, {layout.FROM_KIND: value.kind})
    return made


def _cast(writer: _Writer, operator: Operator) -> Sequence[Value]:
    kind = _ELEMENT_TYPES.get(int(operator.attributes.get("to", 0)))
    constant = writer.constant(operator.inputs[0])
    if kind is None:
        raise NotCompiledError("it makes numbers of a type that is not compiled")
    if constant is not None:
        if constant.dtype.kind == "O":
            raise NotCompiledError("it makes numbers of text")
        writer.constants[operator.outputs[0]] = constant.astype(_DTYPES[kind])
        return []
    value = writer.unloaded(operator.inputs[0])
    return [
        value
        if value.kind == kind and value.texts is None
        else _converted(writer, writer.value(operator.inputs[0]), kind)
    ]


def _identity(writer: _Writer, operator: Operator) -> Sequence[Value]:
    constant = writer.constant(operator.inputs[0])
    if constant is not None:
        writer.constants[operator.outputs[0]] = constant
        return []
    return [writer.unloaded(operator.inputs[0])]


def _arithmetic(operation: int) -> Rule:
    def rule(writer: _Writer, operator: Operator) -> Sequence[Value]:
        given = [None if writer.constant(name) is not None else writer.value(name) for name in operator.inputs]
        model = next((value for value in given if value is not None), None)
        if model is None or model.kind == layout.INTEGER or model.texts is not None:
            raise NotCompiledError(f"{operator.name} is of constants, or of whole numbers")
        one, other = (
            _spread(writer, name, model) if value is None else value
            for name, value in zip(operator.inputs, given, strict=True)
        )
        width = max(one.width, other.width)
        if one.kind != other.kind or {one.width, other.width} - {1, width} or one.is_flat != other.is_flat:
            raise NotCompiledError(f"the shapes or types of {operator.name} are not compiled")
        made = writer.room(width, model.kind, is_flat=model.is_flat)
        fields = {layout.OTHER: other.at, layout.FROM_STEP: int(one.width > 1), layout.OTHER_STEP: int(other.width > 1)}
        writer.add(operation, made.kind, made.at, one.at, width, fields)
        return [made]

    return rule


def _spread(writer: _Writer, name: str, model: Value) -> Value:
    """A constant, the same for all rows, as a value beside another."""
    constant = writer.numbers(name)
    is_row = constant.ndim < 2 or (constant.ndim == 2 and constant.shape[0] == 1)
    if not is_row or constant.dtype != _DTYPES[model.kind] or (model.is_flat and constant.size > 1):
        raise NotCompiledError("it computes with a constant of another shape or type")
    made = writer.room(constant.size, model.kind, is_flat=model.is_flat)
    writer.add(layout.SPREAD, made.kind, made.at, writer.tables.add(constant.ravel()), made.width)
    return made


def _largest(writer: _Writer, operator: Operator) -> Sequence[Value]:
    value = writer.value(operator.inputs[0])
    keeps = int(operator.attributes.get("keepdims", 1)) != 0
    axis = int(operator.attributes.get("axis", 0))
    if axis not in {1, -1} or value.is_flat or value.kind == layout.INTEGER:
        raise NotCompiledError("ArgMax is along another axis, or of other numbers")
    made = writer.room(1, layout.INTEGER, is_flat=not keeps)
    last = int(operator.attributes.get("select_last_index", 0))
    writer.add(layout.LARGEST, value.kind, made.at, value.at, value.width, {layout.IS_LAST: last})
    return [made]


def _softmax(writer: _Writer, operator: Operator) -> Sequence[Value]:
    value = writer.value(operator.inputs[0])
    if int(operator.attributes.get("axis", -1)) not in {1, -1} or value.is_flat:
        raise NotCompiledError("Softmax is along another axis")
    if value.kind == layout.INTEGER or (value.kind == layout.DOUBLE and value.width != 2):
        # Of more columns onnxruntime's own answer depends on the rows beside.
        raise NotCompiledError("Softmax is of other numbers than float32, or two columns of float64")
    made = _copied(writer, value)
    _add_softmax(writer, made)
    return [made]


def _add_softmax(writer: _Writer, value: Value) -> None:
    lowest = writer.tables.add(np.array([writer.vectors.lowest], np.float32))
    fields = {layout.SUM_LANES: writer.vectors.lanes, layout.LOWEST: lowest}
    writer.add(layout.SOFTMAX, value.kind, value.at, value.at, value.width, fields)


def _sigmoid(writer: _Writer, operator: Operator) -> Sequence[Value]:
    value = writer.value(operator.inputs[0])
    if value.kind != layout.SINGLE:
        raise NotCompiledError("Sigmoid is of other numbers than float32")
    made = _copied(writer, value)
    writer.add(layout.LOGISTIC, made.kind, made.at, made.at, made.width)
    return [made]


def _positive(writer: _Writer, operator: Operator) -> Sequence[Value]:
    value = writer.value(operator.inputs[0])
    if value.kind == layout.INTEGER:
        raise NotCompiledError("Relu is of whole numbers")
    made = writer.room(value.width, value.kind, is_flat=value.is_flat)
    writer.add(layout.POSITIVE, value.kind, made.at, value.at, value.width)
    return [made]


def _copied(writer: _Writer, value: Value) -> Value:
    made = writer.room(value.width, value.kind, is_flat=value.is_flat)
    writer.add(layout.COPY, value.kind, made.at, value.at, value.width)
    return made


def _concat(writer: _Writer, operator: Operator) -> Sequence[Value]:
    values = [writer.value(name) for name in operator.inputs]
    kinds = {(value.kind, value.is_flat, value.texts) for value in values}
    if int(operator.attributes.get("axis", 0)) not in {1, -1} or len(kinds) != 1 or values[0].is_flat:
        raise NotCompiledError("Concat is along another axis, or of several types")
    made = writer.room(sum(value.width for value in values), values[0].kind)
    column = 0
    for value in values:
        writer.add(layout.COPY, value.kind, made.at, value.at, value.width, {layout.TO_COLUMN: column})
        column += value.width
    return [replace(made, texts=values[0].texts)]


def _reshape(writer: _Writer, operator: Operator) -> Sequence[Value]:
    value, shape = writer.value(operator.inputs[0]), writer.numbers(operator.inputs[1]).ravel().tolist()
    if operator.attributes.get("allowzero") and 0 in shape:
        raise NotCompiledError("Reshape gives no rows")
    if value.width == 1 and shape == [-1]:
        return [replace(value, is_flat=True)]
    if shape in ([-1, value.width], [0, value.width]) or (shape == [0, -1] and not value.is_flat):
        return [replace(value, is_flat=False)]
    raise NotCompiledError("Reshape gives a shape that is not compiled")


def _look_up(writer: _Writer, operator: Operator) -> Sequence[Value]:
    """Gather of labels: a table of them at the place that a value has."""
    labels, place = writer.constant(operator.inputs[0]), writer.value(operator.inputs[1])
    if int(operator.attributes.get("axis", 0)) != 0 or labels is None or labels.ndim != 1:
        raise NotCompiledError("Gather is not of a table of labels")
    return [_label_at(writer, labels, place)]


def _extract(writer: _Writer, operator: Operator) -> Sequence[Value]:
    """Columns of a matrix, or labels from a table at the places that a value has: [1, rows] either way."""
    table, places = writer.constant(operator.inputs[0]), writer.constant(operator.inputs[1])
    if table is not None and places is None:
        value = writer.value(operator.inputs[1])
        if table.ndim > 2 or (table.ndim == 2 and table.shape[0] != 1) or value.width != 1:
            raise NotCompiledError("ArrayFeatureExtractor is of another shape")
        # Its shape is [1, rows]: one that only Reshape to [-1] makes of use.
        return [replace(_label_at(writer, table.ravel(), value), is_flat=True)]
    matrix = writer.unloaded(operator.inputs[0])
    columns = [] if places is None else places.ravel().tolist()
    if not columns or matrix.is_flat or any(not 0 <= column < matrix.width for column in columns):
        raise NotCompiledError("ArrayFeatureExtractor takes columns that are not there")
    if matrix.origin is not None and matrix.at == 0:
        return [replace(matrix, width=len(columns), origin=tuple(matrix.origin[column] for column in columns))]
    made = replace(writer.room(len(columns), matrix.kind), texts=matrix.texts)
    for to, column in enumerate(columns):
        fields = {layout.FROM_COLUMN: column, layout.TO_COLUMN: to}
        writer.add(layout.COPY, matrix.kind, made.at, matrix.at, 1, fields)
    return [made]


def _label_at(writer: _Writer, labels: NDArray[Any], place: Value) -> Value:
    if place.kind != layout.INTEGER or place.texts is not None or not labels.size:
        raise NotCompiledError("labels are looked up by something else than a place")
    if labels.dtype.kind not in "iO":
        raise NotCompiledError("labels are neither whole numbers nor texts")
    return _labelled(writer, place, labels.tolist())


def _scaler(writer: _Writer, operator: Operator) -> Sequence[Value]:
    value = writer.value(operator.inputs[0])
    offset, scale = (np.atleast_1d(operator.attributes.get(name, 0.0)) for name in ("offset", "scale"))
    if value.kind != layout.SINGLE or value.is_flat or {len(offset), len(scale)} - {1, value.width}:
        raise NotCompiledError("Scaler is of other numbers than float32, or of another width")
    made = value
    for operation, numbers in ((layout.SUBTRACT, offset), (layout.MULTIPLY, scale)):
        constant = writer.room(len(numbers), layout.SINGLE)
        writer.add(
            layout.SPREAD, layout.SINGLE, constant.at, writer.tables.add(numbers.astype(np.float32)), len(numbers)
        )
        source, made = made, writer.room(value.width, layout.SINGLE)
        fields = {
            layout.OTHER: constant.at,
            layout.FROM_STEP: int(value.width > 1),
            layout.OTHER_STEP: int(len(numbers) > 1),
        }
        writer.add(operation, layout.SINGLE, made.at, source.at, value.width, fields)
    return [made]


def _normalizer(writer: _Writer, operator: Operator) -> Sequence[Value]:
    value = writer.value(operator.inputs[0])
    norm = {"MAX": layout.MAXIMUM, "L1": layout.ABSOLUTE, "L2": layout.SQUARE}.get(
        operator.attributes.get("norm", "MAX")
    )
    if value.kind != layout.SINGLE or value.is_flat or norm is None:
        raise NotCompiledError("Normalizer is of other numbers than float32")
    made = _copied(writer, value)
    writer.add(layout.NORMALISE, made.kind, made.at, made.at, made.width, {layout.NORM: norm})
    return [made]


def _linear_classifier(writer: _Writer, operator: Operator) -> Sequence[Value]:
    given = operator.attributes
    labels = list(given.get("classlabels_strings") or []) or np.atleast_1d(given.get("classlabels_ints", [])).tolist()
    intercepts = np.atleast_1d(np.asarray(given.get("intercepts", []), np.float32))
    transform = _TRANSFORMS.get(given.get("post_transform", "NONE"))
    coefficients = np.atleast_1d(np.asarray(given.get("coefficients", []), np.float32))
    count = len(intercepts)
    if transform is None or count < 2 or len(labels) != count:
        raise NotCompiledError("LinearClassifier has another number of scores than of classes")
    scores = _product(writer, operator.inputs[0], coefficients, intercepts, count, is_transposed=True)
    place = writer.room(1, layout.INTEGER, is_flat=True)
    writer.add(layout.LARGEST, layout.SINGLE, place.at, scores.at, count)
    if transform == layout.SOFTMAXES:
        # Up to four classes it takes a simpler softmax, unless there are very many rows.
        if count > 4:
            _add_softmax(writer, scores)
        else:
            writer.add(layout.SCORES, layout.SINGLE, scores.at, scores.at, count, {layout.TRANSFORM: transform})
    elif transform == layout.LOGISTICS:
        writer.add(layout.LOGISTIC, layout.SINGLE, scores.at, scores.at, count)
    elif transform == layout.SOFTMAXES_BUT_ZEROS:
        writer.add(layout.SCORES, layout.SINGLE, scores.at, scores.at, count, {layout.TRANSFORM: transform})
    return [_labelled(writer, place, labels), scores]


def _linear_regressor(writer: _Writer, operator: Operator) -> Sequence[Value]:
    given = operator.attributes
    targets = int(given.get("targets", 1))
    intercepts = np.atleast_1d(np.asarray(given.get("intercepts", []), np.float32))
    coefficients = np.atleast_1d(np.asarray(given.get("coefficients", []), np.float32))
    if given.get("post_transform", "NONE") != "NONE":
        raise NotCompiledError("LinearRegressor transforms its sums")
    addends = intercepts if len(intercepts) == targets else None
    return [_product(writer, operator.inputs[0], coefficients, addends, targets, is_transposed=True)]


def _gemm(writer: _Writer, operator: Operator) -> Sequence[Value]:
    given = operator.attributes
    if given.get("transA") or given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0:
        raise NotCompiledError("Gemm scales or transposes its matrix")
    weights = writer.numbers(operator.inputs[1])
    addends = writer.numbers(operator.inputs[2]).ravel() if len(operator.inputs) > 2 and operator.inputs[2] else None
    if weights.ndim != 2 or weights.dtype != np.float32 or (addends is not None and addends.dtype != np.float32):
        raise NotCompiledError("Gemm is of other numbers than float32")
    transposed = weights if given.get("transB") else weights.T
    count = len(transposed)
    if addends is not None and len(addends) == 1:
        addends = np.repeat(addends, count)
    return [_product(writer, operator.inputs[0], np.ascontiguousarray(transposed).ravel(), addends, count)]


def _mat_mul(writer: _Writer, operator: Operator) -> Sequence[Value]:
    weights = writer.numbers(operator.inputs[1])
    if weights.ndim != 2 or weights.dtype != np.float32:
        raise NotCompiledError("MatMul is of other numbers than float32")
    return [_product(writer, operator.inputs[0], np.ascontiguousarray(weights.T).ravel(), None, weights.shape[1])]


def _product(
    writer: _Writer,
    name: str,
    coefficients: NDArray[np.float32],
    addends: NDArray[np.float32] | None,
    count: int,
    *,
    is_transposed: bool = False,
) -> Value:
    """A value times a transposed matrix [count, terms], which onnxruntime has packed unless it is `is_transposed`."""
    value = writer.value(name)
    terms = value.width
    if value.kind != layout.SINGLE or value.is_flat or len(coefficients) != terms * count:
        raise NotCompiledError("a product is of other numbers than float32, or of another width")
    if addends is not None and len(addends) != count:
        raise NotCompiledError("a product's addends have another width")
    writer.weights += terms * count
    if writer.weights > MAX_WEIGHTS:
        raise NotCompiledError(f"its products have more than {MAX_WEIGHTS:,} weights")
    writer.work += terms * count // 8
    writer.say(f"a product with {terms:,} x {count:,} weights")
    made = writer.room(count, layout.SINGLE)
    # Adding -0 changes nothing; a single row gets +0.
    added = np.concatenate([np.full(count, -0.0), np.zeros(count)]) if addends is None else np.tile(addends, 2)
    fields = {
        layout.TERMS: terms,
        layout.WEIGHTS: writer.tables.add(np.ascontiguousarray(coefficients.reshape(count, terms).T)),
        layout.ADDENDS: writer.tables.add(added.astype(np.float32)),
        layout.BLOCK: _block(count, terms) if is_transposed else 256,
        layout.IS_TRANSPOSED_ALONE: int(is_transposed),
    }
    writer.add(layout.PRODUCT, layout.SINGLE, made.at, value.at, count, fields)
    return made


def _block(columns: int, terms: int) -> int:
    """How many terms are summed before they are added, as MLAS cuts a matrix that is not packed."""
    columns_at_once = block = 128
    if columns >= terms:
        while block // 2 >= terms:
            columns_at_once, block = columns_at_once * 2, block // 2
    else:
        while columns_at_once > 16 and columns_at_once // 2 >= columns:
            block, columns_at_once = block * 2, columns_at_once // 2
    return block


_ML: Final = "ai.onnx.ml"
_RULES: Final[dict[tuple[str, str], Rule]] = {
    (_ML, "TreeEnsembleClassifier"): _trees,
    (_ML, "TreeEnsembleRegressor"): _trees,
    (_ML, "TreeEnsemble"): _trees,
    (_ML, "LinearClassifier"): _linear_classifier,
    (_ML, "LinearRegressor"): _linear_regressor,
    (_ML, "Scaler"): _scaler,
    (_ML, "Normalizer"): _normalizer,
    (_ML, "ArrayFeatureExtractor"): _extract,
    ("", "Cast"): _cast,
    ("", "Identity"): _identity,
    ("", "Add"): _arithmetic(layout.ADD),
    ("", "Sub"): _arithmetic(layout.SUBTRACT),
    ("", "Mul"): _arithmetic(layout.MULTIPLY),
    ("", "Div"): _arithmetic(layout.DIVIDE),
    ("", "ArgMax"): _largest,
    ("", "Softmax"): _softmax,
    ("", "Sigmoid"): _sigmoid,
    ("", "Relu"): _positive,
    ("", "Concat"): _concat,
    ("", "Reshape"): _reshape,
    ("", "Gather"): _look_up,
    ("", "Gemm"): _gemm,
    ("", "MatMul"): _mat_mul,
}
