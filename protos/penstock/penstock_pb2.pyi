from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RolloutStateRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class RolloutStateResponse(_message.Message):
    __slots__ = ("rollouts",)
    ROLLOUTS_FIELD_NUMBER: _ClassVar[int]
    rollouts: _containers.RepeatedCompositeFieldContainer[Rollout]
    def __init__(self, rollouts: _Optional[_Iterable[_Union[Rollout, _Mapping]]] = ...) -> None: ...

class Rollout(_message.Message):
    __slots__ = ("model", "version", "champion", "status", "stage", "stages", "reason", "problem", "controller", "acting", "in_words", "began", "since", "gates", "history")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    ACTING_FIELD_NUMBER: _ClassVar[int]
    IN_WORDS_FIELD_NUMBER: _ClassVar[int]
    BEGAN_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    champion: str
    status: str
    stage: str
    stages: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    problem: str
    controller: str
    acting: bool
    in_words: str
    began: float
    since: float
    gates: _containers.RepeatedCompositeFieldContainer[RolloutGate]
    history: _containers.RepeatedCompositeFieldContainer[RolloutEvent]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., champion: _Optional[str] = ..., status: _Optional[str] = ..., stage: _Optional[str] = ..., stages: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ..., problem: _Optional[str] = ..., controller: _Optional[str] = ..., acting: bool = ..., in_words: _Optional[str] = ..., began: _Optional[float] = ..., since: _Optional[float] = ..., gates: _Optional[_Iterable[_Union[RolloutGate, _Mapping]]] = ..., history: _Optional[_Iterable[_Union[RolloutEvent, _Mapping]]] = ...) -> None: ...

class RolloutGate(_message.Message):
    __slots__ = ("metric", "margin", "version", "champion", "worse", "within", "sentence", "low", "high")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    MARGIN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    WORSE_FIELD_NUMBER: _ClassVar[int]
    WITHIN_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    metric: str
    margin: float
    version: float
    champion: float
    worse: float
    within: float
    sentence: str
    low: float
    high: float
    def __init__(self, metric: _Optional[str] = ..., margin: _Optional[float] = ..., version: _Optional[float] = ..., champion: _Optional[float] = ..., worse: _Optional[float] = ..., within: _Optional[float] = ..., sentence: _Optional[str] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class RolloutEvent(_message.Message):
    __slots__ = ("at", "text")
    AT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    at: float
    text: str
    def __init__(self, at: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class RolloutCommandRequest(_message.Message):
    __slots__ = ("model", "command", "by")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    model: str
    command: str
    by: str
    def __init__(self, model: _Optional[str] = ..., command: _Optional[str] = ..., by: _Optional[str] = ...) -> None: ...

class RolloutCommandResponse(_message.Message):
    __slots__ = ("version", "stage")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    version: str
    stage: str
    def __init__(self, version: _Optional[str] = ..., stage: _Optional[str] = ...) -> None: ...

class FeedbackRequest(_message.Message):
    __slots__ = ("model", "ids", "classes", "numbers", "values", "rows", "models", "passed_on")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    PASSED_ON_FIELD_NUMBER: _ClassVar[int]
    model: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    classes: _containers.RepeatedScalarFieldContainer[str]
    numbers: _containers.RepeatedScalarFieldContainer[float]
    values: _containers.RepeatedScalarFieldContainer[float]
    rows: _containers.RepeatedScalarFieldContainer[int]
    models: _containers.RepeatedScalarFieldContainer[str]
    passed_on: bytes
    def __init__(self, model: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., classes: _Optional[_Iterable[str]] = ..., numbers: _Optional[_Iterable[float]] = ..., values: _Optional[_Iterable[float]] = ..., rows: _Optional[_Iterable[int]] = ..., models: _Optional[_Iterable[str]] = ..., passed_on: _Optional[bytes] = ...) -> None: ...

class FeedbackResponse(_message.Message):
    __slots__ = ("taken",)
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    taken: int
    def __init__(self, taken: _Optional[int] = ...) -> None: ...

class DriftStateRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class DriftStateResponse(_message.Message):
    __slots__ = ("versions", "unwatched")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    UNWATCHED_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[VersionDrift]
    unwatched: _containers.RepeatedCompositeFieldContainer[UnwatchedVersion]
    def __init__(self, versions: _Optional[_Iterable[_Union[VersionDrift, _Mapping]]] = ..., unwatched: _Optional[_Iterable[_Union[UnwatchedVersion, _Mapping]]] = ...) -> None: ...

class UnwatchedVersion(_message.Message):
    __slots__ = ("model", "version", "roles")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ...) -> None: ...

class VersionDrift(_message.Message):
    __slots__ = ("model", "version", "roles", "rows", "window_rows", "rate", "columns", "predictions", "tested", "drifted", "global_p_value", "alarms", "importance_measure", "looks", "order", "ordered_by", "answers", "expected_accuracy", "joint", "alarmed_importance")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_ROWS_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    TESTED_FIELD_NUMBER: _ClassVar[int]
    DRIFTED_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    IMPORTANCE_MEASURE_FIELD_NUMBER: _ClassVar[int]
    LOOKS_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    ORDERED_BY_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    JOINT_FIELD_NUMBER: _ClassVar[int]
    ALARMED_IMPORTANCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    rows: int
    window_rows: int
    rate: float
    columns: _containers.RepeatedCompositeFieldContainer[ColumnDrift]
    predictions: ColumnDrift
    tested: int
    drifted: int
    global_p_value: float
    alarms: Alarms
    importance_measure: str
    looks: int
    order: str
    ordered_by: _containers.RepeatedScalarFieldContainer[str]
    answers: _containers.RepeatedCompositeFieldContainer[ColumnDrift]
    expected_accuracy: ExpectedAccuracy
    joint: JointDrift
    alarmed_importance: float
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ..., rows: _Optional[int] = ..., window_rows: _Optional[int] = ..., rate: _Optional[float] = ..., columns: _Optional[_Iterable[_Union[ColumnDrift, _Mapping]]] = ..., predictions: _Optional[_Union[ColumnDrift, _Mapping]] = ..., tested: _Optional[int] = ..., drifted: _Optional[int] = ..., global_p_value: _Optional[float] = ..., alarms: _Optional[_Union[Alarms, _Mapping]] = ..., importance_measure: _Optional[str] = ..., looks: _Optional[int] = ..., order: _Optional[str] = ..., ordered_by: _Optional[_Iterable[str]] = ..., answers: _Optional[_Iterable[_Union[ColumnDrift, _Mapping]]] = ..., expected_accuracy: _Optional[_Union[ExpectedAccuracy, _Mapping]] = ..., joint: _Optional[_Union[JointDrift, _Mapping]] = ..., alarmed_importance: _Optional[float] = ...) -> None: ...

