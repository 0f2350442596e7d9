"""An issuer of tokens: its keys, its set of them, and tokens that it signs."""

import json
import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER, AUDIENCE = "https://issuer.example", "penstock"


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    del number
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    del number
    return ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, **more: Any) -> dict[str, Any]:
    kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**kind.to_jwk(key.public_key(), as_dict=True), **more}


def pem(key: Any) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def claims(**changes: Any) -> dict[str, Any]:
    """Claims that are accepted; a change to None leaves one out."""
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "shop", "exp": time.time() + 600, **changes}
    return {name: value for name, value in found.items() if value is not None}


@dataclass
class TokenIssuer:
    """Signs with an elliptic curve's key, which is fast."""

    keys: dict[str, Any] = field(default_factory=lambda: {"one": ec_key()})

    @property
    def key_set(self) -> str:
        return json.dumps({"keys": [jwk(key, kid=name) for name, key in self.keys.items()]})

    def token(self, kid: str | None = "one", header: dict[str, Any] | None = None, **changes: Any) -> str:
        key = self.keys.get(kid or "one", ec_key())
        named = {} if kid is None else {"kid": kid}
        return jwt.encode(claims(**changes), key, algorithm="ES256", headers={**named, **(header or {})})


@pytest.fixture
def issuer() -> TokenIssuer:
    return TokenIssuer()
