from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import onnx
import pytest

from penstock.tensors import NUMPY_TYPES, join_bytes, to_raw
from penstock_server.errors import InvalidInputError, ModelFailedError
from penstock_server.models import onnx_model, sized_batches
from penstock_server.models.execution import PROVIDERS, ExecutionSettings, Placement, Provider
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.signature import GivenTensor, TensorInfo
from penstock_server.models.sized_batches import Sized

WriteOnnx = Callable[..., Path]
DATATYPES = [*(name for name in NUMPY_TYPES if name != "BF16"), "BYTES"]


@pytest.fixture(scope="session")
def identities(write_onnx: WriteOnnx) -> Path:
    """An input and an identical output of each datatype."""
    return write_onnx(
        [("Identity", [name], [f"{name}_out"], {}) for name in DATATYPES],
        inputs=[(name, name, ["N", 2]) for name in DATATYPES],
        outputs=[(f"{name}_out", name, ["N", 2]) for name in DATATYPES],
    )


def identity(write_onnx: WriteOnnx, takes: list[Any], gives: list[Any] | None = None) -> Path:
    return write_onnx(
        [("Identity", ["x"], ["y"], {})], inputs=[("x", "FP32", takes)], outputs=[("y", "FP32", gives or takes)]
    )


def test_signature_names_every_datatype(identities: Path) -> None:
    signature = OnnxModel(identities).signature
    assert signature.inputs == tuple(TensorInfo(name, name, (-1, 2)) for name in DATATYPES)
    assert [spec.datatype for spec in signature.outputs] == DATATYPES
    assert signature.is_batched


def test_values_of_every_datatype_pass_unchanged(identities: Path) -> None:
    model = OnnxModel(identities)
    arrays = [np.array([[0, 1], [1, 0]]).astype(NUMPY_TYPES[name]) for name in DATATYPES[:-1]]
    texts = np.array([["", "é"], ["no", "x" * 300]], object)
    blocks = [*(array.tobytes() for array in arrays), to_raw(texts)]
    outputs = model.run(model.feeds(blocks, [(2, 2)] * len(DATATYPES)))
    for expected, got in zip([*arrays, texts], outputs, strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_bytes_that_are_no_text_become_a_mark(write_onnx: WriteOnnx) -> None:
    path = write_onnx([("Identity", ["x"], ["y"], {})], inputs=[("x", "BYTES", ["N"])], outputs=[("y", "BYTES", ["N"])])
    model = OnnxModel(path)
    (output,) = model.run(model.feeds([join_bytes([b"\xff", b"ok"])], [(2,)]))
    assert output.tolist() == ["�", "ok"]


@pytest.mark.parametrize(
    ("takes", "gives", "is_batched"),
    [
        (["N", 3], ["N", 3], True),
        (["N"], ["N"], True),
        ([1, 3], [1, 3], False),
        (["N", "M"], ["N", "M"], False),
        ([], [], False),
    ],
)
def test_requests_are_joined_only_along_a_free_first_axis(
    write_onnx: WriteOnnx, takes: list[Any], gives: list[Any], is_batched: bool
) -> None:
    assert OnnxModel(identity(write_onnx, takes, gives)).signature.is_batched is is_batched


def test_a_total_over_the_rows_is_no_batched_model(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [("ReduceSum", ["x"], ["y"], {"keepdims": 1})],
        inputs=[("x", "FP32", ["N", 3])],
        outputs=[("y", "FP32", [1, 1])],
    )
    assert not OnnxModel(path).signature.is_batched


def test_a_failing_graph_keeps_its_words_as_the_cause(write_onnx: WriteOnnx) -> None:
    model = OnnxModel(identity(write_onnx, ["N", 3]))
    with pytest.raises(ModelFailedError, match=r"^the model failed on this input$") as caught:
        model.run({"x": np.zeros((1, 2), np.float32)})
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"^broken\.onnx is empty; expected an ONNX model$"),
        (b"not a graph", r"^broken\.onnx is not an ONNX model: byte 0 begins no field$"),
        (b"\x08\x08", r"^broken\.onnx cannot be loaded by onnxruntime: "),
    ],
)
def test_what_is_no_graph_is_refused_by_name(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=said) as caught:
        OnnxModel(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [[0, 1, 2], ["a", "b", "é"]])
