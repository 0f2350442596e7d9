"""Hostile files are refused before onnxruntime sees them, and sound ones are read as the `onnx` package reads them."""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, SparseTensorProto, TensorProto, helper, numpy_helper

from penstock_server.errors import InvalidInputError
from penstock_server.models import onnx_file

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])
IDENTITY = helper.make_node("Identity", ["x"], ["y"])


def model_of(*nodes: Any, **parts: Any) -> ModelProto:
    graph = helper.make_graph(list(nodes) or [IDENTITY], "g", [X], [Y], list(parts.pop("initializer", ())))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **parts)


def written(folder: Path, model: ModelProto | bytes) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def external(name: str = "w", **entries: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def sparse(tensor: TensorProto, *, in_indices: bool = False) -> SparseTensorProto:
    plain = helper.make_tensor("i", TensorProto.INT64, [2], [0, 1])
    made = SparseTensorProto(dims=[2])
    made.values.CopyFrom(plain if in_indices else tensor)
    made.indices.CopyFrom(tensor if in_indices else plain)
    return made


def constant(**attribute: Any) -> Any:
    return helper.make_node("Constant", [], ["c"], **attribute)


def graph_of(*nodes: Any, initializer: Any = (), sparse_initializer: Any = ()) -> GraphProto:
    made = helper.make_graph(list(nodes), "inner", [], [Y], list(initializer))
    made.sparse_initializer.extend(sparse_initializer)
    return made


def in_sparse_initializer(tensor: TensorProto) -> ModelProto:
    model = model_of()
    model.graph.sparse_initializer.append(sparse(tensor))
    return model


def in_attributes(kind: str, values: Any) -> ModelProto:
    node = helper.make_node("Custom", ["x"], ["y"])
    getattr(node.attribute.add(name="a"), kind).extend(values)
    return model_of(node)


def in_function(tensor: TensorProto, *, is_default: bool = False) -> ModelProto:
    nodes = [IDENTITY] if is_default else [constant(value=tensor), IDENTITY]
    made = helper.make_function("own", "f", ["x"], ["y"], nodes, [helper.make_opsetid("", 17)])
    if is_default:
        made.attribute_proto.append(helper.make_attribute("a", tensor))
    return model_of(functions=[made])


def in_training(tensor: TensorProto) -> ModelProto:
    model = model_of()
    model.training_info.add().algorithm.CopyFrom(graph_of(initializer=[tensor]))
    return model


PLACES: dict[str, Callable[[TensorProto], ModelProto]] = {
    "initializer": lambda tensor: model_of(initializer=[tensor]),
    "sparse initializer": in_sparse_initializer,
    "constant": lambda tensor: model_of(constant(value=tensor), IDENTITY),
    "sparse constant": lambda tensor: model_of(constant(sparse_value=sparse(tensor)), IDENTITY),
    "indices": lambda tensor: model_of(constant(sparse_value=sparse(tensor, in_indices=True)), IDENTITY),
    "list of tensors": lambda tensor: in_attributes("tensors", [tensor]),
    "list of sparse tensors": lambda tensor: in_attributes("sparse_tensors", [sparse(tensor)]),
    "subgraph": lambda tensor: model_of(
        helper.make_node("If", ["x"], ["y"], then_branch=graph_of(IDENTITY, initializer=[tensor]))
    ),
    "subgraph of a subgraph": lambda tensor: model_of(
        helper.make_node(
            "If", ["x"], ["y"],
            then_branch=graph_of(helper.make_node("If", ["x"], ["y"], then_branch=graph_of(constant(value=tensor)))),
        )
    ),
    "sparse initializer of a subgraph": lambda tensor: model_of(
        helper.make_node("Loop", ["x"], ["y"], body=graph_of(IDENTITY, sparse_initializer=[sparse(tensor)]))
    ),
    "list of graphs": lambda tensor: in_attributes("graphs", [graph_of(initializer=[tensor])]),
    "function": in_function,
    "default of a function": lambda tensor: in_function(tensor, is_default=True),
    "training": in_training,
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_external_data_outside_is_refused_wherever_it_stands(tmp_path: Path, place: str) -> None:
    (tmp_path / "secret.txt").write_bytes(b"12345678")
    folder = tmp_path / "version"
    folder.mkdir()
    path = written(folder, PLACES[place](external(location="../secret.txt")))
    said = r"^model\.onnx is refused: the external data of 'w': file name '\.\./secret"
    with pytest.raises(InvalidInputError, match=said):
        onnx_file.read(path)
    (folder / "inside.bin").write_bytes(b"12345678")
    assert onnx_file.read(written(folder, PLACES[place](external(location="inside.bin")))).has_external_data


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"location": "/etc/passwd"}, "file name '/etc/passwd' is refused"),
        ({"location": "a/../../secret.txt"}, "is refused; expected a plain path"),
        ({"location": "link"}, "file 'link' is a link that leaves the version's folder"),
        ({"location": "folder"}, "file 'folder' is not a regular file"),
        ({"location": "gone.bin"}, "file 'gone.bin' is missing"),
        ({"location": "*/_ORT_MEM_ADDR_/*"}, "is missing"),
        ({"location": ""}, "file name '' is refused"),
        ({}, "file name '' is refused"),
        ({"location": "w.bin", "offset": "8", "length": "1"}, "it ends at byte 9 of 'w.bin', which has 8"),
        ({"location": "w.bin", "length": "9"}, "it ends at byte 9"),
        ({"location": "w.bin", "offset": "-4"}, "its offset is '-4'; expected a number of bytes"),
        ({"location": "w.bin", "offset": "1e3"}, "its offset is '1e3'"),
        ({"location": "w.bin", "length": "9" * 40}, "its length is"),
        ({"location": "w.bin", "length": "\u0663"}, "its length is"),
        ({"location": "w.bin", "offset": "0", "length": "8"}, ""),
        ({"location": "./w.bin", "checksum": "any"}, ""),
    ],
)
def test_external_data_are_a_part_of_a_file_of_the_version(tmp_path: Path, entries: dict[str, str], said: str) -> None:
    (tmp_path / "secret.txt").write_bytes(b"12345678")
    folder = tmp_path / "version"
    (folder / "folder").mkdir(parents=True)
    (folder / "w.bin").write_bytes(b"12345678")
    (folder / "link").symlink_to("../secret.txt")
    path = written(folder, model_of(initializer=[external(**entries)]))
    if said:
        with pytest.raises(InvalidInputError) as caught:
            onnx_file.read(path)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    else:
        onnx_file.read(path)


