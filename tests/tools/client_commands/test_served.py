"""Waiting for a server, on a clock that only the pauses move."""

import pytest

from penstock_server.errors import UnavailableError
from penstock_tools.client_commands.served import Change, standing, wait

CHANGE = Change("fraud", "4", "champion")
CANARY = Change("fraud", "4", "canary", 12.5)
GONE = Change("fraud", "", "canary")


def row(version="4", role="", state="LOADING", reason="", weight=None, name="fraud"):
    return {"name": name, "version": version, "role": role, "state": state, "reason": reason, "weight": weight}


def status(*rows, away=""):
    return {"models": list(rows), "sources": [{"name": "mlflow", "state": "away", "reason": away}]}


SERVED = row(role="champion", state="READY")


@pytest.mark.parametrize(
    ("rows", "change", "expected"),
    [
        ([SERVED], CHANGE, (True, False)),
        ([row(role="champion", state="LOADING")], CHANGE, (False, False)),
        ([row(role="canary", state="READY", weight=12.5)], CANARY, (True, False)),
        ([row(role="canary", state="READY", weight=5.0)], CANARY, (False, False)),
        ([row(role="champion", state="READY")], CANARY, (False, False)),
        ([row("3", "champion", "READY"), row()], CHANGE, (False, False)),
        ([row(state="UNAVAILABLE", reason="damaged")], CHANGE, (False, True)),
        ([row(state="UNAVAILABLE")], CHANGE, (False, False)),
        ([row("3", "champion", "READY"), row("", state="UNAVAILABLE", reason="no champion")], CHANGE, (False, True)),
        ([row(name="other", role="champion", state="READY")], CHANGE, (False, False)),
        ([], CHANGE, (False, False)),
        ([row(role="canary", state="READY")], GONE, (False, False)),
        ([SERVED], GONE, (True, False)),
        ([], GONE, (True, False)),
    ],
)
def test_an_answer_tells_how_far_the_server_is(rows, change, expected):
    found = standing(status(*rows), change)
    assert (found.is_served, found.has_failed) == expected


@pytest.mark.parametrize(
    ("answer", "change", "sentence"),
    [
        (status(row()), CHANGE, "the version is LOADING"),
        (status(row(reason="fetching")), CHANGE, "the version is LOADING: fetching"),
        (status(), CHANGE, "it does not know version 4 of fraud yet; does it follow this registry?"),
        (status(away="refused"), CHANGE, "it does not know version 4 of fraud yet; mlflow is away: refused"),
        (status(row(role="canary", state="READY")), GONE, "version 4 is still canary"),
    ],
)
def test_the_sentence_says_what_the_server_is_at(answer, change, sentence):
    assert standing(answer, change).sentence == sentence


class Waiting:
    """Answers from a script, whose last answer stays."""

    def __init__(self, *answers):
        self.answers, self.now_s, self.said = list(answers), 100.0, []

    def fetch(self):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(self, seconds):
        self.now_s += seconds

    def wait(self, change=CHANGE, timeout_s=30.0):
        return wait(
            self.fetch, change, timeout_s=timeout_s, report=self.said.append, clock=lambda: self.now_s, sleep=self.sleep
        )


def test_it_waits_until_the_version_is_served():
    waiting = Waiting(status(), UnavailableError("no server answers"), status(row()), status(row()), status(SERVED))
    assert waiting.wait() == 2.0
    assert waiting.said == [
        "waiting for the server: it does not know version 4 of fraud yet; does it follow this registry?",
        "waiting for the server: no server answers",
        "waiting for the server: the version is LOADING",
    ]


def test_what_is_served_already_is_not_waited_for():
    assert Waiting(status(SERVED)).wait(timeout_s=0.0) == 0.0


def test_a_failure_that_lasts_is_the_answer():
    waiting = Waiting(status(row(state="UNAVAILABLE", reason="its digest is wrong")))
    with pytest.raises(UnavailableError, match=r"^the server does not serve it: its digest is wrong$"):
        waiting.wait()
    assert waiting.now_s == 103.0


def test_a_failure_that_passes_is_none():
    failed = status(row(state="UNAVAILABLE", reason="the store does not answer"))
    assert Waiting(*[failed] * 4, status(row()), *[failed] * 4, status(SERVED)).wait() == 4.5


def test_the_time_ends():
    waiting = Waiting(status(row()))
    with pytest.raises(UnavailableError, match=r"^after 2 s the server does not serve it yet: the version is LOADING$"):
        waiting.wait(timeout_s=2.0)
    assert waiting.now_s == 102.0
