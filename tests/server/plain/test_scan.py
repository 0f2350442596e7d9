"""The scan of messages: whatever it calls plain, protobuf reads in the same way; the rest is left to protobuf."""

import ctypes
import mmap
from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from penstock import inference_pb2 as pb
from penstock.wire import varint
from penstock_server.errors import PenstockError
from penstock_server.kernels import compiled
from penstock_server.plain import layout
from penstock_server.plain.kernel_set import KERNELS
from penstock_server.plain.requests import PlainRequests
from tests.examples import examples
from tests.server.plain.uncompiled import Memory, kernels_over

WORDS: Final = {
    "size": layout.F_SIZE, "hash": layout.F_HASH, "rows": layout.F_ROWS, "inputs": layout.F_INPUTS,
    "raw_at": layout.F_RAW_AT, "id_at": layout.F_ID_AT, "id_size": layout.F_ID_SIZE, "key_at": layout.F_KEY_AT,
    "key_size": layout.F_KEY_SIZE, "timeout": layout.F_TIMEOUT, "priority": layout.F_PRIORITY,
}  # fmt: skip
Found = dict[str, Any]
OF_STREAMS: Final = "triton_enable_empty_final_response"
BOOL: Final = pb.InferParameter(bool_param=True)


class _Nobody:
    """A transport without calls."""

    def send_replies(self, operations: int, count: int, block: int, *, is_shared: bool = False) -> None:
        raise AssertionError

    def ending(self, error: PenstockError) -> bytes:
        return str(error).encode()


