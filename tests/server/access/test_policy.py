import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.access.policy import EVERY_MODEL, NO_MODEL, Limit, Pattern, Policy, Rights
from penstock_server.access.settings import VERBS, RuleSettings, Verb

SHOP = RuleSettings(("token:shop", "uri:spiffe://corp/shop/*"), ("infer", "read"), ("shop-*", "flights"))
POLICY = Policy(
    {
        "shop": SHOP,
        "admin": RuleSettings(("cn:admin",), VERBS),
        "open": RuleSettings(("anybody",), ("read",), ("demo",)),
    }
)


@pytest.mark.parametrize(
    ("names", "verb", "model", "is_allowed"),
    [
        (("token:shop",), "infer", "shop-prices", True),
        (("token:shop",), "infer", "flights", True),
        (("token:shop",), "infer", "flights2", False),
        (("token:shop",), "infer", EVERY_MODEL, False),
        (("token:shop",), "read", NO_MODEL, True),
        (("token:shop",), "control", "flights", False),
        (("token:shop",), "control", NO_MODEL, False),
        (("token:shop",), "read", "demo", False),
        (("token:shops",), "infer", "flights", False),
        (("uri:spiffe://corp/shop/web", "dns:web"), "infer", "flights", True),
        (("dns:web", "uri:spiffe://corp/shop/web"), "infer", "flights", True),
        (("uri:spiffe://corp/other/web",), "infer", "flights", False),
        (("cn:uri:spiffe://corp/shop/web",), "infer", "flights", False),
        (("cn:admin",), "control", EVERY_MODEL, True),
        (("anybody",), "read", "demo", True),
        (("anybody",), "infer", "demo", False),
    ],
)
def test_what_a_rule_allows(names: tuple[str, ...], verb: Verb, model: str | None, is_allowed: bool) -> None:
    assert POLICY.rights_of(names).allow(verb, model) is is_allowed


def test_a_star_is_for_those_who_are_known() -> None:
    policy = Policy({"all": RuleSettings(("*",), ("infer",))})
    assert policy.rights_of(("token:a",)).allow("infer", "m")
    assert not policy.rights_of(("anybody",)).allow("infer", "m")


def test_rules_add_up_and_the_lowest_limit_holds() -> None:
    policy = Policy(
        {
            "a": RuleSettings(("token:*",), ("infer",), ("a",), requests_per_s=10, burst=3),
            "b": RuleSettings(("token:x",), ("infer",), ("b",), requests_per_s=2),
        }
    )
    rights = policy.rights_of(("token:x",))
    assert rights.allow("infer", "a")
    assert rights.allow("infer", "b")
    assert rights.limit == Limit(2, 2)
    assert policy.rights_of(("token:y",)).limit == Limit(10, 3)


@pytest.mark.parametrize(
    ("pattern", "name", "is_match"),
    [
        ("*ab*b", "ab", False),
        ("*ab*b", "abb", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*a*b*", "ba", False),
        ("*a*b*", "ab", True),
        ("ab*cd*ef", "abef", False),
        ("ab*cd*ef", "abcdef", True),
        ("ab*cd*ef", "abcdcdef", True),
        ("*", "", True),
        ("", "", True),
        ("", "a", False),
        ("**", "a\nb", True),
    ],
)
def test_parts_of_a_pattern_share_no_characters(pattern: str, name: str, is_match: bool) -> None:
    assert Pattern(pattern).matches(name) is is_match


def test_every_model_takes_a_star_among_others() -> None:
    grant = Policy({"r": RuleSettings(("*",), ("infer",), ("a", "*"))}).rights_of(("token:x",))
    assert grant.allow("infer", EVERY_MODEL)
    assert grant.grants[0].allows("read", EVERY_MODEL) is False
    assert grant.grants[0].allows("read", NO_MODEL) is False


texts = st.text(alphabet="ab*", max_size=8)


@given(texts, st.text(alphabet="ab", max_size=10))
def test_a_star_is_any_characters(pattern: str, name: str) -> None:
    wanted = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None
    assert Pattern(pattern).matches(name) is wanted


@given(st.sampled_from(VERBS), st.one_of(st.none(), st.text(max_size=5)), st.text(max_size=5))
def test_without_a_rule_nothing_is_allowed(verb: Verb, model: str | None, name: str) -> None:
    assert not Policy({}).rights_of((name,)).allow(verb, model)
    assert not Rights().allow(verb, model)
