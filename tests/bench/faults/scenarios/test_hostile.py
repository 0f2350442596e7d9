"""The hostile requests themselves: as many as said, each kind different where it says so, and parsed as they should be."""

import pytest

from bench.faults.scenarios import hostile
from penstock import inference_pb2 as pb
from penstock_server.prediction.parse_cache import ParseCache

COUNT = 300


@pytest.mark.long
@pytest.mark.parametrize("name", hostile.KINDS)
def test_each_kind_has_messages_that_fit_in_memory(name) -> None:
    messages = hostile.KINDS[name].messages(COUNT)
    assert 0 < len(messages) <= max(COUNT, 1000)
    assert sum(map(len, messages)) < 100_000_000


@pytest.mark.parametrize("name", ["layouts, outputs named again", "heads for the parse cache", "huge names"])
def test_messages_that_fill_caches_all_differ(name) -> None:
    messages = hostile.KINDS[name].messages(COUNT)
    assert len({bytes(each) for each in messages}) == COUNT


def test_layouts_choose_outputs_in_many_orders() -> None:
    asked = [pb.ModelInferRequest.FromString(each) for each in hostile.KINDS["layouts, chosen outputs"].messages(COUNT)]
    chosen = [tuple(output.name for output in each.outputs) for each in asked]
    assert all(len(set(names)) == len(names) for names in chosen)
    assert len(set(chosen)) > COUNT // 2


def test_heads_are_of_plain_requests_which_alone_are_cached() -> None:
    for message in hostile.KINDS["heads for the parse cache"].messages(COUNT):
        asked = pb.ModelInferRequest.FromString(message)
        assert ParseCache().put(message, asked) is not None
