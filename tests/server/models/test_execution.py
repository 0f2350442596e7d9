from typing import Any

import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.models.execution import (
    PROVIDERS,
    ExecutionSettings,
    OwnExecutionSettings,
    Placement,
    arguments,
    missing,
    offered,
)

ALL = [provider.name for provider in PROVIDERS.values()]
PLAIN = ["AzureExecutionProvider", "CPUExecutionProvider"]
GPU = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"providers": ()}, "execution.providers is empty, expected at least one provider"),
        (
            {"providers": ("gpu",)},
            "execution.providers has 'gpu'; expected some of tensorrt, cuda, migraphx, rocm, openvino, cpu",
        ),
        ({"providers": ("cuda", "cuda")}, "execution.providers is ['cuda', 'cuda'], expected each once"),
        (
            {"providers": ("cpu", "cuda")},
            "execution.providers is ['cpu', 'cuda'], expected 'cpu' at the end, because it runs all",
        ),
        ({"providers": ("cuda",), "device": -1}, "execution.device is -1, expected 0 or more"),
        ({"providers": ("cuda",), "memory_mib": 0}, "execution.memory_mib is 0, expected at least 1"),
        (
            {"options": {"cud": {}}},
            "execution.options.cud is of no provider; expected some of tensorrt, cuda, migraphx, rocm, openvino, cpu",
        ),
        (
            {"models": {"m": OwnExecutionSettings(("cudaa",))}},
            "execution.models.m.providers has 'cudaa'; expected some of tensorrt, cuda, migraphx, rocm, openvino, cpu",
        ),
        ({"models": {"m": OwnExecutionSettings(device=-2)}}, "execution.models.m.device is -2, expected 0 or more"),
    ],
)
def test_settings_check_themselves(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ExecutionSettings(**given)
    assert str(caught.value) == said


def test_a_model_has_its_own_values() -> None:
    own = OwnExecutionSettings(("cuda",), device=1, options={"cuda": {"use_tf32": False}})
    settings = ExecutionSettings(
        ("cuda", "cpu"),
        memory_mib=512,
        options={"cuda": {"use_tf32": True, "a": 1}, "tensorrt": {"b": 2}},
        models={"fraud": own, "tiny": OwnExecutionSettings(("cpu",))},
    )
    fraud, other = settings.of("fraud"), settings.of("other")
    assert (fraud.providers, fraud.device, fraud.memory_mib) == (("cuda",), 1, 512)
    assert fraud.options == {"cuda": {"use_tf32": False, "a": 1}, "tensorrt": {"b": 2}}
    assert (other.providers, other.device, other.options) == (("cuda", "cpu"), 0, settings.options)
    assert not settings.of("tiny").has_device
    assert [(name, each.providers) for name, each in settings.each()] == [
        ("execution", ("cuda", "cpu")),
        ("execution.models.fraud", ("cuda",)),
        ("execution.models.tiny", ("cpu",)),
    ]


@pytest.mark.parametrize(
    ("providers", "has_device", "allows_cpu"),
    [(("cpu",), False, True), (("cuda",), True, False), (("tensorrt", "cuda", "cpu"), True, True)],
)
def test_a_list_says_where_a_graph_may_run(providers: tuple[str, ...], has_device: bool, allows_cpu: bool) -> None:
    settings = ExecutionSettings(providers)
    assert (settings.has_device, settings.allows_cpu) == (has_device, allows_cpu)


@pytest.mark.parametrize(
    ("providers", "available", "expected"),
    [
        (("cpu",), PLAIN, ("cpu",)),
        (("cuda", "cpu"), PLAIN, ("cpu",)),
        (("cuda", "cpu"), GPU, ("cuda", "cpu")),
        (("tensorrt", "cuda"), GPU, ("tensorrt", "cuda")),
        (("openvino", "cuda"), GPU, ("cuda",)),
        (("rocm", "migraphx"), ALL, ("rocm", "migraphx")),
    ],
)
def test_what_is_offered_is_taken_in_the_order_of_the_list(
    providers: tuple[str, ...], available: list[str], expected: tuple[str, ...]
) -> None:
    assert offered(ExecutionSettings(providers), available) == expected


def test_a_list_of_which_nothing_is_offered_is_refused_with_what_brings_it() -> None:
    with pytest.raises(InvalidInputError) as caught:
        offered(ExecutionSettings(("tensorrt", "cuda", "openvino")), PLAIN)
    assert str(caught.value) == (
        "the installed onnxruntime does not offer tensorrt or cuda or openvino; run: pip uninstall onnxruntime, then: "
        "pip install onnxruntime-gpu, or pip install onnxruntime-openvino (each is the module onnxruntime, so only one may "
        "be installed)"
    )


def test_what_is_passed_over_is_told() -> None:
    assert missing(ExecutionSettings(("cuda", "cpu")), GPU) == ""
    assert missing(ExecutionSettings(("openvino", "cuda", "cpu")), GPU).startswith(
        "the installed onnxruntime does not offer openvino; run: pip uninstall onnxruntime, then: "
        "pip install onnxruntime-openvino ("
    )


def test_a_session_gets_options_as_texts_and_the_cpu_last() -> None:
    settings = ExecutionSettings(
        ("tensorrt", "cuda"),
        device=2,
        memory_mib=3,
        options={
            "cuda": {"use_tf32": True, "tunable_op_enable": False, "own": 0.5},
            "tensorrt": {"trt_fp16_enable": True},
        },
    )
    assert arguments(settings, ("tensorrt", "cuda")) == [
        (
            "TensorrtExecutionProvider",
            {"device_id": "2", "trt_max_workspace_size": "3145728", "trt_fp16_enable": "1"},
        ),
        (
            "CUDAExecutionProvider",
            {
                "arena_extend_strategy": "kSameAsRequested",
                "cudnn_conv_algo_search": "HEURISTIC",
                "use_tf32": "1",
                "device_id": "2",
                "gpu_mem_limit": "3145728",
                "tunable_op_enable": "0",
                "own": "0.5",
            },
        ),
        ("CPUExecutionProvider", {}),
    ]
    openvino = ExecutionSettings(("openvino", "cpu"), memory_mib=3, options={"openvino": {"device_type": "GPU"}})
    assert arguments(openvino, ("openvino", "cpu"))[0] == ("OpenVINOExecutionProvider", {"device_type": "GPU"})
    assert arguments(openvino, ("cpu",)) == [("CPUExecutionProvider", {})]


@pytest.mark.parametrize(
    ("placement", "reason", "is_shared", "told"),
    [
        (Placement(), "onnxruntime: why", False, "onnxruntime: why"),
        (Placement(("cuda",), 0, 7, is_told=True), "onnxruntime: why", False, "onnxruntime on cuda: why"),
        (
            Placement(("tensorrt", "cuda"), 2, 9, is_told=True),
            "onnxruntime: why",
            False,
            "onnxruntime on tensorrt and cuda and cpu: the CPU runs 2 of 9 nodes; why",
        ),
        (
            Placement((), note="cuda cannot start", is_told=True),
            "onnxruntime: why",
            False,
            "onnxruntime on cpu: cuda cannot start; why",
        ),
        (
            Placement((), note="cuda cannot start", is_told=True),
            "kernels: fast",
            False,
            "kernels: cuda cannot start; fast",
        ),
        (
            Placement(("cuda",), 0, 7, is_told=True),
            "kernels up to 16 rows: fast",
            True,
            "kernels up to 16 rows, else onnxruntime on cuda: fast",
        ),
        (Placement(("cuda",), 0, 7, is_told=True), "kernels: fast", False, "kernels: fast"),
        (
            Placement(("cuda",), 0, 7, is_told=True, sizes=(1, 4, 1024)),
            "onnxruntime: why",
            False,
            "onnxruntime on cuda: in batches of 1, 4, 1024 rows; why",
        ),
    ],
)
def test_the_engine_says_what_a_graph_runs_on(placement: Placement, reason: str, is_shared: bool, told: str) -> None:
    assert placement.told(reason, is_shared=is_shared) == told
