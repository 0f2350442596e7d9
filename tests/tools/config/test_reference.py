"""What is said of settings is whole: each has its kind, its default and its meaning; the schema agrees with the server."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.settings import ServerSettings, read_settings
from penstock_tools.config.reference import NAME, schema, tables

TABLES = {table.name: table for table in tables()}


@pytest.mark.parametrize("name", TABLES)
def test_every_setting_is_explained(name: str) -> None:
    table = TABLES[name]
    assert table.meaning.endswith(".")
    for setting in table.settings:
        assert setting.meaning[-1] in ".:", setting
        assert setting.meaning[0] == setting.meaning[0].upper(), setting
        assert setting.kind


def test_every_field_of_every_record_is_a_setting_or_a_table() -> None:
    def names(record: Any, at: str) -> set[str]:
        found = set()
        for each in fields(record):
            held = getattr(record, each.name)
            found |= names(held, f"{at}{each.name}.") if is_dataclass(held) else {f"{at}{each.name}"}
        return found

    listed = {
        f"{name}.{setting.name}".removeprefix(".") for name, table in TABLES.items() for setting in table.settings
    }
    by_name = {name.partition(f".{NAME}")[0] for name in TABLES if NAME in name}
    assert names(ServerSettings(), "") == {name for name in listed if NAME not in name} | by_name


def test_defaults_are_the_servers() -> None:
    found = {setting.name: setting for setting in TABLES["drift"].settings}
    assert (found["window_rows"].default, found["window_rows"].kind) == (10_000, "integer")
    assert (found["minimum_effect"].default, found["minimum_effect"].kind) == (None, "number")
    required = {setting.name for setting in TABLES[f"access.rules.{NAME}"].settings if setting.is_required}
    assert required == {"who", "may"}


CASES = [
    ("", True),
    ('workers = "auto"', True),
    ("workers = 3", True),
    ('workers = "all"', False),
    ('port = "9000"', False),
    ("prot = 9000", False),
    ("[drift]\nwindow_rows = 5000\n[drift.models.fraud]\nminimum_effect = 0.2", True),
    ("[drift]\nwindow = 5000", False),
    ("[drift.models.fraud]\nseries = 2", False),
    ('[access.rules.all]\nwho = ["*"]\nmay = ["infer"]', True),
    ('[access.rules.all]\nwho = ["*"]\nmay = ["dance"]', False),
    ('[access.rules.all]\nwho = ["*"]', False),
    ('[batching]\nbatching = "columns"', False),
    ('[request_log]\ndirectory = "/var/log/penstock"', True),
    ('[execution.options.cuda]\ngpu_mem_limit = "1"\ndo_copy_in_default_stream = true', True),
]


@pytest.mark.parametrize(("text", "is_right"), CASES)
def test_the_schema_takes_what_the_server_takes(text: str, is_right: bool, tmp_path: Path) -> None:
    validator = jsonschema.Draft202012Validator(schema())
    assert validator.is_valid(tomllib.loads(text)) is is_right
    file = tmp_path / "penstock.toml"
    file.write_text(text)
    if is_right:
        read_settings(file)
    else:
        with pytest.raises(InvalidInputError):
            read_settings(file)


def test_the_schema_is_one_and_explains() -> None:
    found = schema()
    jsonschema.Draft202012Validator.check_schema(found)

    def walk(place: str, node: Any) -> None:
        assert isinstance(node, Mapping)
        for name, value in node["properties"].items():
            assert value.get("description") or "$ref" in value or name in ("models", "rules", "actions", "issuers"), (
                place
            )
        assert node["additionalProperties"] is False

    for name, node in {"": found, **found["$defs"]}.items():
        walk(name, node)
    assert "null" not in json.dumps(found)
