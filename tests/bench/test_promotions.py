import pytest

from bench.promotions import PromotionError, promote_in_turn


class Registry:
    """A registry and a server that follows it after a number of answers, on a clock that only waiting moves."""

    def __init__(self, *, answers: int) -> None:
        self.now = 0.0
        self.alias = self.served = "1"
        self.promoted: list[str] = []
        self._answers = answers
        self._left = 0

    def promote(self, version: str) -> None:
        assert self.served == self.alias, "the promotion before was not seen yet"
        self.alias = version
        self.promoted.append(version)
        self._left = self._answers

    def served_version(self) -> str:
        if self._left == 0:
            self.served = self.alias
        self._left -= 1
        return self.served

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def run(self, versions: list[str], count: int) -> list[float]:
        return promote_in_turn(
            versions,
            count,
            promote=self.promote,
            served_version=self.served_version,
            clock=lambda: self.now,
            wait=self.wait,
        )


def test_versions_are_promoted_in_turn_each_when_the_one_before_is_served() -> None:
    registry = Registry(answers=3)
    seen_s = registry.run(["1", "2"], 5)
    assert registry.promoted == ["2", "1", "2", "1", "2"]
    assert seen_s == pytest.approx([0.06] * 5)


def test_a_promotion_that_is_never_seen_is_one_clear_error() -> None:
    with pytest.raises(PromotionError, match="promotion 1 to version 2 is not visible, version 1 still answers"):
        Registry(answers=10**6).run(["1", "2"], 5)
