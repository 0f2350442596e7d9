import subprocess
from pathlib import Path

import pytest

from bench import cross_check, inference

OUTPUT = """
finished in 3.00s, 21034.33 req/s, 3.91MB/s
requests: 63103 total, 63167 started, 63103 done, 63103 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 63103 2xx, 0 3xx, 0 4xx, 0 5xx
"""


def test_the_rate_is_read() -> None:
    assert cross_check.requests_per_s(OUTPUT) == 21034.33


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("", "cannot be read"),
        ("finished in 3.00s, 12 req/s, 3MB/s", "cannot be read"),
        (OUTPUT.replace("0 failed", "3 failed"), "h2load reports failures: 3 failed, 0 errored"),
        (OUTPUT.replace("0 timeout", "9 timeout"), "9 timeout"),
    ],
)
def test_an_output_without_a_trustworthy_rate_is_refused(output, words) -> None:
    with pytest.raises(cross_check.CrossCheckError, match=words):
        cross_check.requests_per_s(output)


def test_the_body_carries_grpcs_prefix(monkeypatch) -> None:
    bodies = []

    def run(line, **_):
        bodies.append(Path(line[line.index("-d") + 1]).read_bytes())
        assert line[-1] == f"http://127.0.0.1:7{inference.METHOD}"
        return subprocess.CompletedProcess(line, 0, stdout=OUTPUT)

    monkeypatch.setattr(subprocess, "run", run)
    assert cross_check.h2load("127.0.0.1:7", b"abc", seconds=1) == 21034.33
    assert bodies == [b"\x00\x00\x00\x00\x03abc"]


def test_a_machine_without_h2load_is_one_clear_error(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(cross_check.CrossCheckError, match="h2load cannot be run"):
        cross_check.h2load("127.0.0.1:7", b"abc", seconds=1)
