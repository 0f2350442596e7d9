"""The settings of retraining: the rules that call for it, and the actions that have it done.

A rule names conditions, models and an action. Addresses and commands come from here alone, never from a request or a registry.
"""

from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from math import inf
from pathlib import Path
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

from penstock_server.errors import InvalidInputError

Kind = Literal["webhook", "command", "github", "airflow", "kubeflow", "argo"]
Combine = Literal["any", "all"]

DAY_S: Final = 86_400.0
MAX_EVENT_TYPE: Final = 100
"""What GitHub takes at most."""
_TAKEN: Final[dict[Kind, tuple[frozenset[str], frozenset[str]]]] = {
    "webhook": (frozenset({"url"}), frozenset({"token_file", "token_env", "secret_file", "secret_env"})),
    "command": (frozenset({"command"}), frozenset({"timeout_s"})),
    "github": (frozenset({"repository"}), frozenset({"url", "event_type", "token_file", "token_env"})),
    "airflow": (frozenset({"url", "dag"}), frozenset({"api", "token_file", "token_env"})),
    "kubeflow": (
        frozenset({"url", "pipeline"}),
        frozenset({"pipeline_version", "experiment", "token_file", "token_env"}),
    ),
    "argo": (frozenset({"url", "namespace", "template"}), frozenset({"service_account", "token_file", "token_env"})),
}
"""What each kind of action needs, and what it may have besides."""


@dataclass(frozen=True, slots=True)
class ActionSettings:
    """Who is told that a model is to be trained anew.

    Attributes:
        kind: "webhook" posts the event, signed as Standard Webhooks has it; "command" runs a program; "github" sends a
            `repository_dispatch`, "airflow" starts a DAG, "kubeflow" a run of a pipeline, "argo" a workflow of a template.
        url: where: of a webhook the whole address, of the others the server's. GitHub's own by default.
        token_file, token_env: the bearer token, in a file or an environment variable, read anew each time.
        secret_file, secret_env: what a webhook is signed with, `whsec_` and base64, in a file or an environment variable.
        command: a program and its arguments. It gets the event as JSON on standard input and in the environment.
        timeout_s: how long the command may run, after which it is ended.
        repository, event_type: GitHub's `owner/name`, and the type that a workflow waits for.
        dag, api: Airflow's DAG, and "v2" for Airflow 3 or "v1" for Airflow 2.
        pipeline, pipeline_version, experiment: the ids of Kubeflow; the pipeline's newest version by default.
        namespace, template, service_account: Argo's.
    """

    kind: Kind
    url: str = ""
    token_file: Path | None = None
    token_env: str = ""
    secret_file: Path | None = None
    secret_env: str = ""
    command: tuple[str, ...] = ()
    timeout_s: float | None = None
    repository: str = ""
    event_type: str = ""
    dag: str = ""
    api: Literal["v1", "v2"] | None = None
    pipeline: str = ""
    pipeline_version: str = ""
    experiment: str = ""
    namespace: str = ""
    template: str = ""
    service_account: str = ""

    def check(self, name: str) -> None:
        """Raises `InvalidInputError` if something is wrong; names the setting."""
        where = f"retraining.actions.{name}"
        needed, optional = _TAKEN[self.kind]
        given = {each.name for each in fields(self) if each.name != "kind" and getattr(self, each.name) not in _ABSENT}
        if missing := sorted(needed - given):
            raise InvalidInputError(f"{where} of kind {self.kind!r} lacks {', '.join(missing)}")
        if extra := sorted(given - needed - optional):
            may = ", ".join(sorted(needed | optional))
            raise InvalidInputError(f"{where} of kind {self.kind!r} has {', '.join(extra)}, expected some of {may}")
        for first, second in (("token_file", "token_env"), ("secret_file", "secret_env")):
            if {first, second} <= given:
                raise InvalidInputError(f"{where} has both {first} and {second}, expected one")
        if self.kind == "webhook" and not {"secret_file", "secret_env"} & given:
            raise InvalidInputError(f"{where} has no secret_file or secret_env: a webhook is signed")
        if "url" in given:
            _check_url(where, self.url)
        if self.kind == "github" and self.repository.count("/") != 1:
            raise InvalidInputError(f"{where}.repository is {self.repository!r}, expected owner/name")
        if len(self.event_type) > MAX_EVENT_TYPE:
            raise InvalidInputError(f"{where}.event_type is longer than {MAX_EVENT_TYPE} characters, as GitHub has it")
        if self.timeout_s is not None and not 1 <= self.timeout_s < inf:
            raise InvalidInputError(f"{where}.timeout_s is {self.timeout_s}, expected at least 1 second")


_ABSENT: Final = (None, "", ())