class JointDrift(_message.Message):
    __slots__ = ("rows", "pairs", "segments")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    pairs: _containers.RepeatedCompositeFieldContainer[PairDrift]
    segments: _containers.RepeatedCompositeFieldContainer[SegmentDrift]
    def __init__(self, rows: _Optional[int] = ..., pairs: _Optional[_Iterable[_Union[PairDrift, _Mapping]]] = ..., segments: _Optional[_Iterable[_Union[SegmentDrift, _Mapping]]] = ...) -> None: ...

class PairDrift(_message.Message):
    __slots__ = ("first", "second", "rows", "rows_needed", "association_reference", "association", "psi_unbiased", "p_value", "drifted", "first_labels", "second_labels", "reference", "current")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROWS_NEEDED_FIELD_NUMBER: _ClassVar[int]
    ASSOCIATION_REFERENCE_FIELD_NUMBER: _ClassVar[int]
    ASSOCIATION_FIELD_NUMBER: _ClassVar[int]
    PSI_UNBIASED_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    DRIFTED_FIELD_NUMBER: _ClassVar[int]
    FIRST_LABELS_FIELD_NUMBER: _ClassVar[int]
    SECOND_LABELS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    first: str
    second: str
    rows: int
    rows_needed: int
    association_reference: float
    association: float
    psi_unbiased: float
    p_value: float
    drifted: bool
    first_labels: _containers.RepeatedScalarFieldContainer[str]
    second_labels: _containers.RepeatedScalarFieldContainer[str]
    reference: _containers.RepeatedScalarFieldContainer[float]
    current: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, first: _Optional[str] = ..., second: _Optional[str] = ..., rows: _Optional[int] = ..., rows_needed: _Optional[int] = ..., association_reference: _Optional[float] = ..., association: _Optional[float] = ..., psi_unbiased: _Optional[float] = ..., p_value: _Optional[float] = ..., drifted: bool = ..., first_labels: _Optional[_Iterable[str]] = ..., second_labels: _Optional[_Iterable[str]] = ..., reference: _Optional[_Iterable[float]] = ..., current: _Optional[_Iterable[float]] = ...) -> None: ...

class SegmentDrift(_message.Message):
    __slots__ = ("column", "segment", "rows", "rows_needed", "share_reference", "share", "psi_unbiased", "p_value", "drifted", "labels", "reference", "current")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROWS_NEEDED_FIELD_NUMBER: _ClassVar[int]
    SHARE_REFERENCE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    PSI_UNBIASED_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    DRIFTED_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    column: str
    segment: str
    rows: int
    rows_needed: int
    share_reference: float
    share: float
    psi_unbiased: float
    p_value: float
    drifted: bool
    labels: _containers.RepeatedScalarFieldContainer[str]
    reference: _containers.RepeatedScalarFieldContainer[float]
    current: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, column: _Optional[str] = ..., segment: _Optional[str] = ..., rows: _Optional[int] = ..., rows_needed: _Optional[int] = ..., share_reference: _Optional[float] = ..., share: _Optional[float] = ..., psi_unbiased: _Optional[float] = ..., p_value: _Optional[float] = ..., drifted: bool = ..., labels: _Optional[_Iterable[str]] = ..., reference: _Optional[_Iterable[float]] = ..., current: _Optional[_Iterable[float]] = ...) -> None: ...

