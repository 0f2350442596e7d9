import re
from pathlib import Path
from typing import Any

import pytest

from penstock_server.access.settings import AccessSettings, IssuerSettings, RuleSettings
from penstock_server.errors import InvalidInputError
from penstock_server.settings import WorkerSettings, read_settings

RULE = RuleSettings(("token:shop",), ("infer",))
ISSUER: dict[str, Any] = {"issuer": "https://i", "audience": "a", "jwks": "https://i/keys"}


def test_without_rules_nobody_is_asked() -> None:
    assert not AccessSettings().is_on
    assert AccessSettings({"one": RULE}).is_on


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"jwks": ""}, "takes one of jwks, key and secret"),
        ({"key": Path("k")}, "takes one of jwks, key and secret"),
        ({"jwks": "ftp://i/keys"}, "expected a file, https://... or http://..."),
        ({"jwks": "https:///keys"}, "expected a file, https://... or http://..."),
        ({"audience": ""}, "empty issuer, audience or subject"),
        ({"algorithms": ("none",)}, "algorithms has none"),
        ({"algorithms": ("HS256",)}, "algorithms has HS256"),
        ({"jwks": "", "secret": Path("s"), "algorithms": ("RS256",)}, "algorithms has RS256"),
        ({"leeway_s": -1.0}, "leeway_s is -1.0"),
        ({"leeway_s": float("nan")}, "leeway_s is nan"),
        ({"refresh_s": 1.0}, "refresh_s is 1.0"),
    ],
)
def test_an_issuer_that_cannot_be_checked_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(reason)):
        AccessSettings({"one": RULE}, {"corp": IssuerSettings(**{**ISSUER, **changes})})


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (RuleSettings((), ("infer",)), "has an empty who, may or models"),
        (RuleSettings(("token:a",), ()), "has an empty who, may or models"),
        (RuleSettings(("token:a",), ("infer",), ()), "has an empty who, may or models"),
        (RuleSettings(("shop",), ("infer",)), "who has 'shop'"),
        (RuleSettings(("token:a",), ("infer",), requests_per_s=0.0), "requests_per_s is 0.0"),
        (RuleSettings(("token:a",), ("infer",), requests_per_s=float("nan")), "requests_per_s is nan"),
        (RuleSettings(("token:a",), ("infer",), burst=5), "burst is 5"),
        (RuleSettings(("token:a",), ("infer",), requests_per_s=1.0, burst=0), "burst is 0"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(rule: RuleSettings, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=f"access.rules.r.*{re.escape(reason)}|{re.escape(reason)}"):
        AccessSettings({"r": rule})


def test_identities_without_rules_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="nobody could call"):
        AccessSettings(tokens=Path("tokens"))


def test_two_issuers_are_told_apart_by_what_they_sign() -> None:
    with pytest.raises(InvalidInputError, match="same issuer"):
        AccessSettings({"r": RULE}, {"a": IssuerSettings(**ISSUER), "b": IssuerSettings(**ISSUER)})
    with pytest.raises(InvalidInputError, match=r"access.issuers has 'a:b'"):
        AccessSettings({"r": RULE}, {"a:b": IssuerSettings(**ISSUER)})


def test_they_are_read_from_a_file_and_reach_the_workers(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(
        """
        [access]
        tokens = "/etc/tokens"
        [access.issuers.corp]
        issuer = "https://issuer.example"
        audience = "penstock"
        jwks = "https://issuer.example/keys"
        [access.rules.shop]
        who = ["token:shop", "jwt:corp:*"]
        may = ["infer", "read"]
        models = ["shop-*"]
        requests_per_s = 5
        """
    )
    settings = read_settings(file)
    assert settings.access.rules["shop"].at_once == 5
    assert settings.access.issuers["corp"].accepted == ("RS256", "ES256")
    assert WorkerSettings.from_json(settings.of_worker.to_json()).access == settings.access


@pytest.mark.parametrize(
    "line", ["[access]\nopen = true", '[access.rules.a]\nwhoo = ["*"]', '[access.rules.a]\nwho=["*"]\nmay=["all"]']
)
def test_what_is_not_known_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(line)
    with pytest.raises(InvalidInputError, match=r"access|may"):
        read_settings(file)
