"""`python -m bench.guesses`: changes tokens and requests at random, and asks a real server with each.

The server has rules: one caller may ask one model, another may ask a model that is not there. Every guess is a token, a
request, or both, with one to three random changes. What it should hear is decided here, apart from the server: a token is
somebody's if it is one of the given texts, or a signed one with the same bytes of signature, of which Base64 has several
spellings; a model is the one that protobuf reads. Found is what is let through without being given, what hears more than it
should, and a worker that ends.
"""

import argparse
import base64
import binascii
import json
import socket
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from google.protobuf.message import DecodeError

from bench import inference, models
from bench.load.connection import Calls, Connection
from bench.load.headers import OK, request_block
from bench.protocols import GRPC
from bench.servers.measured import SERVERS, running
from penstock import inference_pb2 as pb
from penstock_client.http2.frames import ProtocolError
from penstock_server.access.tokens import line_of, new_token
from penstock_server.errors import UnavailableError
from penstock_tools.server_process import ServerProcess

_MODEL: Final = "tabular"
_OTHER: Final = "another"
_BATCH: Final = 128
"""Calls in flight on each connection."""
_CONNECTIONS: Final = 2
_CALLS_PER_CONNECTION: Final = 4_000
"""So that few enough streams are reset on one: a server ends connections that have too many."""
_READY_S: Final = 60.0
_RULES: Final = """
[access]
metrics = "open"
tokens = "{folder}/tokens"
[access.issuers.one]
issuer = "https://issuer.example"
audience = "penstock"
jwks = "{folder}/keys"
[access.rules.one]
who = ["token:one", "jwt:one:caller"]
may = ["infer"]
models = ["{model}"]
[access.rules.other]
who = ["token:other"]
may = ["infer"]
models = ["{other}"]
[access.rules.reader]
who = ["anybody"]
may = ["read"]
models = ["open"]
"""
_CHARACTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.=+/ ,:;{}\"'~"
UNKNOWN, DENIED, INVALID = "16", "7", "3"


@dataclass(frozen=True, slots=True)
class Guess:
    """A value of `authorization`, and a message."""

    value: bytes
    message: bytes


class Tokens:
    """The tokens that are given, what they are changed into, and whose a text is.

    Args:
        folder: where the server's files are written.
    """

    def __init__(self, folder: Path) -> None:
        import jwt
        from cryptography.hazmat.primitives.asymmetric import ec

        key, foreign = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        public = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        self.static, self.other = new_token(), new_token()
        lines = (line_of("one", self.static), line_of("other", self.other))
        (folder / "tokens").write_text("\n".join(lines))
        (folder / "keys").write_text(json.dumps({"keys": [{**public, "kid": "k"}]}))
        claims = {
            "iss": "https://issuer.example",
            "aud": "penstock",
            "sub": "caller",
            "exp": int(time.time()) + 86_400,
        }

        def signed(by: ec.EllipticCurvePrivateKey, **changes: object) -> str:
            return jwt.encode({**claims, **changes}, by, algorithm="ES256", headers={"kid": "k"})

        self.signed = signed(key)
        self.given = tuple(token.encode() for token in (self.static, self.other, self.signed))
        self._none = jwt.encode(claims, None, algorithm="none")
        self.refused = [
            signed(foreign),
            signed(key, exp=int(time.time()) - 3600),
            signed(key, aud="another"),
            signed(key, iss="https://another.example"),
            signed(key, nbf=int(time.time()) + 86_400),
            self._none,
        ]

    def changed(self, random: Random) -> str:
        """A text that is near a token."""
        kind = random.random()
        if kind < 0.15:
            return random.choice(self.refused)
        token = random.choice((self.static, self.other, self.signed, self.signed))
        if kind < 0.25 and token is self.signed:
            return self._forged(random)
        for _ in range(random.randint(1, 3)):
            at = random.randrange(len(token) + 1)
            more = "".join(random.choice(_CHARACTERS) for _ in range(random.randint(0, 3)))
            token = token[:at] + more + token[at + random.randint(0, 3) :]
        return token

    def _forged(self, random: Random) -> str:
        """The signed token with another header or other claims."""
        head, body, signature = self.signed.split(".")
        part = json.loads(_decoded(head)) if (is_head := random.random() < 0.5) else json.loads(_decoded(body))
        name = random.choice([*part, "alg", "kid", "crit", "jwk", "x5c", "sub", "exp", "aud"])
        part[name] = random.choice(["none", "HS256", "", None, 0, 1e300, [], {}, "caller", ["penstock"], -1, True])
        made = base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        return f"{made}.{body}.{signature}" if is_head else f"{head}.{made}.{signature}"

    def owner(self, value: bytes) -> str:
        """Whose a header's value is: "one", "other", or "" for nobody's."""
        text = value.decode("latin-1")
        if text[:7].lower() != "bearer ":
            return ""
        token = text[7:].strip(" ")
        if token == self.other:
            return "other"
        return "one" if token == self.static or self._is_signed(token) else ""

    def _is_signed(self, token: str) -> bool:
        """Whether this is the signed token, perhaps with its signature spelt otherwise."""
        said, _, signature = token.rpartition(".")
        own, _, own_signature = self.signed.rpartition(".")
        try:
            return said == own and _decoded(signature) == _decoded(own_signature)
        except (binascii.Error, ValueError):
            return False


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part.encode("ascii") + b"=" * (-len(part) % 4))