def test_maps_become_tensors(tmp_path: Path, labels: list[Any]) -> None:
    """skl2onnx makes maps by default."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rows = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    fitted = LogisticRegression().fit(rows, [labels[at % 3] for at in range(30)])
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(fitted, rows[:1]).SerializeToString())
    model = OnnxModel(path)
    label, probabilities = model.signature.outputs
    assert (probabilities.name, probabilities.datatype, probabilities.shape) == ("output_probability", "FP32", (-1, 3))
    assert (label.name, label.shape, model.signature.is_batched) == ("output_label", (-1,), True)
    found, scores = model.run({"X": rows})
    np.testing.assert_allclose(scores, fitted.predict_proba(rows), atol=1e-6)
    assert found.tolist() == fitted.predict(rows).tolist()


def zipped(*, is_external: bool) -> bytes:
    from onnx import TensorProto, helper

    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 2])
    named = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    output = helper.make_value_info("probabilities", helper.make_sequence_type_proto(named))
    zipped = helper.make_node("ZipMap", ["scores"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    weights = helper.make_tensor("w", TensorProto.FLOAT, [1], [0.0])
    if is_external:
        weights.ClearField("float_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="w.bin")
    graph = helper.make_graph([zipped], "graph", [scores], [output], [weights])
    encoded: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return encoded


def test_maps_of_a_model_with_external_weights_are_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(zipped(is_external=False))
    assert OnnxModel(path).signature.outputs == (TensorInfo("probabilities", "FP32", (-1, 2)),)
    (tmp_path / "w.bin").write_bytes(bytes(4))
    path.write_bytes(zipped(is_external=True))
    with pytest.raises(InvalidInputError, match=r"'probabilities' is a seq\(map.*expected a tensor.*zipmap=False"):
        OnnxModel(path)


def test_an_input_with_a_default_is_no_input(tmp_path: Path) -> None:
    """Graphs of IR 3 list every constant among their inputs."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in "xy")
    k = helper.make_tensor_value_info("k", TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "k"], ["y"])],
        "g",
        [x, k],
        [y],
        [helper.make_tensor("k", TensorProto.FLOAT, [1], [3])],
    )
    path = tmp_path / "model.onnx"
    encoded = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=3).SerializeToString()
    path.write_bytes(encoded)
    model = OnnxModel(path)
    assert [spec.name for spec in model.signature.inputs] == ["x"]
    assert model.run({"x": np.ones((1, 2), np.float32)})[0].tolist() == [[3.0, 3.0]]


def test_bfloat16_goes_in_and_out_as_floats(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [("Cast", ["x"], ["f"], {"to": 1}), ("Add", ["f", "f"], ["y"], {}), ("Identity", ["x"], ["same"], {})],
        inputs=[("x", "BF16", ["N", 3])],
        outputs=[("y", "FP32", ["N", 3]), ("same", "BF16", ["N", 3])],
    )
    model = OnnxModel(path)
    rows = np.array([[1.0, 1.00390625, -3e38], [np.nan, np.inf, 0.1]], np.float32)
    near = np.array([[1.0, 1.0, -3e38], [np.nan, np.inf, 0.1]], np.float32)
    doubled, same = model.run(model.feeds([rows.tobytes()], [(2, 3)]))
    np.testing.assert_allclose(same, near, rtol=2**-8)
    np.testing.assert_array_equal(same[0, :2], [1.0, 1.0])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(doubled, same * 2)
    assert [array.dtype for array in (doubled, same)] == [np.float32] * 2
    assert [array.shape for array in model.run(model.feeds([b""], [(0, 3)]))] == [(0, 3)] * 2
    with pytest.raises(ModelFailedError):
        model.run({"x": np.zeros((1, 2), np.float32)})


