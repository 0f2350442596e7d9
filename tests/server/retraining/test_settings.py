from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.retraining.settings import ActionSettings, RetrainingRuleSettings, RetrainingSettings
from penstock_server.settings import read_settings

HOOK = ActionSettings("webhook", url="https://ci.example/hook", secret_env="HOOK_SECRET")
RULE = RetrainingRuleSettings("hook", age_days=30)


def test_rules_and_actions_are_read_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(
        """
        [retraining]
        per_day = 2

        [retraining.actions.airflow]
        kind = "airflow"
        url = "https://airflow.example"
        dag = "retrain"
        token_file = "/run/secrets/airflow"

        [retraining.rules.worse]
        models = ["fraud-*"]
        combine = "all"
        accuracy_below = 0.9
        labels = 1000
        action = "airflow"
        cooldown_s = 3600
        """
    )
    found = read_settings(file).retraining
    rule = found.rules["worse"]
    assert found.is_on
    assert (found.per_day, found.cooldown_of(rule), rule.conditions) == (2, 3600, ("accuracy_below", "labels"))
    assert (rule.is_for("fraud-eu"), rule.is_for("churn")) == (True, False)
    assert found.actions["airflow"].token_file == Path("/run/secrets/airflow")


def test_without_rules_nothing_is_on() -> None:
    assert not RetrainingSettings().is_on


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"action": "other"}, "action is 'other', expected one of retraining.actions, which has hook"),
        ({"models": ()}, "models is empty"),
        ({"age_days": None}, "has no condition, expected some of accuracy_below"),
        ({"age_days": -1}, "age_days is -1, expected 0 or more"),
        ({"age_days": nan}, "age_days is nan"),
        ({"accuracy_below": 1.5}, "accuracy_below is 1.5, expected a share"),
        ({"alarmed_importance": 0.0}, "alarmed_importance is 0.0, expected a share"),
        ({"rows": 0}, "rows is 0, expected 1 or more"),
        ({"cooldown_s": nan}, "cooldown_s is nan"),
    ],
)
def test_a_wrong_rule_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=f"retraining.rules.old{'.' if ' is ' in words else ' '}{words}"):
        RetrainingSettings({"old": replace(RULE, **change)}, {"hook": HOOK})


GITHUB = ActionSettings("github", repository="owner/name", token_env="TOKEN")


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (replace(HOOK, url=""), "of kind 'webhook' lacks url"),
        (replace(HOOK, dag="x"), "of kind 'webhook' has dag, expected some of secret_env"),
        (replace(HOOK, secret_env=""), "has no secret_file or secret_env: a webhook is signed"),
        (replace(HOOK, secret_file=Path("a")), "has both secret_file and secret_env"),
        (replace(HOOK, url="ftp://a/b"), "url is 'ftp://a/b', expected an address"),
        (replace(HOOK, url="https://user:word@a/b"), "url holds a user or password"),
        (replace(HOOK, url="https://a:x/"), "expected an address"),
        (replace(GITHUB, repository="name"), "repository is 'name', expected owner/name"),
        (replace(GITHUB, event_type="x" * 101), "longer than 100 characters"),
        (ActionSettings("command"), "lacks command"),
        (ActionSettings("command", command=("x",), timeout_s=0.1), "timeout_s is 0.1"),
        (ActionSettings("argo", url="https://a", template="t"), "lacks namespace"),
        (ActionSettings("kubeflow", url="https://a"), "lacks pipeline"),
        (ActionSettings("airflow", url="https://a"), "lacks dag"),
    ],
)
def test_a_wrong_action_is_named(action: ActionSettings, words: str) -> None:
    with pytest.raises(InvalidInputError, match=f"retraining.actions.one.*{words}") as raised:
        RetrainingSettings(actions={"one": action})
    assert "word@" not in str(raised.value)


@pytest.mark.parametrize(("setting", "value"), [("look_s", 0.0), ("cooldown_s", nan), ("flight_s", 0), ("per_day", 0)])
def test_numbers_out_of_range_are_named(setting: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=f"retraining.{setting} is {value}"):
        RetrainingSettings(**{setting: value})
