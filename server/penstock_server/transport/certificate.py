"""The names that a verified client certificate proves.

Each says by its beginning which kind it is, so that a common name never passes for an address: `uri:` (SPIFFE's identities
among them), `dns:`, `email:` and `cn:`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

LONGEST_NAME: Final = 512
MOST_NAMES: Final = 64
"""Of one certificate."""
_PREFIXES: Final = {"URI": "uri", "DNS": "dns", "email": "email"}
_PROPERTIES: Final = {"peer_uri": "URI", "peer_dns": "DNS", "peer_email": "email"}
"""How grpc's core calls the alternative names of the peer."""


def is_name(text: object) -> bool:
    """Whether this may be a name: some printable characters, and not too many."""
    return isinstance(text, str) and 0 < len(text) <= LONGEST_NAME and text.isprintable()


def names_of_certificate(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The names in a verified certificate as Python's `ssl` has it; none for none."""
    if not certificate:
        return ()
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    alternative = [tuple(pair[:2]) for pair in certificate.get("subjectAltName", ())]
    return _names(alternative, [value for name, value in subject if name == "commonName"])


def names_of_context(context: Mapping[Any, Iterable[bytes]]) -> tuple[str, ...]:
    """The same from the properties of grpc's core, which has them only of a certificate that it has verified."""
    found = {_text(name): [_text(value) for value in values] for name, values in context.items()}
    if found.get("transport_security_type") != ["ssl"]:
        return ()
    alternative = [(kind, value) for name, kind in _PROPERTIES.items() for value in found.get(name, ())]
    return _names(alternative, found.get("x509_common_name", ()))


def _names(alternative: Iterable[tuple[Any, ...]], common: Iterable[str]) -> tuple[str, ...]:
    pairs = [*alternative]
    found = [
        f"{prefix}:{value}"
        for kind, prefix in _PREFIXES.items()
        for each, value in pairs
        if each == kind and is_name(value)
    ]
    found += [f"cn:{value}" for value in common if is_name(value)]
    return tuple(dict.fromkeys(found))[:MOST_NAMES]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
