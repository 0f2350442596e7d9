"""What Grafana is given is fresh, as its schema has it, and asks for metrics that there are."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from penstock_tools.dashboards import __main__ as dashboards
from penstock_tools.dashboards.board import WIDTH, Board, Panel, Query, Row, of_models, per_second, portions, quantile
from penstock_tools.dashboards.grafana import to_json
from penstock_tools.dashboards.page import with_panels

BOARD: Final = Board("b", "A board", "Text.", (Row("R", (Panel("P", "lines", "Shows p.", (Query("up"),)),)),))


def shown(panel: Panel) -> dict[str, Any]:
    """Grafana's JSON of one panel."""
    board = Board("b", "A board", "Text.", (Row("R", (panel,)),))
    (found,) = [each for each in json.loads(to_json(board, []))["panels"] if each["type"] != "row"]
    return dict(found)


def test_what_is_committed_is_fresh(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["dashboards", "--check"])
    assert dashboards.main() == 0, f"{capsys.readouterr().out}; run make dashboards"


def test_what_is_stale_is_told_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- generated: dashboards -->\nold\n<!-- end -->\nb\n")
    monkeypatch.setattr(dashboards, "FOLDER", tmp_path / "boards")
    monkeypatch.setattr(dashboards, "PAGE", page)
    monkeypatch.setattr(dashboards, "BOARDS", (BOARD,))
    monkeypatch.setattr("sys.argv", ["dashboards", "--check"])
    assert dashboards.main() == 1
    assert not (tmp_path / "boards").exists()
    monkeypatch.setattr("sys.argv", ["dashboards"])
    assert dashboards.main() == 0
    monkeypatch.setattr("sys.argv", ["dashboards", "--check"])
    assert dashboards.main() == 0
    assert capsys.readouterr().out.split("\n") == ["stale: b.json, page.md", "written: b.json, page.md", ""]
    assert "| R | P | Shows p. |" in page.read_text()


def test_a_page_without_the_place_for_the_list_is_told() -> None:
    with pytest.raises(ValueError, match="0 places for the list"):
        with_panels("nothing", [BOARD])


@pytest.mark.parametrize("board", dashboards.BOARDS, ids=lambda board: board.name)
def test_grafana_s_schema_reads_what_was_written_and_loses_nothing(board: Board) -> None:
    text = (dashboards.FOLDER / f"{board.name}.json").read_text()
    read = Dashboard.from_json(json.loads(text))
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == json.loads(text)


@pytest.mark.parametrize("board", dashboards.BOARDS, ids=lambda board: board.name)
def test_panels_have_numbers_titles_and_places_of_their_own(board: Board) -> None:
    panels = json.loads(to_json(board, []))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel.title for panel in board.panels}) == len(list(board.panels))
    places = [(panel["title"], *(panel["gridPos"][side] for side in "xywh")) for panel in panels]
    assert [place for place in places if place[1] + place[3] > WIDTH] == []
    for (one, x, y, w, h), (other, x2, y2, w2, h2) in combinations(places, 2):
        assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y, f"{one} lies over {other}"


def test_each_panel_says_what_it_shows() -> None:
    panels = [panel for board in dashboards.BOARDS for panel in board.panels]
    assert [panel.title for panel in panels if not panel.text.endswith(".") or panel.empty_until.endswith(".")] == []


def test_links_lead_to_the_other_boards_with_what_is_chosen() -> None:
    for board in dashboards.BOARDS:
        found = json.loads((dashboards.FOLDER / f"{board.name}.json").read_text())
        assert found["uid"] == f"penstock-{board.name}"
        links = [(link["url"], link["includeVars"], link["keepTime"]) for link in found["links"]]
        assert links == [(f"/d/penstock-{each.name}", True, True) for each in dashboards.BOARDS if each != board]
        names = [variable["name"] for variable in found["templating"]["list"]]
        assert names == ["datasource", "job", "instance", *(["model"] if board.picks_models else [])]
        # What is not asked for would narrow nothing, and what is not there would be sent as it is written.
        asked = set(re.findall(r"\$(\w+)", " ".join(query.expr for panel in board.panels for query in panel.queries)))
        assert asked - {"__rate_interval"} == set(names) - {"datasource"}


def test_queries_are_put_together() -> None:
    chosen = '{job=~"$job", instance=~"$instance", model_name=~"$model"}'
    assert of_models("m") == f"m{chosen}"
    assert of_models("m", 'a="b"') == 'm{job=~"$job", instance=~"$instance", model_name=~"$model", a="b"}'
    assert quantile(0.5, "b", "x") == f"histogram_quantile(0.5, sum by (le, x) ({per_second('b')}))"
    assert portions("s", "model_name", "c") == (
        "sum by (model_name, c) (rate(s[$__rate_interval])) / on (model_name) group_left () "
        "sum by (model_name) (rate(s[$__rate_interval]))"
    )


def test_thresholds_that_fall_are_bad_below() -> None:
    def steps(*bounds: float) -> list[tuple[Any, str]]:
        found = shown(Panel("P", "number", "Text.", (Query("up"),), thresholds=bounds))
        return [(step["value"], step["color"]) for step in found["fieldConfig"]["defaults"]["thresholds"]["steps"]]

    assert steps() == [(None, "green")]
    assert steps(1.0) == [(None, "green"), (1.0, "red")]
    assert steps(0.1, 0.2) == [(None, "green"), (0.1, "orange"), (0.2, "red")]
    assert steps(1.0, 0.5) == [(None, "red"), (0.5, "orange"), (1.0, "green")]


def test_a_panel_that_may_be_empty_says_until_when() -> None:
    found = shown(Panel("P", "table", "Text.", (Query("up", "is up"),), empty_until="something happens"))
    assert found["fieldConfig"]["defaults"]["noValue"] == "Empty until something happens"
    assert found["description"] == "Text. Empty until something happens."
    _, organize = found["transformations"]
    assert organize["options"]["renameByName"] == {"Value #A": "is up", "Value": "is up"}
