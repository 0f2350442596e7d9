import io
import sys
from types import ModuleType

import pytest
from rich.console import Console

from penstock_tools import progress


def test_steps_are_on_standard_error_once_they_are_done(capsys):
    with progress.steps() as report:
        report("reading [1] file")
        assert "reading" not in capsys.readouterr().err
        report("writing")
        assert "✓ reading [1] file" in capsys.readouterr().err
    captured = capsys.readouterr()
    assert "✓ writing" in captured.err
    assert captured.out == ""


def failing():
    with progress.steps() as report:
        report("trying")
        raise ValueError("no")


def test_a_step_that_fails_is_not_shown_as_done(capsys):
    with pytest.raises(ValueError, match="no"):
        failing()
    assert "✓" not in capsys.readouterr().err


def test_another_console_may_be_given(capsys):
    console = Console(file=io.StringIO(), width=20)
    with progress.steps(console) as report:
        report("a step with a name that is longer than a line")
    assert "✓ a step with a name that is longer than a line 0.0 s\n" in console.file.getvalue()
    assert capsys.readouterr().err == ""


def test_the_spinner_starts_with_the_first_step():
    console = Console(file=io.StringIO(), force_terminal=True)
    with progress.steps(console) as report:
        assert console.file.getvalue() == ""
        report("reading")
        assert console.file.getvalue() != ""


def shown_by_watched(capsys):
    with progress.watched() as report:
        report("reading")
    return capsys.readouterr()


def test_steps_are_shown_to_people_alone(capsys, monkeypatch):
    assert shown_by_watched(capsys) == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert "✓" in shown_by_watched(capsys).err


def test_a_notebook_shows_steps_as_plain_lines(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    shown = shown_by_watched(capsys)
    assert shown.err == ""
    assert shown.out.startswith("  ✓ reading 0.0 s")


def test_bars_are_drawn_in_a_terminal_only(capsys):
    with progress.bars() as bars:
        bars.begin("reading", 10)(10)
    assert capsys.readouterr().err == ""
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with progress.bars(console) as bars:
        advance = bars.begin("reading [1] file", 10)
        advance(3)
        advance(4)
    assert "reading [1] file" in console.file.getvalue()
    assert "7/10" in console.file.getvalue()
