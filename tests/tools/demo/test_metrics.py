import pytest

from penstock_server.errors import UnavailableError
from penstock_tools.demo.metrics import Facts, Shadow, excerpt, fetch, read

TEXT = """
# TYPE data_drift_score gauge
data_drift_score{feature_name="temp",model_name="flights",model_version="1"} 0.9
data_drift_score{feature_name="dest",model_name="flights",model_version="1"} 0.1
data_drift_score{feature_name="temp",model_name="flights",model_version="2"} 0.5
data_drift_score{feature_name="age",model_name="fares",model_version="1"} 0.8
# TYPE penstock_drift_window_rows gauge
penstock_drift_window_rows{model_name="flights",model_version="1"} 150.0
penstock_drift_window_rows{model_name="flights",model_version="2"} 20.0
# TYPE penstock_model_role gauge
penstock_model_role{model_name="flights",model_version="1",role="champion"} 1.0
penstock_model_role{model_name="flights",model_version="2",role="shadow"} 1.0
penstock_model_role{model_name="fares",model_version="7",role="champion"} 1.0
# TYPE penstock_shadow_comparisons_total counter
penstock_shadow_comparisons_total{model_name="flights",model_version="2",result="agree"} 90.0
penstock_shadow_comparisons_total{model_name="flights",model_version="2",result="disagree"} 10.0
penstock_shadow_comparisons_total{model_name="flights",model_version="2",result="failed"} 5.0
# TYPE penstock_shadow_agreement_ratio gauge
penstock_shadow_agreement_ratio{model_name="flights",model_version="2"} 0.9
# TYPE penstock_shadow_score_distance histogram
penstock_shadow_score_distance_bucket{le="0.1",model_name="flights",model_version="2"} 60.0
penstock_shadow_score_distance_bucket{le="+Inf",model_name="flights",model_version="2"} 100.0
penstock_shadow_score_distance_count{model_name="flights",model_version="2"} 100.0
penstock_shadow_score_distance_sum{model_name="flights",model_version="2"} 12.5
# TYPE penstock_shadow_latency_ratio gauge
penstock_shadow_latency_ratio{model_name="flights",model_version="2"} 2.5
"""


def test_everything_of_one_model_is_read():
    assert read(TEXT, "flights") == Facts(
        champion="1",
        shadow=Shadow(version="2", compared=100, agreement=0.9, distance=0.125, latency_ratio=2.5),
        drift={"1": {"temp": 0.9, "dest": 0.1}, "2": {"temp": 0.5}},
        window_rows={"1": 150, "2": 20},
    )


@pytest.mark.parametrize("text", ["", "# TYPE up gauge\nup 1.0\n"])
def test_what_is_not_said_is_absent(text):
    assert read(text, "flights") == Facts(champion=None, shadow=None, drift={}, window_rows={})


def test_a_shadow_without_rows_has_no_agreement():
    text = 'penstock_shadow_comparisons_total{model_name="m",model_version="2",result="agree"} 0.0\n'
    assert read(text, "m").shadow == Shadow("2", 0, None, None, None)


@pytest.mark.parametrize(("least", "features"), [(0, {"temp", "dest"}), (150, {"temp", "dest"}), (151, set())])
def test_drift_is_settled_once_the_champions_window_holds_enough(least, features):
    assert read(TEXT, "flights").settled_drift(least).keys() == features


def test_no_champion_has_no_drift():
    assert Facts().settled_drift(1) == {}


def test_an_excerpt_has_the_highest_lines_of_each_family_in_the_order_asked():
    assert excerpt(TEXT, ["penstock_model_role", "data_drift_score", "nothing"], 2) == [
        'penstock_model_role{model_name="flights",model_version="1",role="champion"} 1.0',
        'penstock_model_role{model_name="flights",model_version="2",role="shadow"} 1.0',
        'data_drift_score{feature_name="temp",model_name="flights",model_version="1"} 0.9',
        'data_drift_score{feature_name="age",model_name="fares",model_version="1"} 0.8',
    ]


def test_an_excerpt_takes_whole_names():
    assert excerpt("penstock_rows_total 3\npenstock_rows 2\n", ["penstock_rows"], 9) == ["penstock_rows 2"]


def test_a_page_that_is_not_served_is_unavailable():
    with pytest.raises(UnavailableError, match="does not answer"):
        fetch("http://127.0.0.1:9/metrics")
