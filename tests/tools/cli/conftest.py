import pytest

from penstock_tools.cli.main import main


@pytest.fixture(autouse=True)
def no_debug(monkeypatch):
    # --debug sets it for the process; monkeypatch puts back what was there.
    monkeypatch.setenv("PENSTOCK_DEBUG", "0")


@pytest.fixture
def run():
    """Runs a command line in this process; gives the exit code."""

    def ran(*arguments):
        with pytest.raises(SystemExit) as exited:
            main([str(argument) for argument in arguments])
        return exited.value.code or 0

    return ran
