"""The help of every command: prose that fills its lines, and nothing cut off."""

import itertools
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

from penstock_tools.cli.app import app


def paths(command=None, path=()) -> Iterator[tuple[str, ...]]:
    command = command or typer.main.get_command(app)
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from paths(inner, (*path, name))


def help_of(path, columns):
    result = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": str(columns), "TERM": "dumb"})
    assert result.exit_code == 0
    return result.output.splitlines()


@pytest.mark.long
@pytest.mark.parametrize("columns", [80, 110])
@pytest.mark.parametrize("path", list(paths()), ids=" ".join)
def test_a_line_of_prose_ends_where_the_next_word_does_not_fit(path, columns):
    prose = [line.rstrip() for line in help_of(path, columns) if line[:1] not in "╭│╰"]
    for line, following in itertools.pairwise(prose):
        if line and following:
            # One column is left empty on each side.
            assert len(line) + 1 + len(following.split()[0]) > columns - 1, (line, following)


@pytest.mark.long
@pytest.mark.parametrize("path", list(paths()), ids=" ".join)
def test_nothing_is_cut_off_and_every_option_is_described(path):
    lines = help_of(path, 80)
    assert [line for line in lines if "…" in line] == []
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    assert [parameter.name for parameter in command.params if not parameter.help] == []