def changed_message(random: Random, message: bytes) -> bytes:
    """A message that names another model, names it twice, or is damaged."""
    kind = random.random()
    name = random.choice((_MODEL, _OTHER, "open", "", "*")).encode()
    field = b"\x0a" + bytes((len(name),)) + name
    if kind < 0.25:
        return message + field
    if kind < 0.5:
        return field + message
    if kind < 0.6:  # the same tag, longer than it need be
        return message + b"\x8a\x00" + field[1:]
    if kind < 0.7:  # in a group that nobody knows
        return message + b"\xa3\x06" + field + b"\xa4\x06"
    at = random.randrange(len(message) + 1)
    return message[:at] + random.randbytes(random.randint(0, 3)) + message[at + random.randint(0, 3) :]


def guess(random: Random, tokens: Tokens, message: bytes) -> Guess:
    """One guess."""
    kind = random.random()
    token = tokens.changed(random) if kind < 0.7 else random.choice((tokens.static, tokens.other, tokens.signed))
    scheme = random.choice(("Bearer ", "Bearer ", "Bearer ", "bearer ", "Bearer  ", "Basic ", "Bearer", ""))
    value = f"{scheme}{token}".strip(" ").encode("latin-1")
    return Guess(value, changed_message(random, message) if kind > 0.6 else message)


def complaint(guessed: Guess, verdict: str, tokens: Tokens) -> str:
    """What is wrong with what a guess heard; "" if nothing is."""
    heard = verdict.removeprefix("grpc-status ").partition(":")[0]
    who = tokens.owner(guessed.value)
    try:
        model = pb.ModelInferRequest.FromString(guessed.message).model_name
    except DecodeError:
        model = None
    if who and heard == UNKNOWN and not guessed.value.endswith(tokens.given):
        return ""  # a signature that is spelt otherwise need not be understood
    wanted = {"one": _MODEL, "other": _OTHER}.get(who)
    if who == "":
        # A reset is what HTTP/2 says to bytes that no header may have.
        right = heard == UNKNOWN or heard.startswith("reset")
    elif model is None:
        right = heard in (INVALID, DENIED)
    elif model == wanted:
        right = heard not in (UNKNOWN, DENIED)
    else:
        right = heard == DENIED
    if right and not (heard == OK and (who, model) != ("one", _MODEL)):
        return ""
    return f"{who or 'nobody'} asked for {model!r} and heard {verdict or 'an answer'!r}: {guessed}"