def test_bfloat16_beside_texts_is_refused(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [("Identity", ["x"], ["y"], {}), ("Identity", ["text"], ["echo"], {})],
        inputs=[("x", "BF16", ["N", 2]), ("text", "BYTES", ["N", 1])],
        outputs=[("y", "BF16", ["N", 2]), ("echo", "BYTES", ["N", 1])],
    )
    with pytest.raises(
        InvalidInputError, match=r"^model\.onnx has tensors of bfloat16 and of strings, which onnxruntime"
    ):
        OnnxModel(path)


def test_a_type_without_tensors_here_is_refused_in_one_sentence(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT8E5M2, ["N", 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "model.onnx"
    encoded = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9).SerializeToString()
    path.write_bytes(encoded)
    with pytest.raises(
        InvalidInputError, match=r"^model\.onnx: 'x' is a tensor\(float8e5m2\), expected a tensor of"
    ) as caught:
        OnnxModel(path)
    assert "\n" not in str(caught.value)


Nodes = dict[str, int]
"""How many nodes each provider runs, by onnxruntime's names."""
AZURE = "AzureExecutionProvider"
CUDA, TENSORRT, CPU = (PROVIDERS[name].name for name in ("cuda", "tensorrt", "cpu"))


class Runtime:
    """onnxruntime with other providers than the installed one: what a session gets is decided by `gets`, asked with the names.

    Sessions are real ones on the CPU; they only say that they were something else.
    """

    def __init__(self, gets: Callable[[list[str]], Nodes]) -> None:
        self.gets = gets
        self.asked: list[list[tuple[str, dict[str, str]]]] = []
        self.loaded = 0
        self._real = onnx_model.onnxruntime.InferenceSession

    def session(self, source: Any, options: Any, *, providers: list[Any], enable_fallback: int) -> Any:
        assert enable_fallback == 0, "onnxruntime would go back to the CPU by itself"
        self.asked.append(providers)
        nodes = self.gets([name for name, _ in providers])
        session = self._real(source, options, providers=[CPU])
        session.get_providers = lambda: list(nodes)
        session.get_provider_graph_assignment_info = lambda: [Part(name, count) for name, count in nodes.items()]
        return session

    def preload_dlls(self) -> None:
        print("no library is found")
        self.loaded += 1


class Part:
    def __init__(self, ep_name: str, count: int) -> None:
        self.ep_name = ep_name
        self._count = count

    def get_nodes(self) -> Sequence[int]:
        return range(self._count)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Runtime]:
    def make(gets: Callable[[list[str]], Nodes], *offered: str) -> Runtime:
        made = Runtime(gets)
        monkeypatch.setattr(onnx_model.onnxruntime, "InferenceSession", made.session)
        monkeypatch.setattr(onnx_model.onnxruntime, "get_available_providers", lambda: [*offered, CPU])
        monkeypatch.setattr(onnx_model.onnxruntime, "preload_dlls", made.preload_dlls)
        onnx_model._load_libraries.cache_clear()
        return made

    return make


def placed(write_onnx: WriteOnnx, *providers: str, **settings: Any) -> Placement:
    model = OnnxModel(identity(write_onnx, ["N", 3]), settings=ExecutionSettings(providers, **settings))
    (answer,) = model.run(model.feeds([np.ones(3, np.float32).tobytes()], [(1, 3)]))
    assert answer.tolist() == [[1, 1, 1]]
    return model.placement


