"""Reads an ONNX file's structure before onnxruntime sees it, and refuses what a hostile one does.

A model may come from anyone who can write to the registry. onnxruntime follows the paths of external data, inlines
functions that call functions, and builds whatever is declared; this module checks these without the `onnx` package, from
protobuf's wire format. It maps the file and skips its weights, so that a file of 2 GB costs no memory. What it keeps of
the nodes says whether the graph is a classifier (`classes`) and which strings it knows.

Source: onnx.proto of ONNX 1.19, and Protocol Buffers, "Encoding". A field that the format has once and that came twice is
refused: parsers merge the two, and a check of each alone would miss what they make together.
"""

import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from penstock.wire import BYTES, FIXED32, INTEGER, VARINT, MalformedError, read_field, read_varint, signed, varint
from penstock_server.errors import InvalidInputError
from penstock_server.models import version_folder

MAX_NODES: Final = 200_000
"""With the nodes of subgraphs, and of functions as often as they are called."""
MAX_TENSORS: Final = 200_000
MAX_DEPTH: Final = 30
"""Graphs in each other. protobuf refuses 33, since it counts the messages between them."""
MAX_STEPS: Final = 4_000_000
"""Fields that are read one by one, which takes some seconds."""
MAX_KEPT: Final = 100_000
"""The values of an attribute that are kept, and the bytes of a name."""
MAX_REWRITTEN_BYTES: Final = 1 << 28
MAX_TEXT_BYTES: Final = 1 << 26
"""All names together."""

_RUN: Final = 1000
# Attributes of trees have millions of values, one field each: regular expressions skip them a thousand at a time.
_SHORT: Final = b"|".join(b"\\x%02x.{%d}" % (size, size) for size in (10, 4, *range(64)))
_RUNS: Final[dict[int, re.Pattern[bytes]]] = {
    7 << 3 | FIXED32: re.compile(rb"(?:\x3d.{4}){1,%d}" % _RUN, re.DOTALL),
    8 << 3 | VARINT: re.compile(rb"(?:\x40%b){1,%d}" % (INTEGER, _RUN)),
    9 << 3 | BYTES: re.compile(rb"(?:\x4a(?:%b)){1,%d}" % (_SHORT, _RUN), re.DOTALL),
}
_TEXTS: Final = {6 << 3 | BYTES: re.compile(rb"(?:\x32(?:%b)){1,%d}" % (_SHORT, _RUN), re.DOTALL)}
"""The strings of a tensor."""

KEPT_ATTRIBUTES: Final = frozenset(
    {
        "axis", "keepdims", "to", "post_transform", "classlabels_int64s", "classlabels_ints", "classlabels_strings",
        "cats_strings", "keys_strings", "pool_strings", "string_vocabulary",
    }
)  # fmt: skip

_RANDOM: Final = frozenset(
    {
        "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Sampling",
    }
)  # fmt: skip
"""Of ONNX's operators and onnxruntime's own. A seed does not help: the numbers go on from run to run."""
_DROPPING: Final = {"Dropout": 2, "BitmaskDropout": 2, "BiasDropout": 4, "BitmaskBiasDropout": 4}
"""Those that draw only while they train: the place of the input that says so, which graphs for serving leave out."""

Attribute = int | str | tuple[int, ...] | tuple[str, ...]
_Function = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Node:
    """An operator of the main graph, with those of its attributes that say what it decides."""

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What a sound file says of its main graph.

    Attributes:
        nodes: its operators.
        constants: the names of its initialisers.
        outputs: the names of what it gives.
        random: the operators that draw random numbers, in its subgraphs and functions too.
        has_external_data: some of its weights are in other files.
    """

    nodes: tuple[Node, ...] = ()
    constants: frozenset[str] = frozenset()
    outputs: tuple[str, ...] = ()
    random: frozenset[str] = frozenset()
    has_external_data: bool = False


def read(path: Path) -> OnnxFile:
    """The structure of the file.

    Args:
        path: the model; its external data may lie in the same folder and below it.

    Raises:
        InvalidInputError: it is not ONNX, external data is not a part of a file there, or it is larger or more deeply
            nested than any model.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Scan(content, path.parent).model()
    except MalformedError as error:
        raise InvalidInputError(f"{path.name} is not an ONNX model: {error}") from None
    except InvalidInputError as error:
        raise InvalidInputError(f"{path.name} is refused: {error}") from error
    except OSError as error:
        raise InvalidInputError(f"{path.name} cannot be read: {error.strerror}") from error
    except ValueError:  # an empty file cannot be mapped
        raise InvalidInputError(f"{path.name} is empty; expected an ONNX model") from None


