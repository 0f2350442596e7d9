from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_server.batching.limits import ModelLimits
from penstock_server.batching.policy import RequestPolicy
from penstock_server.batching.priorities import DEFAULT
from penstock_server.errors import InvalidInputError
from penstock_server.models import triton_config
from penstock_server.models.triton_config import TritonConfig, read

BATCHED = "max_batch_size: 8 "


def config(folder: Path, text: str, **files: str) -> TritonConfig:
    (folder / "config.pbtxt").write_text(text)
    for name, content in files.items():
        (folder / name).write_text(content)
    found = read(folder)
    assert found is not None
    return found


def test_most_models_have_none(tmp_path: Path) -> None:
    assert read(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "batching", "limits"),
    [
        ("", None, ModelLimits()),
        ("input { name: 'x' dims: 2 }", "request", ModelLimits()),
        ("max_batch_size: 0", "request", ModelLimits()),
        (BATCHED, None, ModelLimits(max_rows=8)),
        (BATCHED + "dynamic_batching { }", "rows", ModelLimits(max_rows=8)),
        (
            BATCHED + "dynamic_batching { preferred_batch_size: [ 8, 4 ] max_queue_delay_microseconds: 100 "
            "default_queue_policy { max_queue_size: 7 } }",
            "rows",
            ModelLimits(max_rows=8, max_delay_s=1e-4, queue_requests=7, ready_rows=4),
        ),
    ],
)
def test_how_requests_are_batched(tmp_path: Path, text: str, batching: str | None, limits: ModelLimits) -> None:
    found = config(tmp_path, text)
    assert (found.batching, found.limits) == (batching, limits)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", None),
        (BATCHED + "dynamic_batching { }", None),
        (
            BATCHED + "dynamic_batching { priority_levels: 3 default_priority_level: 2 }",
            RequestPolicy(levels=3, default_level=2),
        ),
        (
            BATCHED + "dynamic_batching { default_queue_policy { default_timeout_microseconds: 2000 } }",
            RequestPolicy(timeout_s=0.002, takes_timeouts=False),
        ),
        (
            BATCHED + "dynamic_batching { default_queue_policy { default_timeout_microseconds: 2000 "
            "allow_timeout_override: true } }",
            RequestPolicy(timeout_s=0.002),
        ),
        (
            BATCHED + "dynamic_batching { default_queue_policy { timeout_action: DELAY "
            "default_timeout_microseconds: 2000 } }",
            RequestPolicy(timeout_s=inf, takes_timeouts=False),
        ),
    ],
)
def test_priorities_and_timeouts(tmp_path: Path, text: str, policy: RequestPolicy | None) -> None:
    assert config(tmp_path, text).policy == policy


def test_files_that_it_names(tmp_path: Path) -> None:
    text = "default_model_filename: 'net.onnx' output { name: 'y' label_filename: 'names' } output { name: 'z' }"
    found = config(tmp_path, text, names="cat\n dog \n\nfish\n")
    assert found.model_file == "net.onnx"
    assert found.labels == {"y": ("cat", "dog", "", "fish")}


def test_threads_and_devices(tmp_path: Path) -> None:
    found = config(tmp_path, "parameters { key: 'intra_op_thread_count' value { string_value: '4' } }")
    assert (found.threads, found.is_for_cpu, found.is_for_device, found.notes) == (4, False, False, ())
    assert config(tmp_path, "instance_group { kind: KIND_CPU }").is_for_cpu
    assert config(tmp_path, "instance_group { kind: KIND_GPU gpus: 1 }").is_for_device
    assert config(tmp_path, "instance_group { kind: KIND_GPU gpus: 1 }").notes == (
        "instance_group.gpus: the device is the setting execution.device",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("instance_group { count: 2 }", ["instance_group.count"]),
        ("instance_group { rate_limiter { priority: 1 } }", ["instance_group.rate_limiter"]),
        (
            BATCHED + "dynamic_batching { preserve_ordering: true priority_levels: 30 default_priority_level: 2 "
            "priority_queue_policy { key: 1 value { max_queue_size: 4 } } "
            "default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 9 } }",
            ["timeout_action DELAY", "priority_queue_policy", "preserve_ordering", "priority_levels"],
        ),
        (
            "optimization { graph { level: -1 } cuda { graphs: true } priority: PRIORITY_MAX execution_accelerators { } }",
            ["optimization.graph.level", "execution_accelerators", "optimization.priority", "optimization.cuda"],
        ),
        (
            "parameters { key: 'execution_mode' value { string_value: '0' } } parameters { key: 'mine' }",
            ["parameters 'mine'"],
        ),
        ("response_cache { enable: true }", []),
        ("metric_tags { key: 'a' value: 'b' } model_metrics { metric_control { } }", ["metric_tags", "model_metrics"]),
        ("input { name: 'x' is_non_linear_format_io: true }", ["is_non_linear_format_io"]),
    ],
)
def test_what_means_nothing_here_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    notes = config(tmp_path, text).notes
    assert len(notes) == len(words)
    for note, word in zip(notes, words, strict=True):
        assert word in note


