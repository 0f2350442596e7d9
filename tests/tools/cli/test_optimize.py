from pathlib import Path

import pytest

from penstock_tools.publish import optimize
from penstock_tools.publish.optimize import Form, Optimized

BASE, FAST = Form("as it is", (1e-5, 4e-4, 1e-3), 0.9), Form("int8", (1e-5, 1e-4, 3e-4), 0.8985)


@pytest.fixture
def asked(monkeypatch):
    """What the command was asked; it finds a faster form, and registers it if asked."""
    given = []

    def found(name, data, **how):
        how.pop("report")
        given.append((name, data, how))
        return Optimized("models:/fraud/1", "AUC", (BASE, FAST), FAST, "", "2" if how["register"] else "")

    monkeypatch.setattr(optimize, "optimize", found)
    return given


def test_options_reach_the_command(asked, run, capsys):
    assert run("optimize", "fraud", "rows.csv") == 0
    assert run(
        *("optimize", "fraud", "rows.csv", "--version", "@canary", "--labels", "y", "--max-loss", "0.01"),
        *("--provider", "cuda", "--threads", "4", "--register", "--registry", "sqlite:///r.db"),
    ) == 0  # fmt: skip
    plain = {"version": None, "labels": None, "max_loss": 0.002, "provider": "cpu", "threads": None}
    plain |= {"register": False, "registry": None}
    full = {"version": "@canary", "labels": "y", "max_loss": 0.01, "provider": "cuda"}
    full |= {"threads": 4, "register": True}
    assert asked == [
        ("fraud", Path("rows.csv"), plain),
        ("fraud", Path("rows.csv"), {**full, "registry": "sqlite:///r.db"}),
    ]


def test_what_was_found_is_printed_with_what_comes_next(asked, run, capsys):
    assert run("optimize", "fraud", "rows.csv") == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "int8 is 4.0 times as fast, and changes AUC by -0.001500",
        "add --register to make it the next version",
    ]
    assert run("optimize", "fraud", "rows.csv", "--register") == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "registered as fraud version 2; try it with:",
        "  penstock promote fraud 2 --alias canary --weight 5",
    ]
