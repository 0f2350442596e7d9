import gc
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import inference_pb2 as pb
from penstock.names import ATTRIBUTIONS
from penstock_server.models.signature import ANY, TensorInfo
from penstock_server.parse import parse
from penstock_server.prediction import predictor as predictor_module
from penstock_server.prediction.parse_cache import (
    MAX_CACHE_BYTES,
    MAX_HEAD_BYTES,
    MAX_HEADS,
    MAX_LENGTHS,
    MAX_PARTS,
    ParseCache,
)
from penstock_server.prediction.predictor import Predictor
from penstock_server.prediction.routing_table import RoutingTable, ServedModel
from penstock_server.rollout.plan import TrafficPlan
from tests.examples import examples


def message_of(x: Any, **fields: Any) -> bytes:
    array = np.asarray(x, "<f8")
    request = pb.ModelInferRequest(**{"model_name": "m", **fields})
    request.inputs.add(name="x", datatype="FP64", shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    encoded: bytes = request.SerializeToString()
    return encoded


def put(cache: ParseCache, message: bytes) -> Any:
    return cache.put(message, pb.ModelInferRequest.FromString(message))


ROW, OTHER = message_of([[1, 2]]), message_of([[3, 4]])


def test_a_message_with_other_contents_finds_what_is_cached() -> None:
    cache = ParseCache()
    assert cache.find(ROW) is None
    cached: Any = put(cache, ROW)
    assert OTHER[cached.size :] == np.array([3.0, 4.0]).tobytes()
    assert (cached.model, cached.version) == ("m", "")
    assert cache.find(OTHER) is cached


@pytest.mark.parametrize(
    "message",
    [message_of([[1, 2], [3, 4]]), message_of([[3, 4]], model_name="n"), OTHER[:-1], OTHER + b"\0", b""],
)
def test_another_request_finds_nothing(message: bytes) -> None:
    cache = ParseCache()
    put(cache, ROW)
    assert cache.find(message) is None


PARAMETERS = {"timeout": pb.InferParameter(int64_param=5)}
TYPED = pb.ModelInferRequest(model_name="m")
TYPED.inputs.add(name="x", datatype="FP64", shape=[1, 2]).contents.fp64_contents.extend([1, 2])


@pytest.mark.parametrize(
    "message",
    [
        message_of([[1, 2]], id="7"),
        message_of([[1, 2]], parameters=PARAMETERS),
        message_of(np.empty((0, 2))),
        message_of([[1, 2]], model_name="m" * MAX_HEAD_BYTES),
        TYPED.SerializeToString(),
        ROW + ROW,
        # Unknown fields after the contents that look like them: what is before the last two bytes is a whole message.
        pb.ModelInferRequest(inputs=TYPED.inputs, raw_input_contents=[b"\x78\x01"]).SerializeToString()
        + b"\x78\x01" * 2,
        # Two tensors, of which one has raw contents.
        pb.ModelInferRequest(inputs=[*TYPED.inputs, *TYPED.inputs], raw_input_contents=[b"ab"]).SerializeToString(),
        # Raw contents first, and a name that ends as they do.
        b"\x3a\x02ab" + pb.ModelInferRequest(model_name="\x3a\x02ab").SerializeToString(),
    ],
)
def test_what_differs_in_more_than_its_contents_is_not_cached(message: bytes) -> None:
    cache = ParseCache()
    assert put(cache, message) is None
    assert cache.find(message) is None


def test_the_longest_head_is_cached() -> None:
    bare = len(message_of([[1, 2]])) - 16
    # The name's own length takes one more byte from 128 characters on, and another one from 16,384 on.
    name = next(
        "m" * length
        for length in range(MAX_HEAD_BYTES - bare - 4, MAX_HEAD_BYTES)
        if len(message_of([[1, 2]], model_name="m" * length)) - 16 == MAX_HEAD_BYTES
    )
    cache = ParseCache()
    assert put(cache, message_of([[1, 2]], model_name=name)) is not None
    assert put(cache, message_of([[1, 2]], model_name=name + "m")) is None


def test_what_is_cached_is_bounded_and_holds_no_contents() -> None:
    cache = ParseCache()
    for length in range(2 * MAX_LENGTHS):
        for name in "abcdefg":
            put(cache, message_of(np.ones(length + 1), model_name=name))
    held = cache._by_length
    assert len(held) <= MAX_LENGTHS
    assert all(len(heads) <= MAX_HEADS for heads in held.values())
    assert all(cached.request.ByteSize() < MAX_HEAD_BYTES for heads in held.values() for cached in heads)


def test_the_oldest_head_of_a_length_makes_room() -> None:
    cache = ParseCache()
    messages = [message_of([[1, 2]], model_name=name) for name in "abcdefgh"[: MAX_HEADS + 1]]
    for message in messages:
        put(cache, message)
    assert cache.find(messages[0]) is None
    found = [cache.find(message) for message in messages[1:]]
    assert cache._bytes == sum(cached.size for cached in found if cached)
    assert [cached and cached.model for cached in found] == list("abcdefgh"[1 : MAX_HEADS + 1])


def test_too_many_lengths_start_over() -> None:
    cache = ParseCache()
    messages = [message_of(np.ones(length + 1)) for length in range(MAX_LENGTHS + 1)]
    for message in messages[:MAX_LENGTHS]:
        put(cache, message)
    put(cache, message_of(np.ones(1), model_name="n"))  # a length that is known needs no room
    assert all(cache.find(message) for message in messages[:MAX_LENGTHS])
    put(cache, messages[MAX_LENGTHS])
    assert cache.find(messages[MAX_LENGTHS])
    assert not any(cache.find(message) for message in messages[:MAX_LENGTHS])


class CountingDecoder:
    """Counts how a decoder is asked."""

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        self.asked: list[str] = []

    def decode(self, request: Any) -> Any:
        self.asked.append("decode")
        return self.decoder.decode(request)

    def decode_like(self, *others: Any) -> Any:
        self.asked.append("decode_like")
        return self.decoder.decode_like(*others)


def test_the_second_request_is_neither_parsed_nor_decoded_in_full(
    executor_of: Any,
    fake_servable: Any,
    fake_report: Any,
    fake_clock: Any,
    fake_call: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed: list[bytes] = []

    def counted_parse(kind: Any, message: bytes, protocol: str) -> Any:
        parsed.append(message)
        return parse(kind, message, protocol)

    monkeypatch.setattr(predictor_module, "parse", counted_parse)
    executors = {version: executor_of(fake_servable(key=("m", version))) for version in "12"}
    for executor in executors.values():
        executor.decoder = CountingDecoder(executor.decoder)
    predictor = Predictor(clock=fake_clock(), report=fake_report())

    predictor.routing_table = RoutingTable({"m": ServedModel("m", TrafficPlan("1"), executors)})

    def ask(message: bytes, champion: str) -> list[str]:
        # Swapped behind the predictor's back: a new table empties the cache.
        predictor._routing_table = RoutingTable({"m": ServedModel("m", TrafficPlan(champion), executors)})
        asked = executors[champion].decoder.asked
        asked.clear()
        predictor.infer(message, fake_call())
        return list(asked)

    assert ask(ROW, "1") == ["decode"]
    assert ask(OTHER, "1") == ["decode_like"]
    assert parsed == [ROW]
    assert ask(OTHER, "2") == ["decode"]  # another version has not seen the head
    assert ask(ROW, "2") == ["decode_like"]
    assert parsed == [ROW, OTHER]


def test_a_new_routing_table_lets_go_of_old_decoders(
    executor_of: Any, fake_servable: Any, fake_report: Any, fake_clock: Any, fake_call: Any
) -> None:
    predictor = Predictor(clock=fake_clock(), report=fake_report())
    executor = executor_of(fake_servable())
    decoder = executor.decoder = CountingDecoder(executor.decoder)
    predictor.routing_table = RoutingTable({"m": ServedModel("m", TrafficPlan("1"), {"1": executor})})
    predictor.infer(ROW, fake_call())
    gone = weakref.ref(decoder)
    predictor.routing_table = RoutingTable()
    executor.close()
    del executor, decoder
    gc.collect()
    assert gone() is None


def test_heads_of_other_models_are_kept() -> None:
    cache = ParseCache()
    for model in "mno":
        put(cache, message_of([[1, 2]], model_name=model))
        put(cache, message_of([[1, 2]] * 2, model_name=model))
    cache.forget({"m", "o", "never seen"})
    for model, is_kept in (("m", False), ("n", True), ("o", False)):
        found = [cache.find(message_of([[3, 4]] * rows, model_name=model)) for rows in (1, 2)]
        assert [one is not None for one in found] == [is_kept] * 2
    assert cache._bytes == sum(one.size for heads in cache._by_length.values() for one in heads)
    cache.forget({"n"})
    assert (cache._by_length, cache._bytes) == ({}, 0)


def test_what_is_cached_is_bounded_in_bytes() -> None:
    cache = ParseCache()
    for rows in range(1, 1000):
        put(cache, message_of([[1, 2]] * (rows % 250 + 1), model_name=f"{rows:0>900}"))
        heads = [cached.size for entries in cache._by_length.values() for cached in entries]
        assert cache._bytes == sum(heads) <= MAX_CACHE_BYTES


def many_outputs(request: pb.ModelInferRequest) -> None:
    for _ in range(MAX_PARTS):
        request.outputs.add()


def many_dimensions(request: pb.ModelInferRequest) -> None:
    request.inputs[0].shape.extend([1] * MAX_PARTS)


def parameters(request: pb.ModelInferRequest) -> None:
    request.inputs[0].parameters["p"].int64_param = 1


@pytest.mark.parametrize("change", [many_outputs, many_dimensions, parameters])
def test_a_small_head_that_parses_to_much_is_not_cached(change: Any) -> None:
    request = pb.ModelInferRequest.FromString(ROW)
    change(request)
    assert put(ParseCache(), request.SerializeToString()) is None


@pytest.mark.parametrize(("name", "explains"), [("y", False), (ATTRIBUTIONS, True)])
def test_as_many_outputs_as_may_be_are_cached_and_attributions_known_among_them(name: str, explains: bool) -> None:
    request = pb.ModelInferRequest.FromString(ROW)
    many_outputs(request)
    del request.outputs[MAX_PARTS - len(request.inputs[0].shape) :]
    request.outputs[0].name = name
    cached = put(ParseCache(), request.SerializeToString())
    assert cached is not None
    assert cached.explains == explains


MESSAGES = st.builds(
    message_of,
    st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=2),
    model_name=st.sampled_from(["m", "m", "n", "z"]),
    model_version=st.sampled_from(["", "", "1", "2", "@champion"]),
    outputs=st.lists(st.just({"name": "y"}) | st.just({"name": "z"}), max_size=2),
    id=st.sampled_from(["", "", "7"]),
)
DAMAGED = st.tuples(MESSAGES, st.integers(0, 200), st.integers(0, 255)).map(
    lambda drawn: drawn[0][: drawn[1] % len(drawn[0])] + bytes([drawn[2]]) + drawn[0][drawn[1] % len(drawn[0]) + 1 :]
)


@examples(150)
@given(
    messages=st.lists(MESSAGES | DAMAGED, max_size=8).map(lambda some: some * 2),
    champions=st.lists(st.sampled_from(["11", "12", "21", "22", "1", ""]), min_size=1, max_size=4),
)
def test_answers_do_not_depend_on_what_was_asked_before(
    executor_of: Any,
    fake_servable: Any,
    fake_report: Any,
    fake_clock: Any,
    fake_call: Any,
    messages: list[bytes],
    champions: list[str],
) -> None:
    wide, narrow = fake_servable(key=("m", "1")), fake_servable(key=("m", "2"))
    narrow.inputs = (TensorInfo("x", "FP64", (ANY, 1)),)
    executors = {"1": executor_of(wide), "2": executor_of(narrow)}
    # Of two models, of which often only one is routed otherwise than before.
    tables = [
        RoutingTable(
            {name: ServedModel(name, TrafficPlan(one), executors) for name, one in zip("mn", both, strict=False)}
        )
        for both in champions
    ]

    def new() -> Predictor:
        return Predictor(clock=fake_clock(), report=fake_report())

    def answer(predictor: Predictor, message: bytes, routing_table: RoutingTable) -> str:
        call = fake_call()
        predictor.routing_table = routing_table
        predictor.infer(message, call)
        for executor in executors.values():
            executor.run(0.0)
        if not isinstance(call.answer, bytes):
            return repr(call.answer)
        reply = pb.ModelInferResponse.FromString(call.answer)
        reply.ClearField("parameters")
        return str(reply)

    predictor = new()
    for number, message in enumerate(messages):
        routing_table = tables[number % len(tables)]
        assert answer(predictor, message, routing_table) == answer(new(), message, routing_table)
