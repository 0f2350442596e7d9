from dataclasses import replace

import pytest
from rich.text import Text

from penstock_server.errors import UnavailableError
from penstock_tools.drift import command
from tests.tools.drift.drift_records import CANARY, CHAMPION


def test_watching_goes_on_when_the_server_is_away():
    answers = iter([CHAMPION, UnavailableError("no server answers"), replace(CHAMPION, version="3")])

    def ask():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    shown = list(command.frames(ask, None, [110] * 3))
    assert [frame.plain if isinstance(frame, Text) else frame.renderables[0].plain for frame in shown] == [
        "flights version 1 (champion)",
        "no server answers",
        "flights version 3 (champion)",
    ]


def test_watching_ends_at_ctrl_c_and_fails_when_nothing_can_be_shown(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    answers = [CHAMPION, CHAMPION]

    def ask():
        if not answers:
            raise KeyboardInterrupt
        return answers.pop()

    command.watch(ask, interval_s=0.0)
    assert "flights version 1 (champion)" in capsys.readouterr().out

    def fail():
        raise UnavailableError("no server answers")

    with pytest.raises(UnavailableError):
        command.watch(fail)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (CHAMPION, 3),
        (CANARY, 0),
        (replace(CHAMPION, drifted=0), 3),
        (replace(CHAMPION, alarms=()), 0),
        (replace(CHAMPION, alarms=CHAMPION.alarms[:1]), 3),
    ],
)
def test_a_version_fails_on_drift_while_an_alarm_is_on(version, expected):
    assert command.exit_code(version, fail_on_drift=True) == expected
    assert command.exit_code(version, fail_on_drift=False) == 0


@pytest.mark.parametrize(
    ("share", "alarmed", "expected"),
    [(0.2, ("delay",), 3), (0.1, ("delay",), 3), (0.05, ("delay",), 0), (None, ("delay",), 3), (0.0, ("",), 3)],
)
def test_alarms_of_features_that_hardly_matter_can_wait(share, alarmed, expected):
    version = replace(CHAMPION, alarmed_importance=share, alarmed=alarmed)
    assert command.exit_code(version, fail_on_drift=True, least_importance=0.1) == expected
    assert command.exit_code(version, fail_on_drift=False, least_importance=0.1) == 0
