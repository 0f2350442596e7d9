"""The table `[labels]`."""

import re

import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.labels.settings import LabelSettings, OwnLabelSettings


def test_no_labels_are_taken_by_default() -> None:
    assert not LabelSettings().is_on
    assert not LabelSettings().is_on_for("fraud")


def test_a_model_may_have_values_of_its_own() -> None:
    settings = LabelSettings(models={"fraud": OwnLabelSettings(enabled=True, maturity_s=60.0)})
    assert settings.is_on
    assert settings.is_on_for("fraud")
    assert not settings.is_on_for("fares")
    assert (settings.of("fraud").maturity_s, settings.of("fares").maturity_s) == (60.0, 3600.0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"maturity_s": float("nan")}, "labels.maturity_s is nan, expected 0 seconds or more"),
        ({"keep_s": 10.0}, "labels.keep_s is 10.0, expected more than maturity_s, which is 3600.0"),
        ({"wait_s": 0.0}, "labels.wait_s is 0.0, expected 1 to 3600 seconds"),
        ({"keep_bytes": 1}, "labels.keep_bytes is 1, expected 16777216 or more"),
        ({"peers": ("host:1",)}, "labels.peers has 'host:1', expected http://HOST:PORT"),
        ({"peers": ("http://h:x",)}, "labels.peers has 'http://h:x', expected http://HOST:PORT"),
        ({"peers": ("http://u:p@h:1",)}, "expected http://HOST:PORT"),
        ({"peers": ("http://h:1",) * 65}, "labels.peers has 65 addresses, expected 64 at most"),
        (
            {"models": {"fraud": OwnLabelSettings(maturity_s=-1.0)}},
            "labels.models.fraud.maturity_s is -1.0, expected 0 seconds or more",
        ),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(said)):
        LabelSettings(**values)  # type: ignore[arg-type]