def field(number: int, content: bytes) -> bytes:
    from penstock.wire import varint

    return varint(number << 3 | 2) + varint(len(content)) + content


def test_what_parsers_would_merge_is_refused(tmp_path: Path) -> None:
    """Two halves of a tensor: one says that its data is external, the other where."""
    (tmp_path / "w.bin").write_bytes(b"12345678")
    halves = [TensorProto(name="w", data_location=TensorProto.EXTERNAL).SerializeToString()]
    tensor = TensorProto()
    tensor.external_data.add(key="location", value="w.bin")
    halves.append(tensor.SerializeToString())
    attribute = b"".join(field(5, half) for half in halves)
    model = field(7, field(1, field(4, b"Constant") + field(5, field(1, b"value") + attribute)))
    with pytest.raises(InvalidInputError, match=r"field 5, which a message of ONNX has once, comes twice|file name ''"):
        onnx_file.read(written(tmp_path, model))
    twice = field(7, model_of().graph.SerializeToString())
    with pytest.raises(InvalidInputError, match="field 7, which a message of ONNX has once, comes twice"):
        onnx_file.read(written(tmp_path, twice + twice))
    double = external(location="w.bin")
    double.external_data.add(key="location", value="../x")
    with pytest.raises(InvalidInputError, match="has 'location' twice"):
        onnx_file.read(written(tmp_path, model_of(initializer=[double])))


def function(name: str, *calls: str) -> Any:
    nodes = [helper.make_node(each, ["x"], ["y"], domain="own") for each in calls]
    return helper.make_function("own", name, ["x"], ["y"], nodes, [helper.make_opsetid("own", 1)])


def test_functions_that_multiply_are_refused_at_once(tmp_path: Path) -> None:
    bomb = [function(f"f{at}", *[f"f{at + 1}"] * 10) for at in range(60)] + [function("f60")]
    call = helper.make_node("f0", ["x"], ["y"], domain="own")
    started = time.monotonic()
    with pytest.raises(InvalidInputError, match="nodes once its functions are inlined; expected at most 200,000"):
        onnx_file.read(written(tmp_path, model_of(call, functions=bomb)))
    assert time.monotonic() - started < 5
    # What nothing calls is not inlined.
    onnx_file.read(written(tmp_path, model_of(functions=bomb)))
    onnx_file.read(written(tmp_path, model_of(call, functions=[function("f0", "f1", "f1"), function("f1", "g")])))


