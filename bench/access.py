"""`python -m bench.access`: what it costs to ask callers who they are.

Two servers run side by side and get the same load in turn, 8 connections with 8 calls in flight each: one without rules, and
one whose callers must show a token. Both get the same headers, so the ratios are what the server makes of them; what it costs
to receive them is the difference to the calls that have none.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench import inference, models
from bench.in_turn import Load, best, costs_of, measured
from bench.known_callers import cost_ns
from bench.load.plan import LoadPlan
from bench.protocols import GRPC
from bench.servers.measured import SERVERS, running
from penstock_server.access.tokens import line_of, new_token

_MODEL: Final = "tabular"
MOST: Final = 1.05
"""What CPU per request may be with rules, as a multiple of what it is without."""
_RULES: Final = """
[access]
metrics = "open"
tokens = "{folder}/tokens"
[access.issuers.bench]
issuer = "https://issuer.example"
audience = "penstock"
jwks = "{folder}/keys"
[access.rules.bench]
who = ["token:bench", "jwt:bench:*"]
may = ["infer"]
"""


def credentials(folder: Path) -> Mapping[str, str]:
    """Writes a file of tokens and a set of keys; a token of each kind, by its kind."""
    import jwt
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    static = new_token()
    (folder / "tokens").write_text(line_of("bench", static))
    (folder / "keys").write_text(json.dumps({"keys": [{**public, "kid": "one"}]}))
    claims = {"iss": "https://issuer.example", "aud": "penstock", "sub": "bench", "exp": time.time() + 86_400}
    return {"no": "", "static": static, "signed": jwt.encode(claims, key, algorithm="RS256", headers={"kid": "one"})}


@contextmanager
def _loads(seconds: float) -> Iterator[dict[str, Load]]:
    """The loads of a server without rules and of one with, by its name and the kind of token."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        files = models.write(folder / "models", {_MODEL})
        tokens = credentials(folder)
        messages = GRPC.messages(_MODEL, rows=1, copies=1)
        found = {}
        for name, text in (("off", ""), ("on", _RULES.format(folder=folder))):
            config = folder / f"{name}.toml"
            config.write_text(text)
            command = [*SERVERS["penstock"].command(folder / "models", files), "--config", str(config)]
            process = stack.enter_context(running(command))
            for kind, token in tokens.items():
                headers = (("authorization", f"Bearer {token}"),) if token else ()
                if name == "on" and not token:
                    continue
                plan = LoadPlan(
                    process.grpc, inference.METHOD, messages, 8, 8, duration_s=seconds, warmup_s=0.2, headers=headers
                )
                found[f"{kind}, {name}"] = Load(process, plan)
        yield found


def measure(rounds: int, seconds: float) -> dict[str, list[float]]:
    """CPU per answered call in microseconds in each round, by the kind of token and the server; raises as `costs_of`."""
    with _loads(seconds) as loads:
        return costs_of(loads, rounds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line per kind of token; returns 0, 1 if a ratio is above `MOST`, or 2 if nothing could be measured."""
    costs = measured("bench.access", "Measures what access costs per call.", 12, measure, arguments)
    if costs is None:
        return 2
    for kind, size in (("static", 54), ("signed", 700)):
        without, known = cost_ns(b"Bearer ".ljust(size, b"x"))
        sys.stdout.write(f"{kind} token: {known - without:.0f} ns per call of the kernels, beside {without:.0f}\n")
    worst = 0.0
    sys.stdout.write(f"no token: {best(costs['no, off']):.2f} us of CPU per call without rules\n")
    for kind in ("static", "signed"):
        off, on = costs[f"{kind}, off"], costs[f"{kind}, on"]
        ratio = best(on) / best(off)
        worst = max(worst, ratio)
        sys.stdout.write(
            f"{kind} token: {best(off):.2f} us of CPU per call without rules, {best(on):.2f} with: {ratio:.3f}\n"
        )
    return int(worst > MOST)


if __name__ == "__main__":
    sys.exit(main())
