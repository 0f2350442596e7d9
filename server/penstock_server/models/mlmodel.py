"""Reads the columns' names from `MLmodel`, the file in which MLflow describes a version.

A model that takes one matrix says nothing about the order of its columns; MLflow's signature does. `artifact` reads it.
"""

import json
import re
from collections import Counter
from typing import Any, Final

from penstock_server.errors import InvalidInputError
from penstock_server.features.spec.limits import MAX_YAML_BYTES

MAX_BYTES: Final = MAX_YAML_BYTES
MAX_COLUMNS: Final = 16_384
MAX_NAME_BYTES: Final = 1024
_SIGNATURE: Final = re.compile(rb"^signature:[^\n]*(?:\n(?:[ \t][^\n]*)?)*", re.MULTILINE)
"""The signature as MLflow writes it: its line, and those behind it that are further to the right."""


def column_names(content: bytes) -> tuple[str, ...]:
    """The names of the signature's columns in their order; empty where it describes tensors, or there is none.

    Raises:
        InvalidInputError: it is not such a file, or its names cannot be used.
    """
    from penstock_server.features.spec import (
        yaml_text,
    )  # most versions do without it, and so may each process of a server

    try:
        tree = yaml_text.load(_signature(content))
        signature = tree.get("signature") if isinstance(tree, dict) else None
        inputs = signature.get("inputs") if isinstance(signature, dict) else None
        columns = json.loads(inputs) if isinstance(inputs, str) else inputs
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"its signature cannot be read: {error}") from error
    if not isinstance(columns, list) or not all(_is_named_column(each) for each in columns):
        return ()
    names = tuple(each["name"] for each in columns)
    _check(names)
    return names


def _signature(content: bytes) -> bytes:
    """The part of the file that has the signature; all of it where that cannot be told without reading it.

    All else in it takes a millisecond to read, for which nobody else has the interpreter while a worker loads a version.
    """
    found: list[bytes] = _SIGNATURE.findall(content)
    return found[0] if len(found) == 1 and len(content) <= MAX_BYTES else content


def _is_named_column(column: Any) -> bool:
    return isinstance(column, dict) and isinstance(column.get("name"), str) and column.get("type") != "tensor"


def _check(names: tuple[str, ...]) -> None:
    if len(names) > MAX_COLUMNS:
        raise InvalidInputError(f"its signature names {len(names):,} columns; expected at most {MAX_COLUMNS:,}")
    if len(set(names)) < len(names):
        twice = next(name for name, times in Counter(names).items() if times > 1)
        raise InvalidInputError(f"its signature names the column {twice[:100]!r} twice; expected each once")
    if not all(1 <= _utf8_bytes(name) <= MAX_NAME_BYTES for name in names):
        raise InvalidInputError(f"its signature has a name that is no text of 1 to {MAX_NAME_BYTES:,} bytes")


def _utf8_bytes(name: str) -> int:
    """How long the name is as UTF-8; 0 for what JSON's escapes can write and UTF-8 cannot."""
    try:
        return len(name.encode())
    except UnicodeEncodeError:
        return 0
