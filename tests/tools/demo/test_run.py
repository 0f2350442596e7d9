import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from penstock_server.errors import UnavailableError
from penstock_tools.demo import run
from penstock_tools.demo.plan import MODEL, DemoPlan
from penstock_tools.demo.results import Reply, Tally

SCRAPED = f"""\
penstock_model_role{{model_name="{MODEL}",model_version="1",role="champion"}} 1
data_drift_score{{feature_name="temp",model_name="{MODEL}",model_version="1"}} 0.5
penstock_drift_window_rows{{model_name="{MODEL}",model_version="1"}} 100000
"""


async def test_a_scrape_is_kept_with_the_month_of_the_replies(serving):
    serving.body = SCRAPED.encode()
    tally = Tally("2")
    observer = run.Observer(DemoPlan(), serving.url.removeprefix("http://"), tally)
    assert await observer.scrape() == SCRAPED
    assert observer.metrics.champion == "1"
    assert observer.drift.top(1) == []  # before the first reply there is no month
    tally.answered(Reply(at_s=0.1, took_s=0.01, month=5, version="1", role="champion", rows=8, right=6))
    await observer.scrape()
    (temp,) = observer.drift.top(2)
    assert (temp.feature, temp.highest, temp.began) == ("temp", 0.5, 5)
    assert serving.asked == ["/metrics"] * 2


async def test_a_server_that_is_gone_has_no_scrape():
    observer = run.Observer(DemoPlan(), "127.0.0.1:9", Tally("2"))
    with pytest.raises(UnavailableError):
        await observer.scrape()


def test_the_first_error_of_ours_is_told_in_place_of_its_group():
    ours = UnavailableError("no server")
    with pytest.raises(UnavailableError, match="no server"), run._first_penstock_error():
        raise ExceptionGroup("tasks", [ValueError("other"), ExceptionGroup("more", [ours])])
    with pytest.raises(ExceptionGroup), run._first_penstock_error():
        raise ExceptionGroup("tasks", [ValueError("other")])


@pytest.mark.parametrize("interrupts", [signal.default_int_handler, signal.SIG_IGN])
def test_a_signal_to_end_is_an_interrupt(interrupts):
    before, here = signal.getsignal(signal.SIGTERM), signal.signal(signal.SIGINT, interrupts)
    try:
        with pytest.raises(KeyboardInterrupt), run.termination_as_interrupt():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, here)
    assert signal.getsignal(signal.SIGTERM) is before


DEMO = [sys.executable, "-m", "penstock_tools.cli.main", "demo"]


@pytest.mark.slow
@pytest.mark.long  # it trains on a year of flights, and streams another
@pytest.mark.timeout(300)
def test_the_whole_demo(tmp_path, empty_registry):
    # Its tables are there already: making them takes as long as the stream.
    shutil.copy(empty_registry, tmp_path / "registry.db")
    done = subprocess.run(
        [*DEMO, "--rows", "15000", "--seconds", "6", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Both were trained on the real flights, and passed the gate.
    first, second = map(float, re.findall(r"AUC ([\d.]+) on April to June", done.stdout))
    assert 0.65 < first < second < 0.8
    assert re.search(r"failures +│ 0 ", done.stdout)
    assert re.search(r"│ [\d.]+% before the promotion, (100\.0|99\.\d)% after", done.stdout)
    assert "flights version 2 is now champion, in place of version 1" in done.stdout
    assert "temp: first over 0.2 in" in done.stdout
    assert "the same class in" in done.stdout
    assert 'data_drift_score{feature_name="temp"' in done.stdout
    assert "the server stopped with exit code 0" in done.stdout
    assert f"penstock serve --registry sqlite:///{tmp_path}/registry.db" in done.stdout
    assert not done.stderr
    assert not (tmp_path / "mlruns").exists()
    assert (tmp_path / "rows.json").read_text().count(MODEL) == 0
