"""The source keeps to its architecture: directions of imports, the door of each library, and a page that is fresh."""

import sys
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.architecture import (
    DOORS,
    GROUND,
    IMPORTS,
    MAY_IMPORT,
    MODULES,
    PACKAGES,
    PAGE,
    SERVER,
    SOURCES,
    imported_modules,
    in_server,
    is_there,
    is_within,
    names,
    page,
    place,
)


def test_the_packages_are_found() -> None:
    assert {name.partition(".")[0] for name in MODULES} == set(SOURCES)
    assert "penstock_server.errors" in imported_modules("penstock_server.call")


def test_every_room_has_its_place() -> None:
    assert [name for name in SERVER if not place(name)] == []


def test_every_place_is_there() -> None:
    assert [place for place in MAY_IMPORT if f"penstock_server.{place}" not in MODULES] == []


@pytest.mark.parametrize("name", SERVER)
def test_rooms_import_downwards(name: str) -> None:
    ours = {in_server(one) for one in imported_modules(name) if one.startswith("penstock_server.")}
    allowed = MAY_IMPORT[place(name)] | {place(name)}
    assert sorted(one for one in ours if not is_within(one, allowed)) == []


@pytest.mark.parametrize("name", MODULES)
def test_packages_import_downwards(name: str) -> None:
    ours = {one.partition(".")[0] for one in IMPORTS[name]} & SOURCES.keys()
    assert ours <= PACKAGES[name.partition(".")[0]]


@pytest.mark.parametrize("library", DOORS)
def test_a_library_comes_in_by_its_door(library: str) -> None:
    users = {name for name in MODULES if any(one.partition(".")[0] == library for one in IMPORTS[name])}
    assert [name for name in sorted(users) if not is_within(name, DOORS[library])] == []


@pytest.mark.parametrize("name", sorted(GROUND - {"log_setup", "parse"}))
def test_the_ground_needs_the_standard_library_alone(name: str) -> None:
    others = {one.partition(".")[0] for one in IMPORTS[f"penstock_server.{name}"]} - {"penstock_server"}
    assert others <= sys.stdlib_module_names


def test_nobody_waits_for_himself() -> None:
    try:
        TopologicalSorter({name: imported_modules(name) - {name} for name in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(error.args[1])}")


def test_no_package_imports_its_own_root() -> None:
    offenders = [
        name
        for name in MODULES
        for one in IMPORTS[name]
        if one in SOURCES or (one.count(".") == 1 and one.partition(".")[0] in SOURCES and one not in MODULES)
    ]
    assert [name for name in offenders if name.partition(".")[0] != "penstock_tools"] == []


def test_the_page_is_fresh() -> None:
    assert page() == PAGE.read_text(), "run `make architecture`"


@pytest.mark.parametrize("name", sorted(names(PAGE.read_text())))
def test_what_the_page_names_is_there(name: str) -> None:
    assert is_there(name)
