import contextlib
import re
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.sources.registry import artifact_location, check_uri, default_registry, redacted, without_secrets


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_users_own_registry_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://registry:5000")
    assert default_registry() == "http://registry:5000"


def test_the_embedded_registry_is_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path / "new folder"))
    assert default_registry() == f"sqlite:///{tmp_path}/new folder/registry.db"
    assert (tmp_path / "new folder").is_dir()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path / "file" / "below"))
    with pytest.raises(UnavailableError, match="cannot be created: Not a directory"):
        default_registry()


def test_a_folder_that_no_uri_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path / "what?"))
    with pytest.raises(InvalidInputError, match="set PENSTOCK_DATA_DIR"):
        default_registry()


@pytest.mark.parametrize(
    ("registry", "location"),
    [
        ("sqlite:////data/registry.db", "file:///data/artifacts"),
        ("sqlite:////my data/registry.db", "file:///my%20data/artifacts"),
        ("http://registry:5000", None),
        ("postgresql://db/mlflow", None),
    ],
)
def test_artifacts_are_next_to_an_embedded_registry(registry: str, location: str | None) -> None:
    assert artifact_location(registry) == location


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://host:5000", "http://host:5000"),
        ("https://user:pw@host/path", "https://host/path"),
        ("postgresql://me:p@ss@db/mlflow?password=x", "postgresql://db/mlflow"),
        ("postgresql+psycopg2://me:p/a@s#s?@db:5432/mlflow", "postgresql+psycopg2://db:5432/mlflow"),
        ("http://host/?token=a@b", "http://b"),
        ("http://host/path;password=x", "http://host/path"),
        ("http://host/path#secret", "http://host/path"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dsecret", "mssql+pyodbc:///"),
        ("sqlite:////a@b/registry.db", "sqlite:////a@b/registry.db"),
        ("sqlite:////a/registry.db?password=x", "sqlite:////a/registry.db"),
        ("sqlite+pysqlcipher://:secret@/a.db?cipher=x", "sqlite+pysqlcipher:///a.db"),
        ("file:///a@b", "file:///a@b"),
        ("file://user:secret@host/a", "file://host/a"),
        ("user:secret@host:5000", "host:5000"),
        ("/folder/a@b", "/folder/a@b"),
        ("databricks", "databricks"),
    ],
)
def test_addresses_are_shown_without_secrets(uri: str, shown: str) -> None:
    assert redacted(uri) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "request to http://user:pw@host/api failed (see https://docs/x@y)",
            "request to http://host/api failed (see https://docs/x@y)",
        ),
        ("at postgresql://me:p/w@a@db/x: refused", "at postgresql://db/x: refused"),
        ("at https://token@host", "at https://host"),
        ("GET /api?password=abc&x=1 failed", "GET /api?password=***&x=1 failed"),
        ("GET /api?x=1&api_key=abc", "GET /api?x=1&api_key=***"),
        (
            "s3://b/k?X-Amz-Signature=abc&X-Amz-Security-Token=def",
            "s3://b/k?X-Amz-Signature=***&X-Amz-Security-Token=***",
        ),
        ("?sv=1&sig=abc%2F", "?sv=1&sig=***"),
        ('{"password": "abc", "user": "me"}', '{"password": "***", "user": "me"}'),
        ("dsn: host=db password=abc user=me", "dsn: host=db password=*** user=me"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("sent Basic dXNlcjpwQHNz", "sent Basic ***"),
        ("a basic error: token expired", "a basic error: token expired"),
        ("the key error", "the key error"),
    ],
)
def test_messages_lose_their_secrets(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


SECRETS = st.text(
    st.characters(exclude_categories=["C", "Z"], include_characters="@/:?#&=%'\"<>[]"), min_size=4, max_size=20
).filter(lambda secret: secret.strip("*"))


def texts_with_a_password(scheme: str, user: str, secret: str, written: str) -> list[str]:
    uri = f"{scheme}://{user}:{written}@db.example:5000/mlflow"
    return [
        uri,
        f"could not reach {uri}/api/2.0 ({written!r})",
        f"password {secret} is wrong",
        f"connect(host=db, password={secret!r})",
    ]


@given(
    secret=SECRETS, user=st.text("abc@/", max_size=5), scheme=st.sampled_from(["http", "https", "postgresql+psycopg2"])
)
def test_no_password_is_ever_shown(secret: str, user: str, scheme: str) -> None:
    assume(not any(secret in text for text in texts_with_a_password(scheme, user, "", "")))
    for written in (secret, quote(secret, safe="")):
        uri, *messages = texts_with_a_password(scheme, user, secret, written)
        assert secret not in redacted(uri)
        assert written not in redacted(uri)
        for message in (uri, *messages):
            hidden = without_secrets(message, uri)
            assert secret not in hidden.replace("***", "")
            assert written not in hidden.replace("***", "")


@given(
    secret=SECRETS.map(lambda secret: quote(secret, safe="")),
    name=st.sampled_from(
        ["password", "token", "api_key", "apikey", "access_key", "secret", "sslpassword", "PWD", "sig"]
    ),
    before=st.sampled_from(["", "a=1&"]),
)
def test_no_value_of_a_query_is_ever_shown(secret: str, name: str, before: str) -> None:
    address = f"postgresql://db.example/mlflow?{before}{name}="
    assume(secret not in address and unquote(secret) not in f"cannot open {address}: refused the value is wrong")
    uri = address + secret
    assert secret not in redacted(uri)
    assert secret not in without_secrets(f"cannot open {uri}: refused").replace("***", "")
    assert secret not in without_secrets(f"cannot open {unquote(uri)}", uri).replace("***", "")
    assert unquote(secret) not in without_secrets(f"the value {unquote(secret)} is wrong", uri).replace("***", "")


@given(text=st.text(max_size=100), uri=st.text(max_size=40))
def test_hiding_raises_nothing(text: str, uri: str) -> None:
    without_secrets(text, uri)
    redacted(uri)
    with contextlib.suppress(InvalidInputError):
        check_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "http://host:5000",
        "https://user:pw@host/path",
        "postgresql://me:pw@db/mlflow",
        "postgresql+psycopg2://db/mlflow",
        "mysql+pymysql://db/mlflow",
        "mssql+pyodbc:///?odbc_connect=x",
        "databricks",
        "databricks://profile",
        "databricks:profile",
        "databricks-uc",
        "uc:http://host",
        "file:///mlruns",
        "./mlruns",
        "/mlruns",
        "mlruns",
        "sqlite:////tmp/registry.db",
        "sqlite:///registry.db",
    ],
)
def test_every_address_that_mlflow_takes_passes(uri: str) -> None:
    check_uri(uri)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (
            "htp://user:secret@host",
            "the registry 'htp://host' has the unknown scheme 'htp'; expected one of http, https,",
        ),
        ("htp://host", "did you mean http"),
        ("postgres://db/x", "did you mean postgresql"),
        ("redis://db", "unknown scheme 'redis'"),
        ("host:5000", "unknown scheme 'host'"),
        ("http://", "names no host; expected http://HOST:PORT"),
        ("http:///x", "names no host"),
        ("http://host:port", "names no host"),
        ("http://host:99999", "names no host"),
        ("sqlite://", "names no file; expected sqlite:////FOLDER/FILE"),
        ("sqlite:///", "names no file"),
        ("sqlite:////no/such/folder/registry.db", "is in the folder /no/such/folder, which does not exist"),
        ("sqlite:////tmp", "is not a file; expected a database"),
    ],
)
def test_an_address_of_nothing_is_refused_in_one_sentence(uri: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(said)) as caught:
        check_uri(uri)
    assert "secret" not in str(caught.value)
