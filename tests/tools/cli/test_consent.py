import io

import pytest

from penstock_tools.cli.consent import asker


@pytest.mark.parametrize(("answer", "is_loaded"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_person_at_the_terminal_is_asked(monkeypatch, capsys, answer, is_loaded):
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    assert asker(trusts=False)("It may bite.") is is_loaded
    assert "It may bite. Load it?" in capsys.readouterr().err


def test_without_a_terminal_the_answer_is_no(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert asker(trusts=False)("It may bite.") is False


def test_trust_agrees_and_shows_the_warning(capsys):
    assert asker(trusts=True)("It may bite.") is True
    assert capsys.readouterr().err == "penstock: It may bite.\n"
