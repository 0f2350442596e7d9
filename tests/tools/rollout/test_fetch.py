import msgspec
import pytest

from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_tools.client_commands import http
from penstock_tools.rollout.fetch import fetch
from tests.tools.rollout.served import BOTH, EXPERIMENT, NAME, ROLLOUT

NOTHING = http.StatusError("it answers 404", 404, b'{"error": "nothing"}')


def answering(monkeypatch, rollouts, experiments):
    asked = []

    def get(url, _encryption):
        asked.append(url)
        answer = rollouts if "/rollouts/" in url else experiments
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(http, "get", get)
    return asked


def test_both_are_asked_for(monkeypatch):
    answers = (msgspec.json.encode({"rollouts": [ROLLOUT]}), msgspec.json.encode({"experiments": [EXPERIMENT]}))
    asked = answering(monkeypatch, *answers)
    found = fetch("http://models:8002/", NAME)
    assert list(found) == msgspec.json.decode(msgspec.json.encode(tuple(BOTH)))
    assert asked == [f"http://models:8002/v1/{what}/fraud%3Cb%3E" for what in ("rollouts", "experiments")]
    answering(monkeypatch, NOTHING, answers[1])
    assert fetch("http://models:8002", NAME).rollout is None


@pytest.mark.parametrize(
    ("rollouts", "experiments", "kind", "said"),
    [
        (NOTHING, NOTHING, NotFoundError, "rolls no version of 'fraud<b>' out"),
        (b"<html>", NOTHING, InvalidInputError, "is not that of a Penstock server"),
        (b'{"rollouts": []}', NOTHING, InvalidInputError, "is not that of a Penstock server"),
        (NOTHING, http.StatusError("it answers 404", 404, b"no such page"), InvalidInputError, "it answers 404"),
    ],
)
def test_what_is_no_answer_is_an_error(monkeypatch, rollouts, experiments, kind, said):
    answering(monkeypatch, rollouts, experiments)
    with pytest.raises(kind, match=said):
        fetch("http://models:8002", NAME)