class ExpectedAccuracy(_message.Message):
    __slots__ = ("value", "low", "high", "reference", "reference_rows", "outside_ratio")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_ROWS_FIELD_NUMBER: _ClassVar[int]
    OUTSIDE_RATIO_FIELD_NUMBER: _ClassVar[int]
    value: float
    low: float
    high: float
    reference: float
    reference_rows: int
    outside_ratio: float
    def __init__(self, value: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., reference: _Optional[float] = ..., reference_rows: _Optional[int] = ..., outside_ratio: _Optional[float] = ...) -> None: ...

class Alarms(_message.Message):
    __slots__ = ("columns", "alarms")
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedScalarFieldContainer[str]
    alarms: _containers.RepeatedCompositeFieldContainer[Alarm]
    def __init__(self, columns: _Optional[_Iterable[str]] = ..., alarms: _Optional[_Iterable[_Union[Alarm, _Mapping]]] = ...) -> None: ...

class Alarm(_message.Message):
    __slots__ = ("column", "kind", "since", "once_in_looks")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    ONCE_IN_LOOKS_FIELD_NUMBER: _ClassVar[int]
    column: str
    kind: str
    since: float
    once_in_looks: float
    def __init__(self, column: _Optional[str] = ..., kind: _Optional[str] = ..., since: _Optional[float] = ..., once_in_looks: _Optional[float] = ...) -> None: ...

class ColumnDrift(_message.Message):
    __slots__ = ("name", "kind", "rows", "rows_needed", "enough_rows", "jensen_shannon", "psi", "psi_unbiased", "ks", "ks_slack", "wasserstein", "missing_ratio", "unseen_ratio", "infinite_ratio", "out_of_range_ratio", "p_value", "drifted", "dispersion", "minimum_effect", "labels", "reference", "current", "importance", "effective_rows", "detectable")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROWS_NEEDED_FIELD_NUMBER: _ClassVar[int]
    ENOUGH_ROWS_FIELD_NUMBER: _ClassVar[int]
    JENSEN_SHANNON_FIELD_NUMBER: _ClassVar[int]
    PSI_FIELD_NUMBER: _ClassVar[int]
    PSI_UNBIASED_FIELD_NUMBER: _ClassVar[int]
    KS_FIELD_NUMBER: _ClassVar[int]
    KS_SLACK_FIELD_NUMBER: _ClassVar[int]
    WASSERSTEIN_FIELD_NUMBER: _ClassVar[int]
    MISSING_RATIO_FIELD_NUMBER: _ClassVar[int]
    UNSEEN_RATIO_FIELD_NUMBER: _ClassVar[int]
    INFINITE_RATIO_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_RANGE_RATIO_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    DRIFTED_FIELD_NUMBER: _ClassVar[int]
    DISPERSION_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_EFFECT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    IMPORTANCE_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_ROWS_FIELD_NUMBER: _ClassVar[int]
    DETECTABLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    rows: int
    rows_needed: int
    enough_rows: bool
    jensen_shannon: float
    psi: float
    psi_unbiased: float
    ks: float
    ks_slack: float
    wasserstein: float
    missing_ratio: float
    unseen_ratio: float
    infinite_ratio: float
    out_of_range_ratio: float
    p_value: float
    drifted: bool
    dispersion: float
    minimum_effect: float
    labels: _containers.RepeatedScalarFieldContainer[str]
    reference: _containers.RepeatedScalarFieldContainer[float]
    current: _containers.RepeatedScalarFieldContainer[float]
    importance: float
    effective_rows: int
    detectable: float
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., rows: _Optional[int] = ..., rows_needed: _Optional[int] = ..., enough_rows: bool = ..., jensen_shannon: _Optional[float] = ..., psi: _Optional[float] = ..., psi_unbiased: _Optional[float] = ..., ks: _Optional[float] = ..., ks_slack: _Optional[float] = ..., wasserstein: _Optional[float] = ..., missing_ratio: _Optional[float] = ..., unseen_ratio: _Optional[float] = ..., infinite_ratio: _Optional[float] = ..., out_of_range_ratio: _Optional[float] = ..., p_value: _Optional[float] = ..., drifted: bool = ..., dispersion: _Optional[float] = ..., minimum_effect: _Optional[float] = ..., labels: _Optional[_Iterable[str]] = ..., reference: _Optional[_Iterable[float]] = ..., current: _Optional[_Iterable[float]] = ..., importance: _Optional[float] = ..., effective_rows: _Optional[int] = ..., detectable: _Optional[float] = ...) -> None: ...
