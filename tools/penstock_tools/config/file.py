"""Settings as a file: all that a server would use, each with what it means, in TOML that the server reads again."""

import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import tomlkit

from penstock_server.settings import ServerSettings
from penstock_tools.config.reference import NAME, Setting, Table, tables

_WIDTH: Final = 100


def as_toml(settings: ServerSettings, *, only_changed: bool = False) -> str:
    """The settings as TOML.

    Args:
        settings: of one server.
        only_changed: leave out what is as it is by default, and what settings mean.
    """
    parts = (part for table in tables() for part in _parts(table, settings, is_explained=not only_changed))
    text = "\n\n".join(filter(None, parts))
    return f"{text}\n" if text else ""


def _parts(table: Table, settings: ServerSettings, *, is_explained: bool) -> Iterator[str]:
    """The table's text; one for each name where names are free, and else a hint that there may be some."""
    found: list[tuple[str, Any]] = [("", settings)]
    for step in filter(None, table.name.split(".")):
        if step == NAME:
            found = [(f"{at}.{tomlkit.key(key).as_string()}", each) for at, held in found for key, each in held.items()]
        else:
            found = [(f"{at}.{step}" if at else step, getattr(held, step)) for at, held in found]
    is_named = NAME in table.name
    if is_explained and is_named and not found:
        names = ", ".join(setting.name for setting in table.settings)
        yield "\n".join([f"# [{table.name}]", *_comment(table.meaning), *_comment(f"It takes {names}.")])
    for at, record in found:
        if is_explained and not is_named:
            yield _explained(table, at, record)
        else:
            yield _brief(table, at, record)


def _explained(table: Table, at: str, record: Any) -> str:
    """All settings of a table, each with its meaning."""
    lines = [f"[{at}]", *_comment(table.meaning)] if at else []
    said = ""
    for setting in table.settings:
        if setting.meaning != said:  # some share what is said of them
            lines += ["", *_comment(setting.meaning)]
        said = setting.meaning
        lines.append(_line(setting, getattr(record, setting.name)))
    return "\n".join(lines).lstrip()


def _brief(table: Table, at: str, record: Any) -> str:
    """The settings of a table that are not as they are by default."""
    held = [(setting, getattr(record, setting.name)) for setting in table.settings]
    lines = [_line(setting, value) for setting, value in held if setting.is_required or value != setting.default]
    return "\n".join([f"[{at}]"] * bool(at) + lines) if lines else ""


def _line(setting: Setting, value: Any) -> str:
    if value is None:
        return f"# {setting.name} =  # {setting.kind}"
    return f"{setting.name} = {tomlkit.item(_plain(value)).as_string()}"


def _plain(value: Any) -> Any:
    """A value as TOML has it."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        inline = tomlkit.inline_table()
        inline.update({key: _plain(each) for key, each in value.items()})
        return inline
    return str(value) if isinstance(value, Path) else value


def as_mapping(record: Any) -> Any:
    """The settings for JSON: all of them, null where one is not set."""
    if is_dataclass(record) and not isinstance(record, type):
        return {each.name: as_mapping(getattr(record, each.name)) for each in fields(record)}
    if isinstance(record, dict):
        return {key: as_mapping(each) for key, each in record.items()}
    if isinstance(record, tuple):
        return [as_mapping(each) for each in record]
    return str(record) if isinstance(record, Path) else record


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH, break_on_hyphens=False)]
