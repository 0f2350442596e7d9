import pytest

from bench import routing
from penstock import inference_pb2 as pb


def test_its_messages_are_for_their_model_with_ids_or_without() -> None:
    for model, setup in routing.SETUPS.items():
        found = [pb.ModelInferRequest.FromString(message) for message in routing.requests(model)]
        assert {request.model_name for request in found} == {model}
        ids = {request.id for request in found}
        assert len(ids) == (len(found) if setup.has_ids else 1)
        assert ("" in ids) == (not setup.has_ids)


@pytest.mark.parametrize(
    ("model", "more", "status"),
    [
        ("canary-and-shadow", 0.4, 0),
        ("canary-and-shadow", 0.6, 1),
        ("canary-and-shadow-by-key", 0.6, 1),
        ("canary", 9, 0),
    ],
)
def test_it_fails_above_the_cost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: str, more: float, status: int
) -> None:
    costs = {name: [5.0] for name in routing.SETUPS}
    costs[model] = [5.0 + more]
    monkeypatch.setattr(routing, "measure", lambda *_: costs)
    assert routing.main([]) == status
    assert f"{model}: {5 + more:.2f} us of CPU per call (+{more:.2f} us)" in capsys.readouterr().out
