import random

import pytest

from bench.fuzz import rest
from bench.fuzz.rest import MOST_BYTES, Behind, at_once, damaged, good_requests, main, play
from penstock_server.rest.answers import Answer
from penstock_server.rest.routes import Routes
from penstock_server.rest.signatures import Signatures


def routes(draw: random.Random) -> Routes:
    behind = Behind(draw)
    return Routes(behind, Signatures(behind, lambda: None), post=at_once, most_bytes=MOST_BYTES, run=at_once)


def test_good_requests_are_answered() -> None:
    draw = random.Random(1)
    for data in good_requests():
        (status,) = play(draw, routes(draw), data)
        # The methods behind give replies of any form, one of which JSON cannot say.
        assert status in {200, 400, 404, 503}, data


def test_damage_is_drawn_from_the_seed_and_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    seeds = good_requests()
    assert damaged(random.Random("0:1"), seeds) == damaged(random.Random("0:1"), seeds)
    assert main(["--count", "1500", "--seed", "7"]) == 0
    assert "1,500 connections" in capsys.readouterr().out


def test_a_fault_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(rest, "error_answer", lambda error: Answer(str(error).encode(), 500))
    assert main(["--count", "300"]) == 1
    assert "AssertionError: 500 to" in capsys.readouterr().out


def test_a_call_that_kernels_make_otherwise_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rest.Forms, "metadata", lambda _forms, _number: b"other")
    assert main(["--count", "1500"]) == 1
    assert "AssertionError: kernels call otherwise than Python" in capsys.readouterr().out
