from bench.drift import cost as drift_cost


def test_counting_is_measured_against_the_same_batches_without_it() -> None:
    plain, counted = drift_cost.counting(8, repeats=2)
    assert plain > 0
    assert counted > 0


def test_the_wide_window_has_features_that_drifted_and_features_that_did_not() -> None:
    baseline, window = drift_cost.wide()
    assert len(baseline.columns) == drift_cost.FEATURES == len(window.cells)
    assert (window.rows == 10_000).all()


def test_a_scrape_is_measured_in_its_parts() -> None:
    assert drift_cost.scraping(1).keys() == {"evaluate", "render"}
