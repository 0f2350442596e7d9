import re
import runpy
from pathlib import Path

import pytest

from penstock_server.models import artifact
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_tools.demo import flights
from tests.tools.demo.conftest import made_up_flights

EXAMPLE = Path(__file__).parents[3] / "tools" / "examples" / "flights.py"


@pytest.mark.long
def test_the_example_publishes_a_champion_that_a_server_can_load(registry, client, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(flights, "load", made_up_flights)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    printed = re.fullmatch(r"flights version 1 is champion; its AUC .* is (0\.\d+)\n", capsys.readouterr().out)
    assert float(printed[1]) > 0.75
    assert client.get_registered_model("flights").aliases == {"champion": 1}
    found = artifact.read(MlflowSource(registry, cache_dir=tmp_path / "cache").fetch("flights", "1"))
    assert [column.name for column in found.features.columns] == list(flights.COLUMNS)
    assert found.golden.rows == 16