class _Link:
    """A connection whose calls each have headers and a message of their own."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._block = request_block(inference.METHOD, address)
        self._socket = socket.create_connection((host, int(port)), timeout=_READY_S)
        self._connection = Connection(Calls(self._block, (b"",)))
        self.made = 0

    def send(self, guesses: Sequence[Guess]) -> None:
        for number, each in enumerate(guesses):
            size = len(each.value)
            length = bytes((size,)) if size < 127 else b"\x7f" + _varint(size - 127)
            block = self._block + b"\x00\x0dauthorization" + length + each.value
            self._connection.submit(float(number), Calls(block, (each.message,)))
        self.made += len(guesses)
        self._socket.sendall(self._connection.take_output())

    def verdicts(self, count: int) -> list[str]:
        """What each of the last calls heard.

        Raises:
            ProtocolError, OSError: the connection is over.
        """
        found = [""] * count
        left = count
        while left:
            data = self._socket.recv(1 << 18)
            if not data:
                raise ProtocolError("the server ended the connection")
            for number, verdict in self._connection.receive(data):
                found[int(number)] = verdict
                left -= 1
            if output := self._connection.take_output():
                self._socket.sendall(output)
        return found

    def close(self) -> None:
        self._socket.close()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


@contextmanager
def _serving() -> Iterator[tuple[ServerProcess, Tokens, bytes]]:
    """A server, its tokens, and a message that it answers."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        files = models.write(folder / "models", {_MODEL})
        tokens = Tokens(folder)
        config = folder / "penstock.toml"
        config.write_text(_RULES.format(folder=folder, model=_MODEL, other=_OTHER))
        command = [*SERVERS["penstock"].command(folder / "models", files), "--config", str(config)]
        process = stack.enter_context(running(command))
        message = GRPC.messages(_MODEL, rows=1, copies=1)[0]
        give_up_s = time.monotonic() + _READY_S
        while _asked(process.grpc, [Guess(f"Bearer {tokens.static}".encode(), message)]) != [OK]:
            if time.monotonic() > give_up_s:
                raise UnavailableError("the server answers no call")
        yield process, tokens, message


def _asked(address: str, guesses: Sequence[Guess]) -> list[str]:
    link = _Link(address)
    try:
        link.send(guesses)
        return link.verdicts(len(guesses))
    finally:
        link.close()


def _ends(process: ServerProcess) -> int:
    """How many workers have ended."""
    metrics = urllib.request.urlopen(f"http://{process.http}/metrics", timeout=10).read().decode()
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in metrics.splitlines()
        if line.startswith("penstock_worker_restarts_total")
    )


def play(count: int, seed: int, seconds: float) -> tuple[Counter[str], list[str]]:
    """How often each verdict was heard, and what was found."""
    random = Random(seed)
    heard: Counter[str] = Counter()
    found: list[str] = []
    end_s = time.monotonic() + seconds
    with _serving() as (process, tokens, message):
        known = [Guess(f"Bearer {token}".encode(), message) for token in (tokens.static, tokens.signed)]
        links = [_Link(process.grpc) for _ in range(_CONNECTIONS)]
        while heard.total() < count and not found and time.monotonic() < end_s:
            batches = [[*known, *(guess(random, tokens, message) for _ in range(_BATCH))] for _ in links]
            for at, link in enumerate(links):
                if link.made > _CALLS_PER_CONNECTION:
                    link.close()
                    links[at] = _Link(process.grpc)
                links[at].send(batches[at])
            for link, batch in zip(links, batches, strict=True):
                try:
                    verdicts = link.verdicts(len(batch))
                except (ProtocolError, OSError) as error:
                    found.append(f"a connection ended: {error}")
                    break
                if verdicts[: len(known)] != [OK] * len(known):
                    found.append(f"callers that are known heard {verdicts[: len(known)]}")
                for guessed, verdict in zip(batch[len(known) :], verdicts[len(known) :], strict=True):
                    heard[verdict.partition(":")[0] or "an answer"] += 1
                    if said := complaint(guessed, verdict, tokens):
                        found.append(said)
        if ended := _ends(process):
            found.append(f"{ended} workers have ended")
    return heard, found


def main(arguments: Sequence[str] | None = None) -> int:
    """Asks, prints what was heard, and returns 1 if something was found, or 2 if nothing could be asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.guesses", description="Guesses tokens and requests.")
    parser.add_argument("--count", type=int, default=1_000_000, help="how many guesses (default: 1,000,000)")
    parser.add_argument("--seconds", type=float, default=1800, help="at most (default: 1,800)")
    parser.add_argument("--seed", type=int, default=1, help="of the changes (default: 1)")
    options = parser.parse_args(arguments)
    started_s = time.monotonic()
    try:
        heard, found = play(options.count, options.seed, options.seconds)
    except (UnavailableError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    took_s = time.monotonic() - started_s
    said = ", ".join(f"{count:,} {verdict}" for verdict, count in heard.most_common())
    sys.stdout.write(f"{heard.total():,} guesses in {took_s:.0f} s: {said}; {len(found)} found\n")
    sys.stdout.writelines(f"{each}\n" for each in found[:20])
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
