"""What settings there are: their names, kinds, defaults and meanings, taken from the records that a server reads them into.

A setting's meaning is what the record's docstring says of the field, so that there is one place to keep true.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from inspect import cleandoc
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from penstock_server.settings import AUTO, MAX_WORKERS, ServerSettings

NAME: Final = "NAME"
"""Stands for a name that the file's writer chooses."""
_KINDS: Final[dict[object, str]] = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "string",
    Path: "path",
    Any: "any",
}
_ATTRIBUTE: Final = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {8}.*)*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: in its table.
        kind: what it takes, in words.
        default: its value where the file does not have it; None is none.
        is_required: the table must have it.
        meaning: what it does; sentences.
    """

    name: str
    kind: str
    default: Any
    is_required: bool
    meaning: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the file.

    Attributes:
        name: `drift`, or `drift.models.NAME` for one of any name; "" for the settings above all tables.
        record: what it is read into.
        meaning: what it is about; sentences.
    """

    name: str
    record: type
    meaning: str
    settings: tuple[Setting, ...]


def tables() -> Iterator[Table]:
    """All tables of the settings file, each before those within it."""
    yield from _tables(ServerSettings, "", meaning_of(ServerSettings), {})


def _tables(record: type, name: str, meaning: str, also: Mapping[str, str]) -> Iterator[Table]:
    meanings = {**also, **meanings_of(record)}
    settings, within = [], []
    prefix = f"{name}." if name else ""
    for each, hint in _fields(record):
        if isinstance(kind := _plain(hint), type) and is_dataclass(kind):
            within.append(_tables(kind, prefix + each.name, meaning_of(kind), {}))
        elif kind := record_by_name(hint):
            own = f"{prefix}{each.name}.{NAME}"
            said = _OF_A_MODEL.format(name) if each.name == "models" else meaning_of(kind)
            within.append(_tables(kind, own, said, meanings))
        else:
            default = _default(each)
            is_required = default is MISSING
            kind_words = (
                f"{words(hint)}, or {AUTO!r}".replace("'", '"') if (record, each.name) in _AUTO else words(hint)
            )
            settings.append(
                Setting(
                    each.name, kind_words, None if is_required else default, is_required, meanings.get(each.name, "")
                )
            )
    yield Table(name, record, meaning, tuple(settings))
    for inner in within:
        yield from inner


_OF_A_MODEL: Final = "One model's own values, in place of those in `[{}]`, where the others come from."
_AUTO: Final = {(ServerSettings, "workers")}


@cache
def _fields(record: Any) -> list[tuple[Field[Any], Any]]:
    hints = get_type_hints(record)
    return [(each, hints[each.name]) for each in fields(record)]


def _default(each: Field[Any]) -> Any:
    return each.default_factory() if each.default_factory is not MISSING else each.default


def _plain(hint: Any) -> Any:
    """A kind without None."""
    if get_origin(hint) in (Union, UnionType):
        (*kinds,) = (kind for kind in get_args(hint) if kind is not NoneType)
        return kinds[0] if len(kinds) == 1 else hint
    return hint


def record_by_name(hint: Any) -> type | None:
    """The record of which a setting has some, each by a name; None if it has none."""
    if get_origin(kind := _plain(hint)) is dict:
        _, value = get_args(kind)
        return value if isinstance(value, type) and is_dataclass(value) else None
    return None


def words(hint: Any) -> str:
    """What a setting takes, in words.

    >>> words(tuple[str, ...] | None), words(Literal["rows", "request"])
    ('list of strings', '"rows" or "request"')
    """
    kind = _plain(hint)
    if kind in _KINDS:
        return _KINDS[kind]
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(f'"{each}"' for each in inner)
    if origin is tuple:
        return f"list of {words(inner[0])}" + ("" if get_origin(inner[0]) else "s")
    if origin is dict:
        return f"table of {words(inner[1])}"
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(words, inner)))
    raise TypeError(f"there are no words for {hint}")


def meaning_of(record: type) -> str:
    """What a record is about: the first paragraph of its docstring."""
    return " ".join(cleandoc(record.__doc__ or "").partition("\n\n")[0].split())


def meanings_of(record: type) -> dict[str, str]:
    """What a record's docstring says of its fields; several may share what is said."""
    _, _, listed = cleandoc(record.__doc__ or "").partition("Attributes:\n")
    return {
        name: _sentence(" ".join(text.split()))
        for names, text in _ATTRIBUTE.findall(listed)
        for name in names.split(", ")
    }


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def schema() -> dict[str, Any]:
    """The settings file's JSON Schema, draft 2020-12: an editor completes and explains by it."""

    def path(kind: type) -> dict[str, Any]:
        if kind is Path:
            return {"type": "string", "format": "path"}
        raise NotImplementedError

    records: dict[type, Table] = {}
    for table in tables():
        records.setdefault(table.record, table)
    _, components = msgspec.json.schema_components(
        [ServerSettings, *records], schema_hook=path, ref_template="#/$defs/{name}"
    )
    named = {_component(record, components): table for record, table in records.items()}
    for name, component in components.items():
        component.pop("title", None)
        component["additionalProperties"] = False
        component["description"] = named[name].meaning
        meanings = {setting.name: setting.meaning for setting in named[name].settings}
        for key, value in component["properties"].items():
            component["properties"][key] = _without_null(value) | {"description": meanings.get(key, "")}
    server = components.pop(_component(ServerSettings, components))
    workers = server["properties"]["workers"]
    del workers["type"]
    workers["anyOf"] = [{"type": "integer", "minimum": 1, "maximum": MAX_WORKERS}, {"const": AUTO}]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Settings of a Penstock server"}
    return {**head, **server, "$defs": components}


def _without_null(value: dict[str, Any]) -> dict[str, Any]:
    """A property without null, which TOML has not: a setting is absent instead."""
    kinds = [kind for kind in value.get("anyOf", ()) if kind != {"type": "null"}]
    rest = {key: held for key, held in value.items() if key != "anyOf" and held is not None}
    return rest | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})


def _component(record: type, components: Mapping[str, Any]) -> str:
    """What msgspec calls a record: its name, or where it is too if two have the same."""
    if record.__name__ in components:
        return record.__name__
    return f"{record.__module__}.{record.__qualname__}"
