import pytest

from bench.faults.scenario import Run
from bench.faults.scenarios import sigterm


@pytest.mark.slow
@pytest.mark.long  # it sends load to several servers, one after the other
def test_every_call_has_an_ending(tmp_path) -> None:
    run = Run(tmp_path, count=1)
    numbers = {number.name: number for number in sigterm.play(run)}
    assert set(numbers) == {
        "calls lost but UNAVAILABLE",
        "wrong answers",
        "servers that did not end with 0",
        "slowest end, s",
    }
    assert numbers["wrong answers"].value == 0
    assert any(line.startswith("OK") for line in run.details)
