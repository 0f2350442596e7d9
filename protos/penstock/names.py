"""The contract's names: roles, states, services, parameters. Server, client, tools and bench import them from here.

It also finds the known name that somebody meant who wrote another.
"""

import difflib
import itertools
from collections.abc import Iterable
from typing import Final, Literal

Role = Literal["champion", "canary", "shadow"]
CHAMPION: Final = "champion"
CANARY: Final = "canary"
SHADOW: Final = "shadow"
ROLES: Final[tuple[Role, ...]] = (CHAMPION, CANARY, SHADOW)


def role_of(alias: str) -> Role | None:
    """The role that an alias of the registry gives: `canary` and `shadow` may have a suffix, as in `canary-b`.

    >>> role_of("canary"), role_of("canary-b"), role_of("champion-b"), role_of("staging")
    ('canary', 'canary', None, None)
    """
    if alias in ROLES:
        return alias
    return next((role for role in (CANARY, SHADOW) if alias.startswith(f"{role}-")), None)


VersionState = Literal["UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING", "STANDBY"]
"""A version's state as `RepositoryIndex` reports it (Triton's model repository extension).

STANDBY is KServe's word for a version that is proven and not in memory: it is loaded when a call asks for it.
"""

VersionKey = tuple[str, str]
"""A model's name and a version's name."""

FAULTS: Final = ("model_failed", "internal", "overloaded", "deadline", "not_ready")
"""The reasons of refusals that are the server's fault, as the alert rules count them."""

SERVER_NAME: Final = "penstock"
PLATFORM: Final = "onnxruntime_onnx"
ENSEMBLE: Final = "ensemble"
"""The platform of models that are chains of others."""
PIPELINE_FILE: Final = "pipeline.toml"
"""What stands in the place of such a model's graph."""

INFERENCE_SERVICE: Final = "inference.GRPCInferenceService"
HEALTH_SERVICE: Final = "grpc.health.v1.Health"
REFLECTION_SERVICES: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""The same messages under two names: newer clients ask the first one only."""
CONTROL_SERVICE: Final = "penstock.v1.Penstock"

INFER_METHOD: Final = "ModelInfer"
DRIFT_STATE_METHOD: Final = "DriftState"
FEEDBACK_METHOD: Final = "Feedback"
FEEDBACK_STREAM_METHOD: Final = "FeedbackStream"
ROLLOUT_STATE_METHOD: Final = "RolloutState"
ROLLOUT_COMMAND_METHOD: Final = "RolloutCommand"
STATISTICS_METHOD: Final = "ModelStatistics"
LOAD_METHOD: Final = "RepositoryModelLoad"
LOG_SETTINGS_METHOD: Final = "LogSettings"

# Parameters of a ModelInferRequest.
PARAMETER_ROUTING_KEY: Final = "routing_key"
PARAMETER_TIMEOUT: Final = "timeout"
PARAMETER_PRIORITY: Final = "priority"
PARAMETER_EXTRA_COLUMNS: Final = "extra_columns"
"""What becomes of inputs that the version does not take: "refuse" (the default) or "ignore"."""

PARAMETER_EXPLAIN: Final = "explain"
"""Whether the answer has attributions too."""

# A parameter of a requested output.
PARAMETER_CLASSIFICATION: Final = "classification"
"""How many of its largest values are wanted, as texts (Triton's classification extension)."""

# Parameters of a tensor of ModelMetadataResponse.
PARAMETER_COLUMNS: Final = "columns"
"""The names of the columns of a version's one matrix, in their order, as a JSON list."""
PARAMETER_MISSING: Final = "missing"
"""The text that stands for a missing value in an input of texts; an input without it cannot hold one."""
PARAMETER_TIME: Final = "time"
"""The unit of an input of times, "ns": whole numbers since 1970-01-01T00:00 in UTC, the smallest int64 for a missing one."""
PARAMETER_OPTIONAL: Final = "optional"
"""True for an input with a default, which requests may leave out; none of its dimensions is the rows."""

# Parameters of a ModelInferResponse.
PARAMETER_ROLE: Final = "penstock_role"
PARAMETER_QUEUE_US: Final = "penstock_queue_us"
PARAMETER_COMPUTE_US: Final = "penstock_compute_us"
PARAMETER_BATCH_ROWS: Final = "penstock_batch_rows"

FEEDBACK_MODEL: Final = "penstock.feedback"
"""The reserved model that takes labels, for gateways that let the Open Inference Protocol alone through."""
FEEDBACK_VERSION: Final = "1"
FEEDBACK_IDS, FEEDBACK_LABELS, FEEDBACK_VALUES, FEEDBACK_ROWS, FEEDBACK_MODELS = (
    "ids",
    "labels",
    "values",
    "rows",
    "models",
)
"""Its inputs, each of one element per label."""
FEEDBACK_TAKEN: Final = "taken"
"""Its output: how many labels were taken."""
PASSED_ON_TYPE: Final = "application/vnd.penstock.labels"
"""The content type of labels that a server passes on to another, as records."""
PARAMETER_MODEL: Final = "model"
"""The parameter of a request to it that names the model of all labels."""

ATTRIBUTIONS: Final = "penstock_attributions"
"""The output that a request gets with `explain`, or by its name; metadata shows it as a parameter of the first output."""
# Parameters of that output, beside `PARAMETER_COLUMNS`, the raw columns: lists are JSON.
PARAMETER_BASE: Final = "base"
"""The expected answer per output; with a row's attributions it adds up to what is explained."""
PARAMETER_OF: Final = "of"
"""What is explained, such as "the log-odds"."""
PARAMETER_METHOD: Final = "method"
PARAMETER_CLASSES: Final = "classes"
"""The classes or targets that the outputs are about; absent where there is one number and it has no name."""

MATRIX_INPUT: Final = "features"
"""The name under which metadata shows the one [N, F] tensor that a model of numeric columns also takes."""

# Comparing words takes the square of their length, and some come from outside.
_LONGEST_WORD: Final = 100
_MOST_WORDS: Final = 1000


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error's sentence that names the known word nearest to an unknown one; empty if none is near.

    >>> did_you_mean("fruad", ["fraud", "fares"]), did_you_mean("Amount", ["amount"]), did_you_mean("x", ["amount"])
    ("; did you mean 'fraud'?", "; did you mean 'amount'?", '')
    """
    near = closest(name, known)
    return "" if near is None else f"; did you mean {near!r}?"


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known word nearest to this one, upper and lower case alike; None if none is near.

    >>> closest("petal-length", ["petal_width", "petal_length"])
    'petal_length'
    """
    words = {word[:_LONGEST_WORD].casefold(): word for word in itertools.islice(known, _MOST_WORDS)}
    found = difflib.get_close_matches(name[:_LONGEST_WORD].casefold(), words, n=1, cutoff=0.7)
    return words[found[0]] if found else None