@dataclass(slots=True)
class _Count:
    """The nodes of a graph or a function, and how often it calls each function."""

    nodes: int = 0
    calls: dict[_Function, int] = field(default_factory=dict)

    def call(self, function: _Function) -> None:
        self.calls[function] = self.calls.get(function, 0) + 1


class _Scan:
    """One pass over the file."""

    def __init__(self, content: Any, folder: Path) -> None:
        self._content = content
        self._folder = folder
        self._steps = 0
        self._nodes = 0
        self._tensors = 0
        self._text_bytes = 0
        self._sizes: dict[str, int] = {}
        self._random: set[str] = set()

    def model(self) -> OnnxFile:
        main, count = OnnxFile(), _Count()
        functions: dict[_Function, _Count] = {}
        for number, start, end in self._messages(0, len(self._content), once={7}):
            match number:
                case 7:
                    main = self._graph(start, end, count, depth=1, is_main=True)
                case 20:
                    for part, inner, stop in self._messages(start, end, once={1, 2}):
                        if part in {1, 2}:
                            self._graph(inner, stop, _Count(), depth=1)
                case 25:
                    name, body = self._function(start, end)
                    if name in functions:
                        raise InvalidInputError(f"it defines the function {version_folder.shown(name[1])} twice")
                    functions[name] = body
        _check_calls(count, functions)
        return replace(main, random=frozenset(self._random), has_external_data=bool(self._sizes))

    def _graph(self, at: int, end: int, count: _Count, *, depth: int, is_main: bool = False) -> OnnxFile:
        if depth > MAX_DEPTH:
            raise InvalidInputError(f"its graphs are nested deeper than {MAX_DEPTH} levels")
        nodes: list[Node] = []
        constants: set[str] = set()
        outputs: list[str] = []
        for number, start, stop in self._messages(at, end):
            match number:
                case 1:
                    node = self._node(start, stop, count, depth)
                    if is_main:
                        nodes.append(node)
                case 5:
                    name = self._tensor(start, stop)
                    if is_main:
                        constants.add(name)
                case 15:
                    self._sparse(start, stop)
                case 12 if is_main:
                    outputs += [self._text(*part) for which, *part in self._messages(start, stop) if which == 1]
        return OnnxFile(tuple(nodes), frozenset(constants), tuple(outputs))

    def _function(self, at: int, end: int) -> tuple[_Function, _Count]:
        count = _Count()
        texts = {1: "", 10: "", 13: ""}
        for number, start, stop in self._messages(at, end, once=set(texts)):
            if number in texts:
                texts[number] = self._text(start, stop)
            elif number == 7:
                self._node(start, stop, count, depth=1)
            elif number == 11:
                self._attribute(start, stop, count, depth=1)
        return (_domain(texts[10]), texts[1], texts[13]), count

    def _node(self, at: int, end: int, count: _Count, depth: int) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise InvalidInputError(f"it has more than {MAX_NODES:,} nodes")
        inputs: list[str] = []
        outputs: list[str] = []
        attributes: dict[str, Attribute] = {}
        texts = {4: "", 7: "", 8: ""}
        for number, start, stop in self._messages(at, end, once=set(texts)):
            if number == 1:
                inputs.append(self._text(start, stop))
            elif number == 2:
                outputs.append(self._text(start, stop))
            elif number in texts:
                texts[number] = self._text(start, stop)
            elif number == 5:
                name, value = self._attribute(start, stop, count, depth)
                if value is not None:
                    attributes[name] = value
        if texts[4] in _RANDOM or any(inputs[_DROPPING.get(texts[4], len(inputs)) :]):
            self._random.add(texts[4])
        count.nodes += 1
        count.call((_domain(texts[7]), texts[4], texts[8]))
        return Node(texts[4], _domain(texts[7]), tuple(inputs), tuple(outputs), attributes)

    def _attribute(self, at: int, end: int, count: _Count, depth: int) -> tuple[str, Attribute | None]:
        name = ""
        for number, start, stop in self._messages(at, end, once={1, 5, 6, 22}, runs=_RUNS):
            match number:
                case 1:
                    name = self._text(start, stop)
                case 5 | 10:
                    self._tensor(start, stop)
                case 6 | 11:
                    self._graph(start, stop, count, depth=depth + 1)
                case 22 | 23:
                    self._sparse(start, stop)
        return name, self._value(at, end) if name in KEPT_ATTRIBUTES else None

    def _value(self, at: int, end: int) -> Attribute | None:
        """An attribute's integer, text, integers or texts; of many the first."""
        integers: list[int] = []
        texts: list[str] = []
        for number, kind, start, stop in self.fields(at, end):
            if (number, kind) == (3, VARINT):
                return signed(start)
            if (number, kind) == (4, BYTES):
                return self._text(start, stop)
            if number == 8 and kind == VARINT:
                integers.append(signed(start))
            elif number == 8 and kind == BYTES:
                place = start
                while place < stop and len(integers) < MAX_KEPT:
                    value, place = read_varint(self._content, place, stop)
                    integers.append(signed(value))
            elif (number, kind) == (9, BYTES):
                texts.append(self._text(start, stop))
            if len(integers) + len(texts) >= MAX_KEPT:
                break
        return tuple(texts) or tuple(integers) or None

    def _sparse(self, at: int, end: int) -> None:
        for number, start, stop in self._messages(at, end, once={1, 2}):
            if number in {1, 2}:
                self._tensor(start, stop)

    def _tensor(self, at: int, end: int) -> str:
        """Checks a tensor, and returns its name."""
        self._tensors += 1
        if self._tensors > MAX_TENSORS:
            raise InvalidInputError(f"it has more than {MAX_TENSORS:,} constants")
        name, is_external = "", False
        entries: dict[str, str] = {}
        for number, kind, start, stop in self.fields(at, end, runs=_TEXTS):
            if (number, kind) == (8, BYTES):
                name = self._text(start, stop)
            elif (number, kind) == (14, VARINT):
                is_external = is_external or start != 0
            elif (number, kind) == (13, BYTES):
                key, value = self._entry(start, stop)
                if key in entries:
                    raise InvalidInputError(f"the external data of a constant has {version_folder.shown(key)} twice")
                entries[key] = value
        if is_external or entries:
            self._check_external(name, entries)
        return name

    def _entry(self, at: int, end: int) -> tuple[str, str]:
        texts = {1: "", 2: ""}
        for number, start, stop in self._messages(at, end, once={1, 2}):
            if number in texts:
                texts[number] = self._text(start, stop)
        return texts[1], texts[2]

    def first_text(self, at: int, end: int, wanted: int) -> str:
        """The text of the first field of this number; "" where there is none."""
        found = (self._text(start, stop) for number, start, stop in self._messages(at, end) if number == wanted)
        return next(found, "")

    def _check_external(self, tensor: str, entries: Mapping[str, str]) -> None:
        """Checks that the data is a part of a regular file of the version's folder."""
        location = entries.get("location", "").removeprefix("./")
        try:
            if location not in self._sizes:
                self._sizes[location] = version_folder.locate(self._folder, location).stat().st_size
            numbers = {key: _number(key, entries[key]) for key in ("offset", "length") if key in entries}
            end, size = numbers.get("offset", 0) + numbers.get("length", 0), self._sizes[location]
            if end > size:
                raise InvalidInputError(
                    f"it ends at byte {end:,} of {version_folder.shown(location)}, which has {size:,}"
                )
        except (InvalidInputError, OSError) as error:
            raise InvalidInputError(f"the external data of {version_folder.shown(tensor)}: {error}") from error

    def _messages(
        self, at: int, end: int, *, once: set[int] | None = None, runs: Mapping[int, re.Pattern[bytes]] | None = None
    ) -> Iterator[tuple[int, int, int]]:
        """The fields that hold messages or text: their number, where they begin and where they end."""
        seen: set[int] = set()
        for number, kind, start, stop in self.fields(at, end, runs=runs):
            if kind == BYTES:
                if once and number in once:
                    if number in seen:
                        raise InvalidInputError(f"field {number}, which a message of ONNX has once, comes twice")
                    seen.add(number)
                yield number, start, stop

    def fields(
        self, at: int, end: int, *, runs: Mapping[int, re.Pattern[bytes]] | None = None
    ) -> Iterator[tuple[int, int, int, int]]:
        """The fields of a message: number, wire type, and the value, or where the contents begin and end."""
        content = self._content
        while at < end:
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise InvalidInputError(f"it has more than {MAX_STEPS:,} parts")
            if runs and (run := runs.get(content[at])) and (found := run.match(content, at, end)):
                at = found.end()
                continue
            number, kind, value, stop, at = read_field(content, at, end)
            yield number, kind, value, stop

    def _text(self, at: int, end: int) -> str:
        if end - at > MAX_KEPT:
            raise InvalidInputError(f"it has a name or text of {end - at:,} bytes; expected at most {MAX_KEPT:,}")
        self._text_bytes += end - at
        if self._text_bytes > MAX_TEXT_BYTES:
            raise InvalidInputError(f"its names take more than {MAX_TEXT_BYTES:,} bytes")
        text: bytes = self._content[at:end]
        return text.decode("utf-8", "replace")