def test_a_chain_of_functions_is_no_recursion(tmp_path: Path) -> None:
    chain = [function(f"f{at}", f"f{at + 1}", f"f{at + 2}") for at in range(0, 20_000, 2)]
    onnx_file.read(written(tmp_path, model_of(functions=chain)))


@pytest.mark.parametrize("calls", [["f"], ["g"], ["h"]])
def test_a_function_that_calls_itself_is_refused(tmp_path: Path, calls: list[str]) -> None:
    functions = [function("f", *calls), function("g", "f"), function("h", "g", "g")]
    with pytest.raises(InvalidInputError, match="calls itself"):
        onnx_file.read(written(tmp_path, model_of(functions=functions)))


def test_a_function_is_defined_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="it defines the function 'f' twice"):
        onnx_file.read(written(tmp_path, model_of(functions=[function("f"), function("f")])))


def test_nodes_tensors_depth_and_names_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = graph_of(IDENTITY)
    for _ in range(31):
        deep = graph_of(helper.make_node("If", ["x"], ["y"], then_branch=deep))
    cases = [
        (model_of(helper.make_node("If", ["x"], ["y"], then_branch=deep)), "nested deeper than 30 levels"),
        (model_of(*[IDENTITY] * 11), "more than 10 nodes"),
        (
            model_of(initializer=[helper.make_tensor(f"t{at}", 1, [0], []) for at in range(11)]),
            "more than 10 constants",
        ),
        (model_of(helper.make_node("n" * 200_000, [], [])), "a name or text of 200,000 bytes"),
    ]
    for name in ("MAX_NODES", "MAX_TENSORS"):
        monkeypatch.setattr(onnx_file, name, 10)
    for model, said in cases[1:]:
        with pytest.raises(InvalidInputError, match=said):
            onnx_file.read(written(tmp_path, model))
    monkeypatch.setattr(onnx_file, "MAX_NODES", 1000)
    with pytest.raises(InvalidInputError, match=cases[0][1]):
        onnx_file.read(written(tmp_path, cases[0][0]))
    path = written(tmp_path, model_of())
    for name, value, said in (("MAX_STEPS", 5, "more than 5 parts"), ("MAX_TEXT_BYTES", 3, "names take more than 3")):
        with monkeypatch.context() as patch:
            patch.setattr(onnx_file, name, value)
            with pytest.raises(InvalidInputError, match=said):
                onnx_file.read(path)


@pytest.mark.long
def test_weights_cost_no_memory_and_trees_no_time(tmp_path: Path) -> None:
    trees = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml")
    trees.attribute.append(helper.make_attribute("nodes_values", np.linspace(0, 1, 300_000).tolist()))
    trees.attribute.append(helper.make_attribute("nodes_ids", list(range(-5, 300_000))))
    trees.attribute.append(helper.make_attribute("nodes_modes", ["BRANCH_LEQ", "LEAF", "x" * 63, "x" * 64] * 75_000))
    path = written(tmp_path, model_of(trees, initializer=[numpy_helper.from_array(np.zeros(10_000_000), "w")]))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    found = onnx_file.read(path)
    assert time.monotonic() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KiB; the weights take 80 MB
    assert (found.outputs, found.constants) == (("y",), frozenset({"w"}))


def test_nodes_are_read_as_the_onnx_package_reads_them(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["label"], axis=-1, keepdims=0),
        helper.make_node(
            "LabelEncoder", ["label"], ["y"], domain="ai.onnx.ml", keys_strings=["a", "é"], default_int64=3
        ),
        helper.make_node("Own", ["x", ""], ["y", "z"], domain="ai.onnx", to=7, post_transform="SOFTMAX"),
        helper.make_node(
            "SVMClassifier", ["x"], ["y"], domain="ai.onnx.ml", classlabels_ints=[1, -2], coefficients=[0.5]
        ),
    ]
    found = onnx_file.read(written(tmp_path, model_of(*nodes)))
    assert [(node.operator, node.domain, node.inputs, node.outputs) for node in found.nodes] == [
        ("ArgMax", "", ("x",), ("label",)),
        ("LabelEncoder", "ai.onnx.ml", ("label",), ("y",)),
        ("Own", "", ("x", ""), ("y", "z")),
        ("SVMClassifier", "ai.onnx.ml", ("x",), ("y",)),
    ]
    assert [dict(node.attributes) for node in found.nodes] == [
        {"axis": -1, "keepdims": 0},
        {"keys_strings": ("a", "é")},
        {"to": 7, "post_transform": "SOFTMAX"},
        {"classlabels_ints": (1, -2)},
    ]


