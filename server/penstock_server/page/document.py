"""The operations page as one document, and the headers that keep it to itself.

Style and script are in it, so a page takes one request. The policy names them by their hashes: nothing else runs or is loaded,
and no form or frame takes it elsewhere. It holds no data and no secret: what it shows it asks for, with its user's token.
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

_STYLE: Final = "/* page.css */"
_SCRIPT: Final = "/* page.js */"


@cache
def document() -> bytes:
    """The page."""
    return _file("page.html").replace(_STYLE, _style()).replace(_SCRIPT, _script()).encode()


@cache
def headers() -> tuple[tuple[str, str], ...]:
    """What goes with it."""
    policy = (
        "default-src 'none'",
        f"script-src '{_hash(_script())}'",
        f"style-src '{_hash(_style())}'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return (
        ("Content-Security-Policy", "; ".join(policy)),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Cache-Control", "no-cache"),
    )


def _hash(text: str) -> str:
    """A source of a Content-Security-Policy: what is between two tags, by its hash."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _style() -> str:
    return _file("page.css")


def _script() -> str:
    return _file("page.js")


@cache
def _file(name: str) -> str:
    return (files("penstock_server.page") / name).read_text("utf-8")