def without_maps(path: Path, file: OnnxFile) -> bytes | None:
    """The model with tensors [rows, classes] in place of the maps that a ZipMap gives; None where there are none.

    skl2onnx makes classifiers with a map per row unless it is told not to. Each such node becomes an Identity, and its
    output the tensor that went in. A model with weights in other files, or a very large one, is left as it is.
    """
    zipped = {node.outputs[0]: node for node in file.nodes if _is_map(node) and node.outputs[0] in file.outputs}
    if not zipped or file.has_external_data or path.stat().st_size > MAX_REWRITTEN_BYTES:
        return None
    content = path.read_bytes()
    scan = _Scan(content, path.parent)
    parts: list[bytes] = []
    for number, kind, start, stop in scan.fields(0, len(content)):
        if (number, kind) == (7, BYTES):
            parts.append(_field(7, _graph_without_maps(scan, content, start, stop, zipped)))
        else:
            parts.append(_copied(content, number, kind, start, stop))
    return b"".join(parts)


def _graph_without_maps(scan: "_Scan", content: bytes, at: int, end: int, zipped: Mapping[str, Node]) -> bytes:
    parts: list[bytes] = []
    for number, kind, start, stop in scan.fields(at, end):
        if (number, kind) == (1, BYTES) and (name := scan.first_text(start, stop, 2)) in zipped:
            node = zipped[name]
            parts.append(
                _field(1, _field(1, node.inputs[0].encode()) + _field(2, name.encode()) + _field(4, b"Identity"))
            )
        elif (number, kind) == (12, BYTES) and (name := scan.first_text(start, stop, 1)) in zipped:
            parts.append(_field(12, _float_matrix(name, _classes(zipped[name]))))
        else:
            parts.append(_copied(content, number, kind, start, stop))
    return b"".join(parts)