@dataclass(frozen=True, slots=True)
class RetrainingRuleSettings:
    """When a model is to be trained anew; of its champion.

    Attributes:
        action: the name of one of the actions.
        models: names of models, in which `*` stands for any characters.
        combine: whether one of the conditions is enough, or all must hold.
        accuracy_below: its accuracy by labels is below, with all of its interval.
        expected_accuracy_below: so is the accuracy that is expected without labels.
        drift_alarm_s: an alarm says that rows have drifted for so many seconds.
        alarmed_importance: of the columns' importance to the model, this share or more lies in columns with an alarm.
        age_days: it was published so many days ago.
        rows: it has answered so many rows.
        labels: so many labels have come for its answers.
        cooldown_s: the least time from one call for retraining to the rule's next for the same model; None takes that of all
            rules.
    """

    action: str
    models: tuple[str, ...] = ("*",)
    combine: Combine = "any"
    accuracy_below: float | None = None
    expected_accuracy_below: float | None = None
    drift_alarm_s: float | None = None
    alarmed_importance: float | None = None
    age_days: float | None = None
    rows: int | None = None
    labels: int | None = None
    cooldown_s: float | None = None

    def check(self, name: str, actions: dict[str, ActionSettings]) -> None:
        """Raises `InvalidInputError` if something is wrong; names the setting."""
        where = f"retraining.rules.{name}"
        if self.action not in actions:
            known = ", ".join(sorted(actions)) or "none"
            raise InvalidInputError(
                f"{where}.action is {self.action!r}, expected one of retraining.actions, which has {known}"
            )
        if not self.models:
            raise InvalidInputError(f"{where}.models is empty, expected some names")
        if not self.conditions:
            raise InvalidInputError(f"{where} has no condition, expected some of {', '.join(CONDITIONS)}")
        # Written so that NaN, which TOML can say, is refused as well.
        for setting in ("accuracy_below", "expected_accuracy_below", "alarmed_importance"):
            share = getattr(self, setting)
            if share is not None and not 0 < share <= 1:
                raise InvalidInputError(f"{where}.{setting} is {share}, expected a share above 0 and at most 1")
        for setting in ("drift_alarm_s", "age_days", "rows", "labels", "cooldown_s"):
            amount = getattr(self, setting)
            least = 1 if setting in ("rows", "labels") else 0
            if amount is not None and not least <= amount < inf:
                raise InvalidInputError(f"{where}.{setting} is {amount}, expected {least} or more")

    @property
    def conditions(self) -> tuple[str, ...]:
        """The names of the conditions that it has."""
        return tuple(name for name in CONDITIONS if getattr(self, name) is not None)

    def is_for(self, model: str) -> bool:
        """Whether it is about this model."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)


CONDITIONS: Final = (
    "accuracy_below",
    "expected_accuracy_below",
    "drift_alarm_s",
    "alarmed_importance",
    "age_days",
    "rows",
    "labels",
)


@dataclass(frozen=True, slots=True)
class RetrainingSettings:
    """When models are trained anew, and how.

    Attributes:
        rules, actions: by names of their own.
        look_s: how often the rules are looked at.
        cooldown_s: the least time from one call for retraining to the next by the same rule for the same model.
        flight_s: how long a retraining may take: no other is called for, unless another version of the model comes sooner.
        per_day: the most calls for retraining of one model within 24 hours.
        enabled: False looks at the rules and says what would be called for, and calls for nothing.
        shared: servers that follow one registry call together: one of them acts for a model, and the registry has the
            calls, to which it is written. False keeps them here, for the only server with rules for these models.
        lease_s: how long it takes until another server acts in place of one that has ended; the same for all of them. A
            quarter of it must be longer than the registry takes to answer.
    """

    rules: dict[str, RetrainingRuleSettings] = field(default_factory=dict, hash=False)
    actions: dict[str, ActionSettings] = field(default_factory=dict, hash=False)
    look_s: float = 30.0
    cooldown_s: float = DAY_S
    flight_s: float = DAY_S / 4
    per_day: int = 4
    enabled: bool = True
    shared: bool = True
    lease_s: float = 45.0

    def __post_init__(self) -> None:
        for name, action in self.actions.items():
            action.check(name)
        for name, rule in self.rules.items():
            rule.check(name, self.actions)
        for setting, least in (("look_s", 0.1), ("cooldown_s", 0), ("flight_s", 1), ("lease_s", 1)):
            value = getattr(self, setting)
            if not least <= value < inf:
                raise InvalidInputError(f"retraining.{setting} is {value}, expected {least} seconds or more")
        if self.per_day < 1:
            raise InvalidInputError(f"retraining.per_day is {self.per_day}, expected at least 1")

    @property
    def is_on(self) -> bool:
        """Whether anything is looked at."""
        return bool(self.rules)

    def cooldown_of(self, rule: RetrainingRuleSettings) -> float:
        """The cooldown of one rule, in seconds."""
        return self.cooldown_s if rule.cooldown_s is None else rule.cooldown_s


KINDS: Final = get_args(Kind)


def _check_url(where: str, url: str) -> None:
    wanted = "expected an address that begins with https:// or http://"
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise InvalidInputError(f"{where}.url is {url!r}, {wanted}: {error}") from error
    if parts.username is not None or parts.password is not None:
        # It stands in logs.
        raise InvalidInputError(f"{where}.url holds a user or password; give a token by token_file or token_env")
    if parts.scheme not in ("http", "https") or not has_host or parts.fragment:
        raise InvalidInputError(f"{where}.url is {url!r}, {wanted}")