def test_no_more_is_named_than_people_read(tmp_path: Path) -> None:
    notes = config(tmp_path, " ".join(f"parameters {{ key: 'p{at}' }}" for at in range(500))).notes
    assert len(notes) == triton_config.MAX_NOTES + 1
    assert notes[-1] == "and 480 more"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nome: 'm'", 'line 1, column 1: Message type "inference.ModelConfig" has no field named "nome"'),
        ("name: 'other'", "it is of model 'other', expected the folder's name 'm'"),
        ("platform: 'pytorch_libtorch'", "platform 'pytorch_libtorch' is not served, expected 'onnxruntime_onnx'"),
        ("backend: 'python'", "backend 'python' is not served, expected 'onnxruntime'"),
        ("runtime: 'x'", "runtime 'x' is not served"),
        ("sequence_batching { }", "sequence_batching is not served, and without it answers would differ"),
        ("model_transaction_policy { decoupled: true }", "model_transaction_policy.decoupled is not served"),
        ("batch_input { kind: BATCH_ELEMENT_COUNT }", "batch_input and batch_output is not served"),
        ("model_operations { op_library_filename: 'x.so' }", "op_library_filename is not served"),
        ("model_repository_agents { agents { name: 'checksum' } }", "model_repository_agents is not served"),
        ("input { name: 'x' allow_ragged_batch: true }", "allow_ragged_batch of input 'x' is not served"),
        ("output { name: 'y' is_shape_tensor: true }", "is_shape_tensor of 'y' is not served"),
        ("max_batch_size: -1", "max_batch_size is -1, expected 0 to 1,048,576"),
        ("input { dims: 1 }", "an input has no name"),
        ("input { name: 'x' } input { name: 'x' }", "input 'x' is declared twice"),
        ("input { name: 'x' dims: 0 }", r"dims of input 'x' are \[0\], expected sizes, or -1"),
        (
            "output { name: 'y' dims: [4] reshape { shape: [3] } }",
            r"from \[4\] to \[3\] changes the number of elements",
        ),
        ("input { name: 'x' dims: [-1, -1] reshape { shape: [-1] } }", "several dims of any size"),
        ("dynamic_batching { }", "dynamic_batching is given and max_batch_size is 0"),
        (
            BATCHED + "dynamic_batching { preferred_batch_size: 9 }",
            "preferred_batch_size has 9, expected 1 to max_batch_size",
        ),
        (
            BATCHED + "dynamic_batching { priority_levels: 2 }",
            "default_priority_level is 0, expected 1 to priority_levels",
        ),
        ("version_policy { specific { versions: -2 } }", "version_policy names versions"),
        ("output { name: 'y' label_filename: '../secret' }", "file name '../secret' is refused"),
        ("output { name: 'y' label_filename: 'none' }", "file 'none' is missing"),
        (
            "parameters { key: 'intra_op_thread_count' value { string_value: '-1' } }",
            "is '-1', expected a whole number",
        ),
        ("parameters { key: 'intra_op_thread_count' value { string_value: '999' } }", "is 999, expected 0 to 256"),
        ("max_batch_size: 1 max_batch_size: 2", "multiple"),
        ("\0", "line 1, column 1"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, words: str) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    with pytest.raises(InvalidInputError, match=words) as caught:
        config(folder, text)
    assert str(caught.value).startswith("config.pbtxt: ")


def test_a_file_is_bounded_and_text(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_bytes(b"\xff")
    with pytest.raises(InvalidInputError, match="it is no text in UTF-8"):
        read(tmp_path)
    (tmp_path / "config.pbtxt").write_bytes(b"#" * (triton_config.MAX_BYTES + 1))
    with pytest.raises(InvalidInputError, match="is too large; expected at most 1,048,576 bytes"):
        read(tmp_path)


def test_a_file_elsewhere_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("name: 'm'")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.pbtxt").symlink_to(tmp_path / "outside")
    with pytest.raises(InvalidInputError, match="leaves the version's folder"):
        read(tmp_path / "m")


_TEXT = (
    "name: 'm' backend: 'onnxruntime' max_batch_size: 8 input [ { name: 'x' data_type: TYPE_FP32 dims: [ 3, -1 ] } ] "
    "dynamic_batching { preferred_batch_size: [ 4 ] } instance_group [ { kind: KIND_CPU count: 1 } ] "
    "model_warmup { name: 'w' inputs { key: 'x' value { zero_data: true } } } version_policy: { latest { num_versions: 2 } }"
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_ends_in_a_sentence(tmp_path: Path, data: Any) -> None:
    text = list(_TEXT)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 12))] = data.draw(st.text(max_size=8))
    (tmp_path / "config.pbtxt").write_text("".join(text), encoding="utf-8", errors="replace", newline="")
    with suppress(InvalidInputError):
        found = read(tmp_path)
        assert found is not None
        assert isinstance(found.limits, ModelLimits)
        assert found.policy is None or found.policy.priority(0) == DEFAULT


@pytest.mark.parametrize(
    ("text", "declared"),
    [("", None), ("response_cache { enable: true }", True), ("response_cache { enable: false }", False),
     ("response_cache { }", False)],
)  # fmt: skip
def test_whether_answers_are_to_be_kept(tmp_path: Path, text: str, declared: bool | None) -> None:
    assert config(tmp_path, text).caches_responses is declared
