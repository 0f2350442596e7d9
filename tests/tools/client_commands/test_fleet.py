import json
import socket

import pytest

from penstock_server.errors import InvalidInputError
from penstock_tools.client_commands import fleet
from penstock_tools.client_commands.fleet import Fleet, Held, addresses, joined, lines, summary


def record(version, role="", wanted=(), state="READY", weight=None, name="fraud", reason=""):
    shown = {"name": name, "version": version, "role": role, "wanted": list(wanted)}
    return {**shown, "state": state, "weight": weight, "reason": reason}


CHAMPION = record("3", "champion", ["champion"])
CANARY = record("4", "canary", ["canary", "shadow"], weight=5.0)
SHADOW = record("4", "shadow", ["canary", "shadow"])


def status(*records, away=""):
    return {"models": list(records), "sources": [{"name": "mlflow http://m", "state": "AWAY", "reason": away}]}


def test_servers_that_say_the_same_agree():
    found = joined({f"http://{at}": status(CHAMPION, SHADOW, CANARY) for at in "abc"})
    assert [(one.model, one.version, one.count, dict(one.others)) for one in found.versions] == [
        ("fraud", "3", 3, {}),
        ("fraud", "4", 3, {}),
    ]
    assert found.versions[1].held == Held(("canary", "shadow"), (("canary", 5.0), ("shadow", None)), "READY")
    assert (found.agrees, list(lines(found))) == (True, [])
    assert summary(found) == "all 3 servers answer, and serve what is wanted"


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (
            status(record("3", "champion", ["champion"]), record("4", "canary", ["canary", "shadow"], weight=10.0), SHADOW),
            "fraud 4 is READY as canary with 10%, shadow at http://c",
        ),
        (status(CHAMPION), "fraud 4 is not known at http://c"),
        (
            status(CHAMPION, record("4", "", ["canary", "shadow"], "LOADING")),
            "fraud 4 is LOADING without a role, wanted as canary, shadow at http://c",
        ),
        (
            status(record("3", "", ["champion"], "UNAVAILABLE", reason="it crashed"), CANARY, SHADOW),
            "fraud 3 is UNAVAILABLE without a role, wanted as champion (it crashed) at http://c",
        ),
        (status(CHAMPION, CANARY, SHADOW, away="no answer"), "http://c: mlflow http://m: no answer"),
        ("no server answers at http://c (refused)", "http://c: no server answers at the server (refused)"),
    ],
    ids=["a weight", "unknown", "loading", "refused", "registry away", "server away"],
)  # fmt: skip
def test_the_one_that_differs_is_named(other, line):
    found = joined(
        {"http://a": status(CHAMPION, CANARY, SHADOW), "http://b": status(CHAMPION, SHADOW, CANARY), "http://c": other}
    )
    assert list(lines(found)) == [line]
    assert found.agrees is (line == "http://c: mlflow http://m: no answer")  # what it serves is right


def test_what_no_server_serves_as_wanted_is_no_agreement():
    late = record("4", "", ["champion"], "UNAVAILABLE", reason="its graph is damaged")
    found = joined({f"http://{at}": status(CHAMPION, late) for at in "ab"})
    assert not found.agrees
    assert list(lines(found)) == ["fraud 4: its graph is damaged"]
    assert summary(found) == "all 2 servers answer"


def test_many_that_say_the_same_are_one_line():
    found = joined({f"http://{at}": status(*[CHAMPION] * (at < 60)) for at in range(100)})
    (line,) = lines(found)
    assert line == "fraud 3 is not known at " + ", ".join(f"http://{at}" for at in range(60, 68)) + " and 32 more"
    assert summary(found) == "all 100 servers answer; they differ in 1 version"


def test_no_server_answers():
    found = joined({"http://a": "refused", "http://b": "refused"})
    assert (found.agrees, summary(found)) == (False, "0 of 2 servers answer")
    assert list(lines(found)) == ["http://a, http://b: refused"]


def test_names_stand_for_all_their_addresses():
    def resolve(name, port, type):  # noqa: A002 - as getaddrinfo has it
        assert (name, port, type) == ("penstock", 8002, socket.SOCK_STREAM)
        return [
            (socket.AF_INET, 1, 6, "", ("10.0.0.1", port)),
            (socket.AF_INET, 1, 6, "", ("10.0.0.2", port)),
            (socket.AF_INET6, 1, 6, "", ("fd00::1", port, 0, 0)),
        ]

    assert addresses(["dns://penstock:8002", "http://10.0.0.1:8002/", "https://other"], resolve) == [
        "http://10.0.0.1:8002",
        "http://10.0.0.2:8002",
        "http://[fd00::1]:8002",
        "https://other",
    ]


@pytest.mark.parametrize(
    "told", ["dns://penstock", "dns://:8002x", "dns://", "dns://name.invalid:8002", f"dns://{'a' * 70}:1"]
)
def test_names_without_addresses_are_refused(told):
    with pytest.raises(InvalidInputError, match="--fleet is 'dns://"):
        addresses([told])


def test_it_asks_every_server_and_shows_them(serving, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    serving.body = json.dumps(status(CHAMPION, CANARY, SHADOW)).encode()
    found = fleet.fetch([serving.url, "http://127.0.0.1:1"])
    assert found.servers == (serving.url,)
    assert list(found.away) == ["http://127.0.0.1:1"]
    fleet.show(found)
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip() and "─" not in line]
    assert shown[:3] == [
        ["model", "version", "wanted", "as", "serves", "as", "traffic", "state", "servers"],
        ["fraud", "3", "champion", "champion", "READY", "1", "of", "1"],
        ["fraud", "4", "canary,", "shadow", "canary,", "shadow", "5%", "READY", "1", "of", "1"],
    ]
    assert shown[-1] == ["1", "of", "2", "servers", "answer"]


def test_nothing_is_loaded_anywhere(capsys):
    fleet.show(Fleet(("http://a",), {}, (), {}))
    assert capsys.readouterr().out == "1 server answers, and serves what is wanted\n"
