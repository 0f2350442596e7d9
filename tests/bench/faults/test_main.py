import json
from collections.abc import Iterator

import pytest

from bench.faults import __main__ as command
from bench.faults.number import Number, Target
from bench.faults.scenario import Run, Scenario


def sound(run: Run) -> Iterator[Number]:
    assert run.folder.is_dir()
    run.details.append("one line")
    yield Number("faults", run.times(full=3, quick=0))


def broken(run: Run) -> Iterator[Number]:
    yield Number("faults", run.lasting_s(full=0.0, quick=0.0))
    raise OSError("the server is away")


@pytest.fixture(autouse=True)
def _scenarios(monkeypatch) -> None:
    scenarios = {"sound": Scenario("sound", "never fails", sound), "broken": Scenario("broken", "fails", broken)}
    monkeypatch.setattr(command, "SCENARIOS", scenarios)
    targets = [Target("sound", "faults", at_most=0, in_ci=True), Target("broken", "faults", at_most=0)]
    monkeypatch.setattr(command.number, "read", lambda: targets)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--only", "sound"], 1),
        (["--only", "sound", "--quick"], 0),
        (["--only", "sound", "--count", "0"], 0),
        (["--only", "broken"], 2),
        (["--ci", "--quick"], 0),
        ([], 2),
    ],
)
def test_the_status_says_whether_targets_hold(arguments, status, capsys) -> None:
    assert command.main(arguments) == status
    assert "faults" in capsys.readouterr().out


def test_numbers_before_a_failure_are_kept_and_written(tmp_path, capsys) -> None:
    file = tmp_path / "results" / "faults.json"
    command.main(["--only", "broken", "--only", "sound", "--json", str(file)])
    first, second = json.loads(file.read_text())
    assert first["failure"] == "OSError: the server is away"
    assert first["numbers"][0]["target"] == {"is": "at most 0", "holds": True}
    assert second["numbers"][0]["target"] == {"is": "at most 0", "holds": False}
    assert second["details"] == ["one line"]
    shown = capsys.readouterr()
    assert "FAILS" in shown.out
    assert "sound: faults is 3, expected at most 0" in shown.out
    assert "broken: OSError: the server is away" in shown.err


def test_the_help_names_each_scenario(capsys) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert "never fails" in capsys.readouterr().out
