import numpy as np
import pytest

from penstock_tools.calibration import recorded
from penstock_tools.calibration.replay import replay, slices
from penstock_tools.calibration.rows import SampleFile
from tests.tools.calibration.shifted_rows import frame


def replayed(tmp_path, content, **options):
    content.to_parquet(tmp_path / "fares.parquet")
    found = recorded.against_first(SampleFile(tmp_path / "fares.parquet", "at"), 0.5)
    return replay(found.reference, found.codes, found.seconds, **options)


def test_an_injected_shift_is_found_and_when_it_began(tmp_path):
    done = []
    found = replayed(tmp_path, frame(20_000, shift_from=15_000), advance=done.append)
    (episode,) = found.episodes
    assert (episode.column, episode.kind, episode.ended) == ("amount", "shares", None)
    assert abs(episode.since - 5000) <= 200
    assert 5000 < episode.noticed <= 5600
    assert (found.rows, found.looks, found.slice_rows, sum(done)) == (10_000, 100, 100, 10_000)


def test_a_shift_that_ends_takes_its_alarm_with_it(tmp_path):
    content = frame(30_000, shift_from=17_000)
    content.loc[18_500:, "amount"] -= 1.0
    (episode,) = replayed(tmp_path, content).episodes
    assert abs(episode.since - 2000) <= 200
    assert 3500 < episode.ended < 15_000


def test_unknown_values_have_an_alarm_of_their_own(tmp_path):
    content = frame(20_000)
    content.loc[15_000::5, "city"] = "Lima"
    found = replayed(tmp_path, content).episodes
    assert {(one.column, one.kind) for one in found} == {("city", "shares"), ("city", "unseen")}


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_quiet_rows_have_no_alarm(tmp_path, seed):
    assert replayed(tmp_path, frame(20_000, seed=seed), run_length=1000.0).episodes == ()


def test_a_look_takes_a_hundred_rows_and_a_second():
    assert list(slices(250, None)) == [(0, 100), (100, 200)]
    # Three hundred rows a second, then one.
    seconds = np.concatenate([np.arange(600) / 300, 2.0 + np.arange(150)])
    assert list(slices(750, seconds)) == [(0, 300), (300, 600), (600, 700)]