def test_a_session_runs_on_what_is_preferred(
    write_onnx: WriteOnnx, runtime: Callable[..., Runtime], capsys: pytest.CaptureFixture[str]
) -> None:
    made = runtime(lambda names: dict.fromkeys(names, 0) | {CUDA: 5, CPU: 1}, CUDA)
    assert placed(write_onnx, "cuda", "cpu", device=1) == Placement(("cuda",), 1, 6, "", is_told=True)
    ((first, last),) = made.asked
    assert (first[0], first[1]["device_id"], last) == (CUDA, "1", (CPU, {}))
    assert made.loaded == 1
    placed(write_onnx, "cuda")
    assert made.loaded == 1, "libraries are loaded once"
    assert capsys.readouterr().out == ""


def test_no_device_is_asked_for_where_none_is_set(write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model.onnxruntime, "get_available_providers", None)
    assert OnnxModel(identity(write_onnx, ["N", 3])).placement == Placement()


def test_what_is_behind_the_preferred_one_gets_what_that_cannot_run(
    write_onnx: WriteOnnx, runtime: Callable[..., Runtime]
) -> None:
    runtime(lambda _: {TENSORRT: 4, CUDA: 2, CPU: 0}, TENSORRT, CUDA)
    assert placed(write_onnx, "tensorrt", "cuda").devices == ("tensorrt", "cuda")


def test_a_provider_that_cannot_start_is_passed_over_and_told(
    write_onnx: WriteOnnx, runtime: Callable[..., Runtime]
) -> None:
    """As onnxruntime does it: the session opens, and has lost the provider."""
    made = runtime(lambda names: {CUDA: 3, CPU: 0} if names[0] == CUDA else {CPU: 3}, TENSORRT, CUDA)
    note = "tensorrt cannot start: its libraries, its driver or its device are not there"
    assert placed(write_onnx, "tensorrt", "cuda", "cpu") == Placement(("cuda",), 0, 3, note, is_told=True)
    assert [[name for name, _ in asked] for asked in made.asked] == [[TENSORRT, CUDA, CPU], [CUDA, CPU]]


def test_the_cpu_is_gone_back_to_where_it_is_listed(write_onnx: WriteOnnx, runtime: Callable[..., Runtime]) -> None:
    runtime(lambda _: {CPU: 3}, CUDA)
    note = "cuda cannot start: its libraries, its driver or its device are not there"
    assert placed(write_onnx, "cuda", "cpu") == Placement(note=note, is_told=True)
    with pytest.raises(InvalidInputError) as caught:
        placed(write_onnx, "cuda")
    assert str(caught.value) == f"{note}; execution.providers does not list cpu"


def test_a_provider_that_runs_no_node_counts_for_nothing(
    write_onnx: WriteOnnx, runtime: Callable[..., Runtime]
) -> None:
    runtime(lambda names: dict.fromkeys(names, 0) | {CPU: 4}, CUDA)
    assert placed(write_onnx, "cuda", "cpu") == Placement(note="none of its nodes runs on cuda", is_told=True)
    with pytest.raises(InvalidInputError, match="none of its nodes runs on cuda; execution"):
        placed(write_onnx, "cuda")


def test_what_is_not_offered_is_told_on_the_engine_and_refused_alone(
    write_onnx: WriteOnnx, runtime: Callable[..., Runtime]
) -> None:
    made = runtime(lambda _: {CPU: 3})
    assert placed(write_onnx, "openvino", "cpu").note.startswith(
        "the installed onnxruntime does not offer openvino; run: "
    )
    assert len(made.asked) == 1
    with pytest.raises(InvalidInputError, match="pip install onnxruntime-openvino"):
        placed(write_onnx, "openvino")


