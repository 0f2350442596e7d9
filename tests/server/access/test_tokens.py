import re
from contextlib import suppress
from datetime import UTC, datetime
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.access import tokens
from penstock_server.access.tokens import PREFIX, hash_of, line_of, new_token, read_token_file, read_tokens
from penstock_server.errors import InvalidInputError

HASH = hash_of("x").hex()


def test_a_new_token_is_found_by_its_line() -> None:
    token = new_token()
    assert token.startswith(PREFIX)
    assert len(token) >= len(PREFIX) + 43
    (identity,) = read_tokens(line_of("shop", token), "f").values()
    assert read_tokens(line_of("shop", token), "f")[hash_of(token)] == identity
    assert identity.names == ("token:shop",)
    assert identity.expires_s == inf
    assert token not in line_of("shop", token)


def test_lines_comments_and_ends() -> None:
    other = hash_of("y").hex().upper()
    text = f"# tokens\n\nshop {HASH} 2027-01-31  # until January\nother {other} 2027-01-31T12:00:00+02:00\n"
    found = read_tokens(text, "f")
    assert found[hash_of("x")].expires_s == datetime(2027, 1, 31, tzinfo=UTC).timestamp()
    assert found[hash_of("y")].expires_s == datetime(2027, 1, 31, 10, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("shop", "f, line 1 has 1 words"),
        (f"shop {HASH} 2027-01-31 more", "f, line 1 has 4 words"),
        (f"\n-shop {HASH}", "f, line 2 has the name '-shop'"),
        ("shop abc", "f, line 1 has no SHA-256"),
        (f"shop {HASH} tomorrow", "f, line 1 ends at 'tomorrow'"),
        (f"a {HASH}\nb {HASH}", "f, line 2 has the hash of another line"),
    ],
)
def test_a_line_that_is_none_is_named(text: str, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(reason)):
        read_tokens(text, "f")


def test_a_line_is_checked_when_it_is_made() -> None:
    for name, ends in (("a b", ""), ("", ""), ("a", "tomorrow"), ("a" * 129, "")):
        with pytest.raises(InvalidInputError, match="the new token, line 1"):
            line_of(name, "x", ends)


def test_a_file_may_be_large_and_not_huge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tokens.MAX_FILE_BYTES == 16 * 1024 * 1024
    monkeypatch.setattr(tokens, "MAX_FILE_BYTES", 10)
    (tmp_path / "file").write_text("x" * 10)
    assert tokens.read_text(tmp_path / "file") == "x" * 10
    (tmp_path / "file").write_text("x" * 11)
    with pytest.raises(InvalidInputError, match="more than 10 bytes"):
        tokens.read_text(tmp_path / "file")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot read"):
        read_token_file(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match="not text"):
        read_token_file(tmp_path / "binary")


@given(st.text())
def test_no_text_does_more_than_be_refused(text: str) -> None:
    with suppress(InvalidInputError):
        assert all(len(digest) == 32 for digest in read_tokens(text, "f"))