def _float_matrix(name: str, columns: int) -> bytes:
    """A `ValueInfoProto` of floats [rows, columns]."""
    shape = _field(1, _field(2, b"rows")) + _field(1, _VARINT_1 + varint(columns))
    return _field(1, name.encode()) + _field(2, _field(1, _VARINT_1 + varint(1) + _field(2, shape)))


def _classes(node: Node) -> int:
    labels = (node.attributes.get(name) for name in ("classlabels_int64s", "classlabels_strings"))
    return next((len(each) for each in labels if isinstance(each, tuple)), 0)


def _is_map(node: Node) -> bool:
    return node.operator == "ZipMap" and len(node.inputs) == len(node.outputs) == 1 and _classes(node) > 0


_VARINT_1: Final = b"\x08"


def _field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def _copied(content: bytes, number: int, kind: int, start: int, stop: int) -> bytes:
    if kind == VARINT:
        return varint(number << 3) + varint(start)
    if kind == BYTES:
        return _field(number, content[start:stop])
    return varint(number << 3 | kind) + content[start : start + (4 if kind == FIXED32 else 8)]


def _check_calls(main: _Count, functions: Mapping[_Function, _Count]) -> None:
    """Checks that functions do not call themselves, and how many nodes there are once all are inlined."""
    totals: dict[_Function, int] = {}
    entered: set[_Function] = set()
    # A stack of its own: functions may call each other deeper than Python's goes.
    stack = [*functions]
    while stack:
        name = stack[-1]
        called = [each for each in functions[name].calls if each in functions]
        if name in totals:
            stack.pop()
        elif missing := [each for each in called if each not in totals]:
            if name in entered:
                raise InvalidInputError(f"the function {version_folder.shown(name[1])} calls itself")
            entered.add(name)
            stack += missing
        else:
            totals[name] = _inlined(functions[name], totals)
            entered.discard(name)
            stack.pop()
    if (nodes := _inlined(main, totals)) > MAX_NODES:
        raise InvalidInputError(
            f"it has {nodes:,} nodes once its functions are inlined; expected at most {MAX_NODES:,}"
        )


def _inlined(count: _Count, totals: Mapping[_Function, int]) -> int:
    nodes = count.nodes + sum(times * totals.get(name, 0) for name, times in count.calls.items())
    # Beyond the limit it makes no difference, and the numbers would grow as fast as the bomb.
    return min(nodes, 1 << 62)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _number(key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise InvalidInputError(f"its {key} is {version_folder.shown(text)}; expected a number of bytes")
    return int(text)
