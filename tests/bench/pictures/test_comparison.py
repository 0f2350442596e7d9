import json

import pytest

from bench.pictures import comparison


def summary(scenario: str, server: str, rate: float, p99: float | None) -> dict:
    return {"scenario": scenario, "server": server, "requests_per_s": rate, "p99_ms": p99}


SUMMARIES = [summary("s 8x8", "a", 300, 2.0), summary("s 8x8", "b", 0, None), summary("s 1x1", "a", 100, 1.0)]


def test_summaries_are_grouped_by_server_in_order() -> None:
    found = comparison.by_server(SUMMARIES)
    assert [(server, list(each)) for server, each in found.items()] == [("a", ["s 8x8", "s 1x1"]), ("b", ["s 8x8"])]


def test_a_curve_rises_in_throughput_and_leaves_out_what_was_not_answered() -> None:
    assert comparison.curve(SUMMARIES) == [(100, 1.0), (300, 2.0)]


@pytest.mark.long
def test_a_record_becomes_the_same_svg_each_time(tmp_path) -> None:
    record = {"machine": {"cpu": "Some CPU", "cpus": 2}, "summaries": SUMMARIES}
    (tmp_path / "run.json").write_text(json.dumps(record))
    for name in ("a.svg", "b.svg"):
        comparison.main([str(tmp_path / "run.json"), str(tmp_path / name)])
    text = (tmp_path / "a.svg").read_text()
    assert "</svg>" in text
    assert "Some CPU, 2 cores" in text
    assert text == (tmp_path / "b.svg").read_text()


def test_an_empty_record_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="no measurement"):
        comparison.draw({"summaries": []}, tmp_path / "x.svg")
