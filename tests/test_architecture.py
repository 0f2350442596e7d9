"""The source keeps to its architecture: directions of imports, the door of each library, and a page that is fresh."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.architecture import (
    DOORS,
    GROUND,
    MODULES,
    PACKAGES,
    PAGE,
    ROOMS,
    SOURCES,
    TOOLS_GROUND,
    classes,
    housed,
    imported_modules,
    imports,
    inside,
    is_there,
    is_within,
    names,
    page,
    place,
)


def test_the_packages_are_found() -> None:
    assert {name.partition(".")[0] for name in MODULES} == set(SOURCES)
    assert "penstock_server.errors" in imported_modules("penstock_server.call")


HOUSED = housed()


def own_imports(name: str) -> set[str]:
    """What a module imports of its own package, without the package's name."""
    package = name.partition(".")[0]
    return {inside(one) for one in imported_modules(name) if one.startswith(f"{package}.")}


def test_every_module_has_its_place() -> None:
    assert [name for name in HOUSED if not place(name)] == []


@pytest.mark.parametrize("package", ROOMS)
def test_every_place_is_there(package: str) -> None:
    assert [place for place in ROOMS[package] if f"{package}.{place}" not in MODULES] == []


@pytest.mark.long
def test_rooms_import_downwards() -> None:
    upwards = []
    for name in HOUSED:
        allowed = ROOMS[name.partition(".")[0]][place(name)] | {place(name)}
        upwards += [f"{name} -> {one}" for one in sorted(own_imports(name)) if not is_within(one, allowed)]
    assert upwards == []


@pytest.mark.long
@pytest.mark.parametrize("package", ROOMS)
def test_no_arrow_is_allowed_that_nobody_needs(package: str) -> None:
    used: dict[str, set[str]] = {each: set() for each in ROOMS[package]}
    for name in HOUSED:
        if name.startswith(f"{package}."):
            used[place(name)] |= own_imports(name)
    unused = [
        f"{each} -> {other}"
        for each, others in ROOMS[package].items()
        for other in others - GROUND - TOOLS_GROUND
        if not any(is_within(one, {other}) for one in used[each])
    ]
    assert unused == []


def test_packages_import_downwards() -> None:
    upwards = []
    for name in MODULES:
        ours = {one.partition(".")[0] for one in imports(name)} & SOURCES.keys()
        upwards += [f"{name} -> {one}" for one in sorted(ours - PACKAGES[name.partition(".")[0]])]
    assert upwards == []


@pytest.mark.parametrize("library", DOORS)
def test_a_library_comes_in_by_its_door(library: str) -> None:
    users = {name for name in MODULES if any(one.partition(".")[0] == library for one in imports(name))}
    assert [name for name in sorted(users) if not is_within(name, DOORS[library])] == []


@pytest.mark.parametrize("name", sorted(GROUND - {"log_setup", "parse"}))
def test_the_ground_needs_the_standard_library_alone(name: str) -> None:
    others = {one.partition(".")[0] for one in imports(f"penstock_server.{name}")} - {"penstock_server"}
    assert others <= sys.stdlib_module_names


@pytest.mark.long
def test_decoders_are_made_at_import() -> None:
    """Made in a thread, they can end the process (`models.strict_json`)."""
    texts = {name: path.read_text() for name, path in MODULES.items() if name.startswith("penstock_server.")}
    late = {
        f"{name}, line {call.lineno}: {ast.unparse(call)}"
        for name, text in texts.items()
        if "msgspec." in text
        for function in ast.walk(ast.parse(text))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("msgspec.")
        if call.func.attr == "Decoder" or (call.func.attr == "decode" and len(call.args) + len(call.keywords) > 1)
    }
    assert late == set()


def test_a_class_of_the_server_has_its_name_alone() -> None:
    """A name means one thing: whoever searches for it finds one."""
    homes: dict[str, list[str]] = {}
    for module in MODULES:
        if module.startswith("penstock_server."):
            for name in classes(module):
                homes.setdefault(name, []).append(module)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_nobody_waits_for_himself() -> None:
    try:
        TopologicalSorter({name: imported_modules(name) - {name} for name in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(error.args[1])}")


def test_no_package_imports_its_own_root() -> None:
    offenders = [
        name
        for name in MODULES
        for one in imports(name)
        if one in SOURCES or (one.count(".") == 1 and one.partition(".")[0] in SOURCES and one not in MODULES)
    ]
    assert [name for name in offenders if name.partition(".")[0] != "penstock_tools"] == []


@pytest.mark.long
def test_the_page_is_fresh() -> None:
    assert page() == PAGE.read_text(), "run `make architecture`"


def test_what_the_page_names_is_there() -> None:
    assert [name for name in sorted(names(PAGE.read_text())) if not is_there(name)] == []
