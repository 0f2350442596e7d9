"""What commands write: files, JSON, and pages from the templates that lie beside the code."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from penstock_server.errors import UnavailableError
from penstock_tools import formatting

if TYPE_CHECKING:
    from jinja2 import Template


def write(file: Path, content: str) -> None:
    """Writes a report.

    Raises:
        UnavailableError: the file cannot be written.
    """
    try:
        file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise UnavailableError(f"{file} cannot be written: {error.strerror}") from error


def as_json(record: object) -> str:
    """A record as JSON, indented; what is not known is null."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2).decode()


def template(room: str, name: str, functions: Mapping[str, Any]) -> "Template":
    """A template of a room, which may call these functions; `name` is a filter that makes names safe to show."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("penstock_tools", room),
        autoescape=True,  # names come from data, and from the people who published it
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["name"] = formatting.safe
    environment.globals |= functions
    return environment.get_template(name)
