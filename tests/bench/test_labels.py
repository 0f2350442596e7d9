from dataclasses import replace

import pytest

from bench import labels

GOOD = labels.Measured(1000, 60_000.0, 55_000.0, 2.0, 1.0, 3.0, 0, 85.0, 100.0)


@pytest.mark.parametrize(
    ("measured", "status"), [(GOOD, 0), (replace(GOOD, per_s=49_999.0), 1), (replace(GOOD, lost=1), 1)]
)
def test_it_fails_below_the_rate_or_when_labels_are_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], measured: labels.Measured, status: int
) -> None:
    monkeypatch.setattr(labels, "measure", lambda _: measured)
    assert labels.main([]) == status
    assert f"{measured.per_s:,.0f} a second acknowledged by one worker" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.long  # it measures a server for seconds
def test_labels_of_a_real_server_are_counted() -> None:
    found = labels.measure(5000)
    assert found.lost == 0
    assert found.per_s > 0
    assert found.bytes >= 84