class Compiled:
    """The compiled scan, on a message behind which no memory is."""

    def __init__(self) -> None:
        library = compiled.library(KERNELS)
        self._requests = PlainRequests(library, 0, _Nobody())
        self._state = self._requests.tables.address
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        self._look_up: Any = kind(library.addresses["look_up"])
        self._pages = mmap.mmap(-1, 17 * mmap.PAGESIZE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
        self._end = start + 16 * mmap.PAGESIZE
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(ctypes.c_void_p(self._end), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0

    def __call__(self, message: bytes) -> Found | None:
        at = self._end - len(message)
        ctypes.memmove(at, message, len(message))
        if self._look_up(self._state, at, len(message)) != 0:
            return None
        words = self._requests._found
        found = {name: words[place // 8] for name, place in WORDS.items()}
        return {**found, "skeleton": ctypes.string_at(self._requests._skeleton_at, found["size"])}


def uncompiled(message: bytes) -> Found | None:
    memory = Memory()
    scan = kernels_over(memory)["scan"]
    found, skeleton, data = memory.add(layout.FOUND_BYTES), memory.add(layout.MAX_SKELETON), memory.add(message)
    if not scan.scan(found, skeleton, data, len(message)):
        return None
    words = {name: memory.word(found + place) for name, place in WORDS.items()}
    assert memory.read(data, len(message)) == message
    return {**words, "skeleton": memory.read(skeleton, words["size"])}


@pytest.fixture(scope="module")
def scan() -> Callable[[bytes], Found | None]:
    """Both scans, which agree."""
    fast = Compiled()

    def both(message: bytes) -> Found | None:
        found = uncompiled(message)
        assert fast(message) == found
        return found

    return both


def parsed(message: bytes) -> pb.ModelInferRequest | None:
    try:
        return pb.ModelInferRequest.FromString(message)
    except DecodeError:
        return None


def read_alike(message: bytes, found: Found, request: pb.ModelInferRequest) -> None:
    """What the scan found is what protobuf found."""
    span = message[found["id_at"] : found["id_at"] + found["id_size"]] if found["id_at"] >= 0 else b""
    assert request.id.encode() == span
    known = {}
    if found["key_at"] >= 0:
        known["routing_key"] = pb.InferParameter(
            string_param=message[found["key_at"] : found["key_at"] + found["key_size"]].decode()
        )
    for name in ("timeout", "priority"):
        if found[name] >= 0:
            known[name] = pb.InferParameter(int64_param=found[name])
    told = dict(request.parameters.items())
    assert told.pop(OF_STREAMS, BOOL).WhichOneof("parameter_choice") == "bool_param"
    assert told == known
    assert {tensor.shape[0] for tensor in request.inputs} == {found["rows"]}
    assert found["inputs"] == len(request.inputs) == len(request.raw_input_contents) > 0
    raws = b"".join(b"\x3a" + varint(len(raw)) + raw for raw in request.raw_input_contents)
    assert message[found["raw_at"] :] == raws


def without_what_varies(request: pb.ModelInferRequest) -> bytes:
    rest = pb.ModelInferRequest()
    rest.CopyFrom(request)
    rest.ClearField("id")
    rest.ClearField("raw_input_contents")
    for name in ("routing_key", "timeout", "priority", OF_STREAMS):
        rest.parameters.pop(name, None)
    for tensor in rest.inputs:
        tensor.shape[0] = 0
    return bytes(rest.SerializeToString(deterministic=True))


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def number_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value & (1 << 64) - 1)


def padded(value: int, extra: int) -> bytes:
    """A varint in more bytes than it takes."""
    raw = bytearray(varint(value))
    for _ in range(extra):
        raw[-1] |= 0x80
        raw.append(0)
    return bytes(raw)


NAMES: Final = st.sampled_from([b"", b"x", b"y", b"name", "é".encode(), b"\xff", b"routing_key", b"z" * 300])
SIZES: Final = st.one_of(st.integers(-1, 5), st.sampled_from([127, 128, 2**31, 2**34, 2**35 - 1, 2**35, 2**63 - 1]))


@st.composite
def tensors(draw: st.DrawFn, rows: int, *, is_usual: bool) -> bytes:
    """One `InferInputTensor`."""
    name, datatype = draw(NAMES), draw(st.sampled_from([b"FP32", b"BYTES", b""]))
    shape = [rows, *draw(st.lists(SIZES if not is_usual else st.integers(1, 300), max_size=3))]
    packed = b"".join(varint(size & (1 << 64) - 1) for size in shape)
    parts = [field(1, name), field(2, datatype), field(3, packed)]
    if not is_usual:
        kind = draw(st.sampled_from(["unpacked", "split", "padded", "turned", "twice", "unknown", "contents", "none"]))
        if kind == "unpacked":
            parts[2] = b"".join(number_field(3, size) for size in shape)
        elif kind == "split":
            parts[2] = field(3, varint(rows & (1 << 64) - 1)) + b"".join(
                field(3, varint(size & (1 << 64) - 1)) for size in shape[1:]
            )
        elif kind == "padded":
            parts[2] = field(3, padded(max(rows, 0), draw(st.integers(1, 5))) + packed)
        elif kind == "turned":
            parts.reverse()
        elif kind == "twice":
            parts.append(parts[draw(st.integers(0, 2))])
        elif kind == "unknown":
            parts.append(draw(st.sampled_from([number_field(99, 1), field(98, b"u"), b"\x9d\x06abcd", b"\x7b\x7c"])))
        elif kind == "contents":
            parts.append(draw(st.sampled_from([field(5, field(6, b"abcd")), field(4, field(1, b"a"))])))
        elif kind == "none":
            del parts[draw(st.integers(0, 2))]
    return b"".join(parts)


@st.composite
def parameters(draw: st.DrawFn) -> bytes:
    """One entry of the map of parameters."""
    names = [b"routing_key", b"timeout", b"priority", b"timeouts", b"", b"penstock_explain", b"x", OF_STREAMS.encode()]
    name = draw(st.sampled_from(names))
    text = draw(st.sampled_from([b"", b"key", b"k" * 256, b"k" * 257, "ü".encode(), b"\xff"]))
    number = draw(st.sampled_from([0, 1, 5, 127, 128, 2**34, 2**35, 2**40, -1]))
    value = draw(
        st.sampled_from([field(3, text), number_field(2, number), number_field(5, number), number_field(1, 1), b""])
    )
    usual = field(1, name) + field(2, value)
    return draw(
        st.sampled_from(
            [usual, usual, usual, field(2, value) + field(1, name), usual + usual, field(1, name), usual + b"\x18\x01"]
        )
    )


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A `ModelInferRequest`, as clients write it or as protobuf's rules allow."""
    is_usual = draw(st.booleans())
    rows = draw(st.integers(1, 200) if is_usual else SIZES)
    count = draw(st.integers(1, 3))
    parts = [field(1, draw(NAMES))] if draw(st.booleans()) else []
    parts += [field(2, draw(NAMES))] if draw(st.booleans()) else []
    parts += [field(3, draw(st.sampled_from([b"", b"id", b"i" * 256, b"i" * 257, "ü".encode(), b"\xff"])))] * draw(
        st.integers(0, 1)
    )
    parts += [field(4, one) for one in draw(st.lists(parameters(), max_size=2 if is_usual else 4))]
    parts += [field(5, draw(tensors(rows, is_usual=is_usual or draw(st.booleans())))) for _ in range(count)]
    parts += [field(6, draw(st.sampled_from([b"", field(1, b"label"), b"\xff", field(2, field(1, b"a"))])))] * draw(
        st.integers(0, 2)
    )
    raws = draw(st.lists(st.binary(max_size=200), min_size=count, max_size=count))
    parts += [field(7, raw) for raw in raws]
    if not is_usual:
        change = draw(st.sampled_from(["none", "turned", "twice", "unknown", "padded", "less", "huge"]))
        at = draw(st.integers(0, len(parts) - 1))
        if change == "turned":
            parts = draw(st.permutations(parts))
        elif change == "twice":
            parts.insert(draw(st.integers(0, len(parts))), parts[at])
        elif change == "unknown":
            parts.insert(at, draw(st.sampled_from([number_field(9, 1), field(15, b"u"), b"\x4d1234", b"\x4b\x4c"])))
        elif change == "padded":
            parts[at] = parts[at][:1] + padded(parts[at][1] & 127, draw(st.integers(1, 5))) + parts[at][2:]
        elif change == "less":
            del parts[at]
        elif change == "huge":
            parts[at] = parts[at][:1] + draw(st.sampled_from([varint(2**31), varint(2**35 - 1), b"\xff" * 9 + b"\x01"]))
    return b"".join(parts)


@st.composite
def changes(draw: st.DrawFn, message: bytes) -> bytes:
    """A message with some bytes changed, added or cut."""
    raw = bytearray(message)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        kind = draw(st.sampled_from(["set", "insert", "cut", "end"]))
        if kind == "set" and raw:
            raw[at] = draw(
                st.sampled_from([0, 1, 10, 18, 26, 34, 42, 50, 58, 127, 128, 255, raw[at] ^ 1, raw[at] ^ 128])
            )
        elif kind == "insert":
            raw[at:at] = draw(st.binary(min_size=1, max_size=3))
        elif kind == "cut":
            del raw[at : at + draw(st.integers(1, 4))]
        else:
            del raw[at:]
    return bytes(raw)


@st.composite
def variations(draw: st.DrawFn, message: bytes) -> bytes:
    """A message like another but for what varies between requests of one form, and perhaps for one thing more."""
    request = parsed(message)
    if request is None:
        return message
    request.id = draw(st.sampled_from(["", "a", "i" * 256, "i" * 257, "ü"]))
    for name in draw(st.sets(st.sampled_from(["timeout", "priority", "routing_key", OF_STREAMS]))):
        if name == OF_STREAMS:
            request.parameters[name].bool_param = draw(st.booleans())
        elif name == "routing_key":
            request.parameters[name].string_param = draw(st.sampled_from(["", "k", "k" * 256, "ü"]))
        else:
            request.parameters[name].int64_param = draw(st.sampled_from([0, 7, 2**20, 2**34, 2**40]))
    rows = draw(st.integers(1, 2**34))
    for tensor in request.inputs:
        if tensor.shape:
            tensor.shape[0] = rows
    count = len(request.raw_input_contents)
    request.raw_input_contents[:] = draw(st.lists(st.binary(max_size=200), min_size=count, max_size=count))
    draw(st.sampled_from([lambda _: None, _shift_name, _shift_size, _shift_version, _shift_output, _shift_tensor]))(
        request
    )
    return bytes(request.SerializeToString(deterministic=True))


def _shift_name(request: pb.ModelInferRequest) -> None:
    for tensor in request.inputs[:1]:
        tensor.name, tensor.datatype = tensor.name + tensor.datatype[:1], tensor.datatype[1:]


def _shift_size(request: pb.ModelInferRequest) -> None:
    if len(request.inputs) > 1 and len(request.inputs[0].shape) > 1:
        request.inputs[1].shape.append(request.inputs[0].shape.pop())


def _shift_version(request: pb.ModelInferRequest) -> None:
    request.model_name, request.model_version = request.model_version, request.model_name


def _shift_output(request: pb.ModelInferRequest) -> None:
    request.outputs.add(name="x")


def _shift_tensor(request: pb.ModelInferRequest) -> None:
    if len(request.inputs) > 1:
        first = pb.ModelInferRequest.InferInputTensor()
        first.CopyFrom(request.inputs[0])
        request.inputs[0].CopyFrom(request.inputs[1])
        request.inputs[1].CopyFrom(first)


def usual(**fields: Any) -> bytes:
    request = pb.ModelInferRequest(model_name="m", **fields)
    request.inputs.add(name="x", datatype="FP32", shape=[2, 3])
    request.raw_input_contents.append(bytes(24))
    return bytes(request.SerializeToString())


@pytest.mark.long
@examples(400)
@given(data=st.data(), message=messages())
@example(data=None, message=usual()).via("what most clients send")
def test_what_is_plain_is_what_protobuf_reads(scan: Callable[[bytes], Found | None], data: Any, message: bytes) -> None:
    known: dict[bytes, bytes | None] = {}
    alike = [message] if data is None else [message, *(data.draw(variations(message)) for _ in range(5))]
    others = [] if data is None else [data.draw(changes(one)) for one in alike]
    for one in (*alike, *others):
        found = scan(one)
        if found is None:
            continue
        request = parsed(one)
        if request is not None:
            read_alike(one, found, request)
        # What protobuf refuses, or how it reads the rest, lies in the skeleton alone.
        rest = None if request is None else without_what_varies(request)
        assert known.setdefault(found["skeleton"], rest) == rest


def changed(change: Callable[[pb.ModelInferRequest], object]) -> bytes:
    request = pb.ModelInferRequest.FromString(usual())
    change(request)
    return bytes(request.SerializeToString(deterministic=True))


def with_parameter(entry: bytes, times: int = 1) -> bytes:
    return usual().replace(b"*", field(4, entry) * times + b"*", 1)


PLAIN: Final = {
    "usual": usual(),
    "named": usual(model_version="3", id="request"),
    "with parameters": changed(
        lambda request: (
            request.parameters["routing_key"].CopyFrom(pb.InferParameter(string_param="k" * 256)),
            request.parameters["timeout"].CopyFrom(pb.InferParameter(int64_param=2**34)),
            request.parameters["priority"].CopyFrom(pb.InferParameter(int64_param=0)),
        )
    ),
    "for streams alone": changed(lambda request: request.parameters[OF_STREAMS].CopyFrom(BOOL)),
    "more rows": changed(lambda request: request.inputs[0].shape.__setitem__(0, 2**33)),
    "outputs": changed(lambda request: (request.outputs.add(name="a"), request.outputs.add(name="b"))),
}
OTHERS: Final = {
    "nothing": b"",
    "no contents": changed(lambda request: request.ClearField("raw_input_contents")),
    "contents too many": changed(lambda request: request.raw_input_contents.append(b"")),
    "no tensors": changed(lambda request: request.ClearField("inputs")),
    "no rows": changed(lambda request: request.inputs[0].shape.__setitem__(0, 0)),
    "rows below 0": changed(lambda request: request.inputs[0].shape.__setitem__(0, -1)),
    "other rows": changed(
        lambda request: (
            request.inputs.add(name="y", datatype="FP32", shape=[3]),
            request.raw_input_contents.append(b""),
        )
    ),
    "typed contents": changed(lambda request: request.inputs[0].contents.fp32_contents.append(1)),
    "a tensor's parameter": changed(
        lambda request: request.inputs[0].parameters["a"].CopyFrom(pb.InferParameter(int64_param=1))
    ),
    "an unknown parameter": changed(
        lambda request: request.parameters["explain"].CopyFrom(pb.InferParameter(bool_param=True))
    ),
    "a number for streams alone": changed(
        lambda request: request.parameters[OF_STREAMS].CopyFrom(pb.InferParameter(int64_param=1))
    ),
    "a parameter named much alike": changed(lambda request: request.parameters[OF_STREAMS[:-1] + "E"].CopyFrom(BOOL)),
    "a number below 0": changed(
        lambda request: request.parameters["timeout"].CopyFrom(pb.InferParameter(int64_param=-1))
    ),
    "another id after it": usual() + field(3, b"id"),
    "an unknown field": usual() + number_field(99, 1),
    "cut": usual()[:-1],
    "a long id": usual(id="i" * 257),
    "an id that is not ASCII": usual(id="ü"),
    "its model twice": field(1, b"m") + usual(),
    "a parameter without a value, at its end": field(1, b"m") + field(4, field(1, b"timeout") + field(2, b"")),
    "a parameter with two values": with_parameter(
        field(1, b"timeout") + field(2, number_field(2, 5) + number_field(2, 6))
    ),
    "a parameter with a long number": with_parameter(field(1, b"timeout") + field(2, b"\x10" + padded(5, 1))),
    "a parameter twice": with_parameter(field(1, b"timeout") + field(2, number_field(2, 5)), 2),
    "a text twice": with_parameter(field(1, b"routing_key") + field(2, field(3, b"k")), 2),
    "two texts": with_parameter(field(1, b"routing_key") + field(2, field(3, b"k") + field(3, b"l"))),
    "a parameter's value first": with_parameter(field(2, number_field(2, 5)) + field(1, b"timeout")),
    "a long size": usual(id="i").replace(b"\x1a\x01i", b"\x1a\x81\x00i"),
    "a long dimension": usual().replace(b"\x1a\x02\x02\x03", b"\x1a\x03\x82\x00\x03").replace(b"*\x0d", b"*\x0e"),
    "a shape of none": changed(lambda request: request.inputs[0].ClearField("shape")),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_messages(scan: Callable[[bytes], Found | None], name: str) -> None:
    found = scan(PLAIN[name])
    assert found is not None
    read_alike(PLAIN[name], found, pb.ModelInferRequest.FromString(PLAIN[name]))


@pytest.mark.parametrize("name", OTHERS)
def test_messages_that_are_left_to_protobuf(scan: Callable[[bytes], Found | None], name: str) -> None:
    assert scan(OTHERS[name]) is None


def test_a_skeleton_does_not_depend_on_what_varies(scan: Callable[[bytes], Found | None]) -> None:
    skeletons = [
        found["skeleton"]
        for name in ("usual", "with parameters", "for streams alone", "more rows")
        if (found := scan(PLAIN[name]))
    ]
    assert len(skeletons) == 4
    assert len(set(skeletons)) == 1
    others = [found["skeleton"] for name in ("named", "outputs") if (found := scan(PLAIN[name]))]
    assert len({*others, skeletons[0]}) == 3


def form(*tensors: tuple[str, str, list[int]], outputs: Sequence[str] = (), **fields: str) -> bytes:
    """A message of these tensors: name, datatype, and shape but for the rows."""
    parts = [field(number, fields[name].encode()) for number, name in ((1, "model"), (2, "version")) if name in fields]
    for name, datatype, shape in tensors:
        packed = b"".join(map(varint, [1, *shape]))
        parts.append(field(5, field(1, name.encode()) + field(2, datatype.encode()) + field(3, packed)))
    parts += [field(6, field(1, name.encode())) for name in outputs]
    return b"".join(parts) + b"\x3a\x00" * len(tensors)


FORMS: Final = (
    form(("x", "B", [])),
    form(("", "xB", [])),
    form(("xB", "", [])),
    form(("x", "B", []), model="x"),
    form(("x", "B", []), version="x"),
    form(("x", "B", []), model="", version="x"),
    form(("x", "B", []), model="x", version=""),
    form(("x", "B", []), outputs=["x"]),
    form(("x", "B", []), outputs=["x", "x"]),
    form(("x", "B", []), outputs=[""]),
    form(("x", "B", []), outputs=["\0" * 8 + "x"]),
    form(("x", "B", [2]), ("y", "B", [])),
    form(("x", "B", []), ("y", "B", [2])),
    form(("x", "B", [2]), ("y", "B", [2])),
    form(("x", "B", [2, 2]), ("y", "B", [])),
    form(("y", "B", []), ("x", "B", [2])),
    form(("x", "B", [1, 2])),
    form(("x", "B", [12])),
    # A model, or a tensor whose name begins with what a skeleton says of a model.
    form(("N", "\5" + "\0" * 7, []), model="m?"),
    form(("\2" + "\0" * 7 + "m?", "N", [8, 5])),
    # A shape that goes on as what a skeleton says of another tensor.
    form(("x", "B", [42, 8, 5, 8, 6])),
    form(("x", "B", []), ("\5" + "\0" * 7, "\6" + "\0" * 7, [])),
)


def test_each_form_has_a_skeleton_of_its_own(scan: Callable[[bytes], Found | None]) -> None:
    skeletons = [found["skeleton"] for message in FORMS if (found := scan(message)) is not None]
    assert len(set(skeletons)) == len(skeletons) == len(FORMS)


@pytest.mark.long
def test_what_a_skeleton_has_no_room_for_is_left_to_protobuf(scan: Callable[[bytes], Found | None]) -> None:
    for size in range(layout.MAX_SKELETON - 200, layout.MAX_SKELETON + 8, 7):
        message = usual().replace(b"\x0a\x01m", field(1, b"m" * size), 1)
        found = scan(message)
        assert (found is None) == (size + 8 + 8 + 8 + 8 + 1 + 8 + 4 + 8 + 8 > layout.MAX_SKELETON)


def test_more_tensors_than_kernels_take_are_left_to_protobuf(scan: Callable[[bytes], Found | None]) -> None:
    def request(count: int) -> bytes:
        made = pb.ModelInferRequest()
        for _ in range(count):
            made.inputs.add(name="", datatype="B", shape=[1])
            made.raw_input_contents.append(b"")
        # protobuf leaves empty names out, which is another form.
        return bytes(made.SerializeToString()).replace(b"\x12\x01B", b"\x0a\x00\x12\x01B").replace(b"*\x06", b"*\x08")

    found = scan(request(900))
    assert found is not None
    assert found["inputs"] == 900
    assert scan(request(layout.MAX_INPUTS + 1)) is None


@given(data=st.binary(max_size=40))
def test_the_lowest_bytes_are_read_as_numbers_as_protobuf_does(data: bytes) -> None:
    memory = Memory()
    scan = kernels_over(memory)["scan"]
    at = memory.add(data)
    found = scan.varint(at, 0, len(data))
    if found >= 0:
        assert data.startswith(varint(found))
        assert scan.varint_bytes(found) == len(varint(found))
        place = memory.add(10)
        assert memory.read(place, scan.write_varint(place, found)) == varint(found)


@given(
    data=st.one_of(
        st.binary(max_size=30),
        st.lists(st.binary(max_size=9)).map(
            lambda all_: b"".join(len(one).to_bytes(4, "little") + one for one in all_)
        ),
    )
)
def test_texts_are_counted_as_the_general_path_counts_them(data: bytes) -> None:
    from penstock_server.features.pipeline import _count_elements

    memory = Memory()
    lanes = kernels_over(memory)["lanes"]
    assert lanes.count_texts(memory.add(data), len(data)) == _count_elements(data, len(data))
