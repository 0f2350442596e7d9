from pathlib import Path
from random import Random

import pytest

from bench import guesses
from bench.guesses import Guess, Tokens, changed_message, complaint, guess
from penstock import inference_pb2 as pb

MESSAGE = pb.ModelInferRequest(model_name="tabular").SerializeToString()
OTHER = pb.ModelInferRequest(model_name="another").SerializeToString()


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path)


def test_whose_a_header_is(tokens: Tokens) -> None:
    assert tokens.owner(f"Bearer {tokens.static}".encode()) == "one"
    assert tokens.owner(f"bearer   {tokens.signed}".encode()) == "one"
    assert tokens.owner(f"Bearer {tokens.other}".encode()) == "other"
    for value in (
        tokens.static,
        f"Basic {tokens.static}",
        f"Bearer {tokens.static}x",
        "Bearer",
        "Bearer a.b.c",
        "\xff",
    ):
        assert tokens.owner(value.encode("latin-1")) == ""
    assert all(tokens.owner(f"Bearer {token}".encode()) == "" for token in tokens.refused)


@pytest.mark.parametrize(
    ("who", "message", "verdict", "is_right"),
    [
        ("static", MESSAGE, "", True),
        ("signed", MESSAGE, "", True),
        ("static", MESSAGE, "grpc-status 3: no such input", True),
        ("static", MESSAGE, "grpc-status 16: x", False),
        ("static", MESSAGE, "grpc-status 7: x", False),
        ("static", OTHER, "grpc-status 7: x", True),
        ("static", OTHER, "", False),
        ("static", OTHER, "grpc-status 5: no such model", False),
        ("static", b"\x0a\x05ab", "grpc-status 3: x", True),
        ("static", b"\x0a\x05ab", "", False),
        ("other", OTHER, "grpc-status 5: no such model", True),
        ("other", OTHER, "", False),
        ("other", MESSAGE, "", False),
        ("nobody", MESSAGE, "grpc-status 16: x", True),
        ("nobody", MESSAGE, "reset with HTTP/2 error 1", True),
        ("nobody", MESSAGE, "grpc-status 7: x", False),
        ("nobody", MESSAGE, "", False),
    ],
)
def test_what_a_guess_should_hear(tokens: Tokens, who: str, message: bytes, verdict: str, is_right: bool) -> None:
    value = f"Bearer {getattr(tokens, who, 'nothing')}".encode()
    assert (complaint(Guess(value, message), verdict, tokens) == "") is is_right


def test_guesses_are_near_and_can_be_made_again(tokens: Tokens) -> None:
    made = [guess(Random(seed), tokens, MESSAGE) for seed in range(300)]
    assert made == [guess(Random(seed), tokens, MESSAGE) for seed in range(300)]
    owners = {tokens.owner(each.value) for each in made}
    assert owners == {"", "one", "other"}
    assert len({each.message for each in made}) > 30
    assert len({changed_message(Random(seed), MESSAGE) for seed in range(100)}) > 20


@pytest.mark.slow
@pytest.mark.long  # it sends load
def test_a_server_lets_none_of_them_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert guesses.main(["--count", "3000", "--seed", "5"]) == 0
    assert "; 0 found" in capsys.readouterr().out