PLUGINS = """/src/python/onnxruntime_pybind_state.cc:729 void onnxruntime::python::RegisterPlugins(PySessionOptions&, const \
onnxruntime::ProviderOptions&) Please install TensorRT libraries"""
MEMORY = """[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: /src/core/framework/bfc_arena.cc:360 void* \
onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Available memory of 8 is smaller than requested \
bytes of 16
"""
DEVICE = """/src/cuda_execution_provider_info.cc:63 static onnxruntime::CUDAExecutionProviderInfo onnxruntime::From(const \
onnxruntime::ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:187 Parse Failed to parse provider \
option "device_id":
 no such device"""


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (PLUGINS, "Please install TensorRT libraries"),
        (MEMORY, "Exception during initialization: Available memory of 8 is smaller than requested bytes of 16"),
        (DEVICE, 'Failed to parse provider option "device_id": no such device'),
    ],
)
def test_an_error_of_a_provider_is_told_without_places_in_its_source(
    write_onnx: WriteOnnx, runtime: Callable[..., Runtime], raised: str, said: str
) -> None:
    def gets(names: list[str]) -> Nodes:
        if names[0] == CUDA:
            raise RuntimeError(raised)
        return {CPU: 1}

    runtime(gets, CUDA)
    assert placed(write_onnx, "cuda", "cpu").note == f"cuda cannot run it: {said}"
    with pytest.raises(InvalidInputError) as caught:
        placed(write_onnx, "cuda")
    assert str(caught.value) == f"cuda cannot run it: {said}; execution.providers does not list cpu"
    assert str(caught.value.__cause__) == raised


def test_a_file_that_nothing_can_run_is_refused_as_ever(
    tmp_path: Path, write_onnx: WriteOnnx, runtime: Callable[..., Runtime]
) -> None:
    def gets(_: list[str]) -> Nodes:
        raise RuntimeError("no such operator")

    runtime(gets, CUDA)
    with pytest.raises(InvalidInputError, match=r"^model\.onnx cannot be loaded by onnxruntime: no such operator$"):
        placed(write_onnx, "cuda", "cpu")


