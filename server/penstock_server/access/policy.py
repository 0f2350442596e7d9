"""What identities may do: a pure function of the rules.

All that some rule allows is allowed, and nothing else. A rule's star stands for any characters, also none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from penstock_server.access.settings import ANYBODY, RuleSettings, Verb

EVERY_MODEL: Final = ""
"""In place of a model's name: what is asked concerns all of them."""
NO_MODEL: Final = None
"""In place of a model's name: what is asked concerns none in particular."""


class Pattern:
    """Matches names, in time linear in theirs."""

    __slots__ = ("_first", "_last", "_middle", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._first, *rest = text.split("*")
        self._last = rest.pop() if rest else None
        self._middle = [part for part in rest if part]

    def matches(self, name: str) -> bool:
        if self._last is None:
            return name == self._first
        end = len(name) - len(self._last)
        at = len(self._first)
        if end < at or not name.startswith(self._first) or not name.endswith(self._last):
            return False
        for part in self._middle:
            found = name.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True


@dataclass(frozen=True, slots=True)
class Limit:
    """How often an identity may call: at most `at_once` together, and `per_s` in the long run."""

    per_s: float
    at_once: float


@dataclass(frozen=True, slots=True)
class Grant:
    """What one rule gives an identity."""

    rule: str
    verbs: frozenset[Verb]
    models: tuple[Pattern, ...]

    def allows(self, verb: Verb, model: str | None) -> bool:
        if model is NO_MODEL or verb not in self.verbs:
            return verb in self.verbs
        if model == EVERY_MODEL:
            return any(pattern.text == "*" for pattern in self.models)
        return any(pattern.matches(model) for pattern in self.models)


@dataclass(frozen=True, slots=True)
class Rights:
    """What an identity may do."""

    grants: tuple[Grant, ...] = ()
    limit: Limit | None = None

    def allow(self, verb: Verb, model: str | None) -> bool:
        """Whether this may be done with a model, with `EVERY_MODEL`, or with `NO_MODEL` in particular."""
        return any(grant.allows(verb, model) for grant in self.grants)


class Policy:
    """The rules, ready to be asked."""

    def __init__(self, rules: Mapping[str, RuleSettings]) -> None:
        self._rules = [
            (
                tuple(Pattern(each) for each in rule.who),
                Grant(name, frozenset(rule.may), tuple(Pattern(each) for each in rule.models)),
                None if rule.requests_per_s is None else Limit(rule.requests_per_s, rule.at_once),
            )
            for name, rule in rules.items()
        ]

    def rights_of(self, names: Iterable[str]) -> Rights:
        """What a caller with these names may do. Of several limits the lowest holds."""
        names = tuple(names)
        given = [(grant, limit) for who, grant, limit in self._rules if _is_meant(who, names)]
        limits = [limit for _, limit in given if limit is not None]
        return Rights(
            tuple(grant for grant, _ in given),
            min(limits, key=lambda limit: (limit.per_s, limit.at_once), default=None),
        )


def _is_meant(who: tuple[Pattern, ...], names: tuple[str, ...]) -> bool:
    return any(
        pattern.text == ANYBODY if name == ANYBODY else pattern.matches(name) for pattern in who for name in names
    )
