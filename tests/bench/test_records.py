import pytest

from bench import records
from penstock import inference_pb2 as pb


def test_its_messages_have_ids_and_rows_as_the_loads_say() -> None:
    for load in records.LOADS.values():
        requests = [pb.ModelInferRequest.FromString(message) for message in records.requests(load)]
        ids = {request.id for request in requests}
        assert len(ids) == (len(requests) if load.has_ids else 1)
        assert ("" in ids) == (not load.has_ids)
        assert {request.inputs[0].shape[0] for request in requests} == {load.rows}


@pytest.mark.parametrize(
    ("name", "more", "status"),
    [("8x8, ids", 2.4, 0), ("8x8, ids", 2.6, 1), ("8x8, no ids", 1.1, 1), ("1x1, ids", 9.0, 0)],
)
def test_it_fails_above_the_cost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, more: float, status: int
) -> None:
    costs = {(load, is_recorded): [10.0] for load in records.LOADS for is_recorded in (False, True)}
    costs[name, True] = [10.0 + more]
    monkeypatch.setattr(records, "measure", lambda *_: costs)
    assert records.main([]) == status
    assert f"{name}: 10.00 us of CPU per call, recorded {10 + more:.2f} (+{more:.2f} us)" in capsys.readouterr().out
