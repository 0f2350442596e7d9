from pathlib import Path

import pytest

from bench import ensembles, models
from penstock_server.models.artifact import read
from penstock_server.models.ensemble_servable import bound_steps
from penstock_server.models.loader import load


@pytest.mark.long
def test_its_chain_fits_its_models(tmp_path: Path) -> None:
    ensembles.write(tmp_path)
    ensemble = read(tmp_path / ensembles.CHAIN / "1").ensemble
    assert ensemble is not None
    steps = bound_steps(ensemble, lambda model, _: load((model, "1"), tmp_path / model / "1", threads=1, max_rows=8)[0])
    assert [bound.step.name for bound in steps] == [ensembles.SCALE, ensembles.TREES]
    assert [spec.name for spec in ensemble.inputs] == [models.INPUT]


@pytest.mark.parametrize(("loaded", "client", "status"), [(0.9, 1.0, 0), (1.1, 1.0, 1), (0.9, 2.0, 1)])
def test_it_fails_where_two_calls_are_cheaper(
    monkeypatch: pytest.MonkeyPatch, loaded: float, client: float, status: int
) -> None:
    costs: ensembles.Costs = {}
    for shape, chain in (((1, 1), 30.0), ((8, 8), 20 * loaded), (ensembles.CLIENT, 10 * client)):
        costs |= {(ensembles.CHAIN, shape): [chain] * 3}
        costs |= {(name, shape): [10.0] * 3 for name in (ensembles.SCALE, ensembles.TREES)}
    monkeypatch.setattr(ensembles, "measure", lambda *_: costs)
    assert ensembles.main([]) == status


def test_what_cannot_be_measured_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ensembles.NotAnsweredError("none")

    monkeypatch.setattr(ensembles, "measure", fail)
    assert ensembles.main([]) == 2
