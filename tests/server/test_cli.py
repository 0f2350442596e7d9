import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock_server import cli
from penstock_server.app import Addresses
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.settings import ServerSettings

ADDRESSES = Addresses("127.0.0.1:8001", "127.0.0.1:8002", "1.2", ("fraud 3",), ("churn: it has no champion",))


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServerSettings]:
    """The settings of the servers that were run, none of which is a server."""
    found: list[ServerSettings] = []

    async def serve(settings: ServerSettings, on_ready: Any) -> None:
        found.append(settings)
        on_ready(ADDRESSES)

    monkeypatch.setattr(cli, "serve", serve)
    monkeypatch.setattr(cli, "configure_logging", lambda *_: None)
    monkeypatch.setattr(cli, "default_registry", lambda: "the default")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return found


@pytest.mark.parametrize(
    ("options", "tracking", "registry"),
    [
        ({}, None, "the default"),
        ({"registry": "sqlite:///own.db"}, None, "sqlite:///own.db"),
        ({"registry": "sqlite:///own.db"}, "http://mlflow", "sqlite:///own.db"),
        ({"model_repository": Path("models")}, None, None),
        ({"model_repository": Path("models")}, "http://mlflow", "the default"),
    ],
)
def test_which_registry_is_followed(
    served: list[ServerSettings],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    tracking: str | None,
    registry: str | None,
) -> None:
    if tracking is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    cli.run(**options)
    (settings,) = served
    assert settings.registry == registry


def test_options_win_over_the_file_and_the_file_over_defaults(served: list[ServerSettings], tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text('models = ["churn"]\nport = 1\nhttp_port = 2\nworkers = 3')
    cli.run(config=file, port=9, models=[])
    (settings,) = served
    assert (settings.models, settings.port, settings.http_port, settings.workers) == (("churn",), 9, 2, 3)
    cli.run(config=file, models=["fraud"], transport="aio")
    assert (served[1].models, served[1].transport) == (("fraud",), "aio")


def test_a_wrong_setting_starts_nothing(served: list[ServerSettings]) -> None:
    with pytest.raises(InvalidInputError, match="workers is 0, expected 1 to 256"):
        cli.run(workers=0)
    assert served == []


def test_a_ready_server_says_where_it_listens(served: list[ServerSettings], capsys: pytest.CaptureFixture[str]) -> None:
    cli.run()
    assert capsys.readouterr().out == (
        "penstock is ready: grpc 127.0.0.1:8001  http 127.0.0.1:8002  version 1.2  serves fraud 3\n"
        "  not served: churn: it has no champion\n"
    )


def test_a_ready_server_says_where_rest_is(
    served: list[ServerSettings], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(globals(), "ADDRESSES", replace(ADDRESSES, rest="127.0.0.1:8000"))
    cli.run(rest_port=8000)
    assert "http 127.0.0.1:8002  rest 127.0.0.1:8000  version 1.2" in capsys.readouterr().out
    assert served[0].rest_port == 8000


def test_a_check_starts_nothing(
    served: list[ServerSettings], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(model_repository=tmp_path, port=0, http_port=0, only_check=True)
    assert capsys.readouterr().out.endswith("a server can start with these settings\n")
    with pytest.raises(InvalidInputError, match=r"the model repository .*/none cannot be read"):
        cli.run(model_repository=tmp_path / "none", port=0, http_port=0, only_check=True)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UnavailableError, match=r"for HTTP: .* in use; choose another with --http-port"):
            cli.run(model_repository=tmp_path, port=0, http_port=other.getsockname()[1], only_check=True)
    assert served == []