ALL = in_function(external(location="w.bin"))
ALL.graph.CopyFrom(PLACES["subgraph of a subgraph"](external(location="w.bin")).graph)
ALL.graph.node.append(helper.make_node("f", ["x"], ["y"], domain="own"))
ALL.graph.node.append(
    helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_strings=["a", "b"], floats=[1.0, 2.0])
)
ALL.graph.sparse_initializer.append(sparse(external(location="w.bin")))
SOUND = ALL.SerializeToString()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("version")
    (made / "w.bin").write_bytes(bytes(64))
    onnx_file.read(written(made, SOUND))
    return made


def check(folder: Path, content: bytes) -> None:
    """Reads it or refuses it in one sentence; what is read as sound has no path that the onnx package sees outside."""
    said, path = "", written(folder, content)
    try:
        onnx_file.without_maps(path, onnx_file.read(path))
    except InvalidInputError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 1000
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        return
    assert said or all(location.removeprefix("./") == "w.bin" for location in locations(model))


def locations(message: Any) -> list[str]:
    """Every location of external data below a message."""
    found = []
    for descriptor, value in message.ListFields():
        if descriptor.name == "external_data":
            found += [entry.value for entry in value if entry.key == "location"]
        elif descriptor.type == descriptor.TYPE_MESSAGE:
            for each in value if descriptor.is_repeated else [value]:
                found += locations(each)
    return found


@given(
    st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, len(SOUND)),
)
def test_changed_bytes_are_read_or_refused(folder: Path, changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(SOUND)
    for at, byte in changes:
        content[at] = byte
    check(folder, bytes(content))
    check(folder, bytes(content[:cut]))


@given(st.binary(max_size=200), st.integers(0, len(SOUND)))
def test_inserted_bytes_are_read_or_refused(folder: Path, inserted: bytes, at: int) -> None:
    check(folder, SOUND[:at] + inserted + SOUND[at:])
    check(folder, inserted)


def _dropping(*inputs: str, operator: str = "Dropout", domain: str = "") -> Any:
    return helper.make_node(operator, list(inputs), ["y"], domain=domain)


BRANCH = helper.make_node("RandomNormal", [], ["r"], shape=[2])
DRAWING: dict[str, tuple[ModelProto, set[str]]] = {
    "nothing": (model_of(), set()),
    "noise": (model_of(helper.make_node("RandomUniformLike", ["x"], ["y"])), {"RandomUniformLike"}),
    "with a seed": (model_of(helper.make_node("Bernoulli", ["x"], ["y"], seed=1.0)), {"Bernoulli"}),
    "onnxruntime's own": (model_of(_dropping("x", operator="Sampling", domain="com.microsoft")), {"Sampling"}),
    "in a branch": (
        model_of(helper.make_node("If", ["c"], ["y"], then_branch=graph_of(BRANCH), else_branch=graph_of(IDENTITY))),
        {"RandomNormal"},
    ),
    "in a function": (
        model_of(
            functions=[
                helper.make_function(
                    "own", "f", ["x"], ["y"], [helper.make_node("Multinomial", ["x"], ["y"])],
                    [helper.make_opsetid("", 17)],
                )
            ]
        ),
        {"Multinomial"},
    ),
    "dropout that serves": (model_of(_dropping("x")), set()),
    "dropout with a ratio": (model_of(_dropping("x", "ratio", "")), set()),
    "dropout that may train": (model_of(_dropping("x", "ratio", "trains")), {"Dropout"}),
    "with a bias": (model_of(_dropping("x", "b", "", "ratio", operator="BiasDropout", domain="com.microsoft")), set()),
    "with a bias, training": (
        model_of(_dropping("x", "b", "", "", "trains", operator="BiasDropout", domain="com.microsoft")),
        {"BiasDropout"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWING)
def test_operators_that_draw_random_numbers_are_found(name: str, tmp_path: Path) -> None:
    model, operators = DRAWING[name]
    assert onnx_file.read(written(tmp_path, model)).random == operators
