import base64
import hashlib
import re

from penstock_server.page.document import document, headers

TEXT = document().decode()
POLICY = dict(headers())["Content-Security-Policy"]


def test_it_is_one_small_document_that_loads_nothing() -> None:
    assert len(TEXT) < 100_000
    assert not re.findall(r"""(?:src|@import|url\()""", TEXT)
    addresses = set(re.findall(r"https?://[^\s\"'`]+", TEXT))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a namespace, which nothing asks for


def test_the_policy_lets_run_what_is_in_it_and_nothing_else() -> None:
    for tag, name in (("script", "script-src"), ("style", "style-src")):
        (inside,) = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", TEXT, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in POLICY
    assert not re.findall(r"\s(?:style|on[a-z]+)=\"", TEXT)  # the policy refuses them
    for rule in (
        "default-src 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "form-action 'none'",
    ):
        assert rule in POLICY
    assert "unsafe" not in POLICY


def test_text_never_becomes_markup_and_the_token_no_cookie() -> None:
    for unsafe in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "cookie =", "localStorage"):
        assert unsafe not in TEXT
