import json
import re

from rich.console import Console

from bench.peers import table
from bench.peers.run import PeerResult
from bench.results import Measurement, summarise
from bench.servers.measured import BASELINE
from bench.session import RunResult
from tests.bench.peers.a_peer import PEER


def measured(server: str, rate: float) -> Measurement:
    return Measurement("tabular 8x8", server, 0, rate, 10.0, 1.0, 2.0, 100, {})


def found() -> PeerResult:
    rounds = [measured("other", 100.0), measured("penstock", 450.0), measured(BASELINE, 200.0)]
    return PeerResult(
        PEER, RunResult(measurements=rounds, summaries=summarise(rounds, baseline="other")), ("other==1.2",)
    )


def test_the_table_has_a_failed_peer_among_the_others() -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    table.show(console, [PeerResult(PEER, failure="\n no wheel for this platform\nmore"), found()])
    text = console.export_text()
    assert "other 1.2 was not measured: no wheel for this platform" in text
    assert re.search(r"penstock +450 +4\.50", text)
    assert '{"batch": {"size": 8}}' in text.replace("\n", "")
    assert max(map(len, text.splitlines())) <= 80


def test_a_long_reason_is_cut_on_the_line_and_kept_in_the_record() -> None:
    result = PeerResult(PEER, failure="x" * 1000)
    assert len(table.reason(result)) < 200
    assert table.reason(PeerResult(PEER)) == "no reason was given"
    assert table.record([result])["peers"][0]["failure"] == "x" * 1000


def test_the_record_is_json_with_versions_settings_machine_and_commit() -> None:
    kept = json.loads(json.dumps(table.record([found(), PeerResult(PEER, failure="no")])))
    assert {"machine", "commit", "peers"} == kept.keys()
    first, second = kept["peers"]
    assert (first["settings"], first["installed"], first["failure"]) == (PEER.settings, ["other==1.2"], None)
    assert len(first["summaries"]) == 3
    assert first["wire"] == "json"
    assert "summaries" not in second
