import pytest

from penstock_client import ServerUnavailableError
from penstock_server.errors import NotFoundError
from penstock_tools.cli import errors


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NotFoundError("there is no model 'a'"), "there is no model 'a'"),
        (ServerUnavailableError("connection refused", server="s:1"), "connection refused (the server at s:1)"),
        (
            ModuleNotFoundError("", name="sklearn.linear_model"),
            "this command needs sklearn, which is not installed; run: pip install 'penstock[tools]'",
        ),
        (
            ModuleNotFoundError("", name="typer"),
            "this command needs typer, which is not installed; run: pip install 'penstock[server]'",
        ),
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: Permission denied"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_user_can_mend_is_one_sentence(error, expected):
    assert errors.sentence(error) == expected


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("division by zero"), ModuleNotFoundError("x", name="penstock_tools.gone"), OSError("odd")],
)
def test_what_is_our_fault_says_how_to_see_more(error):
    text = errors.sentence(error)
    assert text.startswith(f"this should not have happened, {type(error).__name__}: ")
    assert text.endswith("penstock --debug COMMAND shows where")


def test_a_report_is_short_and_on_standard_error(capsys):
    assert errors.report(NotFoundError("there is no model 'a'")) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "penstock: there is no model 'a'\n")


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_tracebacks_are_shown_on_demand(monkeypatch, capsys, value, shown):
    monkeypatch.setenv("PENSTOCK_DEBUG", value)
    errors.report(ZeroDivisionError("division by zero"))
    assert ("ZeroDivisionError: division by zero\n" in capsys.readouterr().err.split("penstock: ")[0]) is shown


@pytest.mark.parametrize(
    ("module", "extra"),
    [("confluent_kafka", "stream"), ("fsspec.core", "batch"), ("sqlalchemy", "batch"), ("ray", "ray")],
)
def test_names_the_extra_that_a_command_needs(module, extra):
    told = errors.sentence(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert told.endswith(f"run: pip install 'penstock[{extra}]'")
