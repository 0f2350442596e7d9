import io
import time
from pathlib import Path

import pytest

from penstock_server.access.tokens import hash_of, line_of, read_tokens
from tests.server.access.conftest import AUDIENCE, ISSUER, TokenIssuer


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "tokens").write_text(f"{line_of('shop', 'good')}\n{line_of('old', 'ended', '2020-01-01')}\n")
    (tmp_path / "keys").write_text(TokenIssuer().key_set)
    file = tmp_path / "penstock.toml"
    file.write_text(
        f"""
        [access]
        tokens = "{tmp_path}/tokens"
        [access.issuers.corp]
        issuer = "{ISSUER}"
        audience = "{AUDIENCE}"
        jwks = "{tmp_path}/keys"
        [access.rules.shop]
        who = ["token:shop", "token:old"]
        may = ["read", "infer"]
        models = ["shop-*"]
        requests_per_s = 2.5
        burst = 10
        """
    )
    return file


def test_a_new_token_and_its_line(run, capsys) -> None:
    assert run("token", "new", "shop", "--ends", "2027-01-31") == 0
    lines = capsys.readouterr().out.splitlines()
    token, line = lines[1], lines[4]
    assert read_tokens(line, "f")[hash_of(token)].names == ("token:shop",)
    assert token not in line
    assert run("token", "new", "a b") == 1
    assert run("token", "new", "a", "--ends", "soon") == 1


def check(run, capsys, monkeypatch, config: Path, token: str, *more: str) -> tuple[int, str]:
    monkeypatch.setenv("PENSTOCK_TOKEN", token)
    code = run("token", "check", "--config", str(config), *more)
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_what_a_token_may_do(run, capsys, monkeypatch, config) -> None:
    assert check(run, capsys, monkeypatch, config, "good") == (
        0,
        "token:shop, without an end\nrule shop: infer, read on shop-*\nat most 2.5 calls per second, 10 at once\n",
    )
    assert check(run, capsys, monkeypatch, config, "good", "--model", "shop-1")[1].endswith(
        "\non shop-1: infer, read\n"
    )
    code, said = check(run, capsys, monkeypatch, config, "good", "--model", "other")
    assert (code, said.splitlines()[-1]) == (1, "on other: nothing")
    signed = TokenIssuer().token(exp=time.time() + 600)
    code, said = check(run, capsys, monkeypatch, config, signed)
    assert code == 0
    assert said.startswith("jwt:corp:shop, until 2")
    assert "it may do nothing" in said


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("bad", "not in the file of tokens"),
        ("ended", "the token of token:old has ended"),
        (TokenIssuer().token(aud="x"), "the token is refused: InvalidAudience"),
        (TokenIssuer().token("two"), "signed with a key that corp does not have"),
    ],
)
def test_why_a_token_is_refused(run, capsys, monkeypatch, config, token: str, said: str) -> None:
    code, text = check(run, capsys, monkeypatch, config, token)
    assert code == 1
    assert said in text
    assert token not in text.replace("has ended", "")


def test_it_may_come_by_a_pipe(run, capsys, monkeypatch, config) -> None:
    monkeypatch.delenv("PENSTOCK_TOKEN", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("good\n"))
    assert run("token", "check", "--config", str(config)) == 0
    assert capsys.readouterr().out.startswith("token:shop")


def test_without_rules_there_is_nothing_to_check(run, capsys, monkeypatch, tmp_path) -> None:
    (tmp_path / "penstock.toml").write_text("")
    code, said = check(run, capsys, monkeypatch, tmp_path / "penstock.toml", "good")
    assert code == 1
    assert "asks nobody" in said