@pytest.mark.filterwarnings("ignore:Duplicate provider")
def test_the_installed_onnxruntime_says_what_runs_where(write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real session, under the one provider that every onnxruntime has, as if that were a device."""
    monkeypatch.setitem(PROVIDERS, "cuda", PROVIDERS["cpu"])
    model = OnnxModel(identity(write_onnx, ["N", 3]), settings=ExecutionSettings(("cuda",)))
    assert model.placement == Placement(("cuda",), 1, 1, "", is_told=True)
    assert onnx_model.available() == tuple(onnx_model.onnxruntime.get_available_providers())


@pytest.mark.skipif(AZURE not in onnx_model.available(), reason="this onnxruntime has no second provider")
def test_the_installed_onnxruntime_says_what_runs_nothing(
    write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real session again: the provider of Azure starts everywhere, and runs none of a graph's usual nodes."""
    monkeypatch.setitem(PROVIDERS, "cuda", Provider(AZURE, "onnxruntime"))
    assert placed(write_onnx, "cuda", "cpu") == Placement(note="none of its nodes runs on cuda", is_told=True)


def test_a_closed_model_has_no_session_and_answers_nothing(write_onnx: WriteOnnx) -> None:
    """Whoever still refers to it: a device's memory is needed by the next version."""
    model = OnnxModel(identity(write_onnx, ["N", 3]))
    session = ref(model._session)
    feeds = model.feeds([np.ones(3, np.float32).tobytes()], [(1, 3)])
    model.close()
    assert session() is None
    with pytest.raises(ModelFailedError):
        model.run(feeds)
    assert model.signature.is_batched


def scaled(write_onnx: WriteOnnx, *, ir_version: int = 8) -> Path:
    """`y = x * scale`, of which the scale is an input with the default 2."""
    path = write_onnx(
        [("Mul", ["x", "scale"], ["y"], {})],
        inputs=[("x", "FP32", ["N", 2]), ("scale", "FP32", [1])],
        outputs=[("y", "FP32", ["N", 2])],
        constants={"scale": np.array([2], np.float32)},
    )
    model = onnx.load(path)
    model.ir_version = ir_version
    onnx.save(model, path)
    return path


def test_a_constant_that_is_an_input_too_is_optional(write_onnx: WriteOnnx) -> None:
    model = OnnxModel(scaled(write_onnx))
    assert [spec.name for spec in model.signature.inputs] == ["x"]
    assert model.signature.optional == (TensorInfo("scale", "FP32", (1,), is_optional=True),)
    assert model.signature.is_batched
    feeds = model.feeds([np.ones(2, np.float32).tobytes()], [(1, 2)])
    (by_default,) = model.run(feeds)
    (given,) = model.run(feeds | model.given_feeds([GivenTensor("scale", np.array([5], np.float32).tobytes(), (1,))]))
    assert (by_default.tolist(), given.tolist()) == ([[2, 2]], [[5, 5]])


def test_constants_of_old_files_are_inputs_in_name_alone(write_onnx: WriteOnnx) -> None:
    assert OnnxModel(scaled(write_onnx, ir_version=3)).signature.optional == ()


def test_sizes_have_sessions_of_their_own_which_share_the_memory(
    write_onnx: WriteOnnx, runtime: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runtime(lambda _: {CUDA: 1}, CUDA)
    settings = ExecutionSettings(("cuda",), memory_mib=70)
    model = OnnxModel(identity(write_onnx, ["N", 3]), settings=settings)
    asked: list[int] = []

    def opened(open_run: Any, outputs: Any, feeds_of: Any, most: int) -> dict[int, Sized]:
        asked.append(most)
        runs = {size: open_run() for size in (1, 4)}
        assert [run(outputs, feeds_of(size))[0].shape for size, run in runs.items()] == [(1, 3), (4, 3)]
        return {size: Sized(run, 1.0) for size, run in runs.items()}

    monkeypatch.setattr(sized_batches, "opened", opened)
    sizes = model.run_in_sizes(lambda rows: {"x": np.zeros((rows, 3), np.float32)}, 100)
    assert (sizes, asked, model.placement.sizes) == ((1, 4), [100], (1, 4))
    limits = [int(options["gpu_mem_limit"]) >> 20 for ((_, options), *_) in made.asked]
    assert limits == [70, 10, 10]
    rows = np.arange(18, dtype=np.float32).reshape(6, 3)
    (answer,) = model.run({"x": rows})
    assert np.array_equal(answer, rows)
    assert model.run_in_sizes(lambda rows: {}, 100) == (), "it runs so already"
    model.close()
    with pytest.raises(ModelFailedError):
        model.run({"x": rows})


def test_sizes_are_not_for_the_cpu_nor_where_they_are_not_worth_it(
    write_onnx: WriteOnnx, runtime: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = identity(write_onnx, ["N", 3])

    def feeds(rows: int) -> dict[str, Any]:
        return {"x": np.zeros((rows, 3), np.float32)}

    assert OnnxModel(path).run_in_sizes(feeds, 100) == ()
    runtime(lambda _: {CUDA: 1}, CUDA)
    model = OnnxModel(path, settings=ExecutionSettings(("cuda",)))
    monkeypatch.setattr(sized_batches, "opened", lambda *_: {})
    assert model.run_in_sizes(feeds, 100) == ()
    assert model.run(feeds(2))[0].shape == (2, 3), "as before"


def test_a_second_session_that_cannot_have_the_device_is_none(
    write_onnx: WriteOnnx, runtime: Callable[..., Runtime]
) -> None:
    gets = [{CUDA: 1}, {CPU: 1}]
    runtime(lambda _: gets[0] if len(gets) == 1 else gets.pop(0), CUDA)
    model = OnnxModel(identity(write_onnx, ["N", 3]), settings=ExecutionSettings(("cuda", "cpu")))
    assert model.run_in_sizes(lambda rows: {"x": np.zeros((rows, 3), np.float32)}, 100) == ()
