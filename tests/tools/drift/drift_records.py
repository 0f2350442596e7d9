"""Records of drift as a server gives them, for the tests of what is made of them."""

from dataclasses import replace

from penstock_server.drift.report import (
    ColumnDrift,
    DriftAlarm,
    ExpectedAccuracy,
    JointDrift,
    PairDrift,
    SegmentDrift,
    VersionDrift,
)

DELAY = ColumnDrift(
    name="delay", kind="number", rows=900, rows_needed=125, effective_rows=125, enough_rows=True, jensen_shannon=0.31, psi=0.52,
    psi_unbiased=0.49, ks=0.2, ks_slack=0.3, wasserstein=0.7, missing_ratio=0.1, unseen_ratio=None, infinite_ratio=0.0,
    out_of_range_ratio=0.02, p_value=1e-9, drifted=True, dispersion=1.2, minimum_effect=0.1,
    labels=("< 1", "1 to 2", "2 to 5", ">= 5", "missing"), reference=(0.25, 0.25, 0.25, 0.25, 0.0),
    current=(0.1, 0.1, 0.1, 0.6, 0.1), detectable=0.17,
)  # fmt: skip
CARRIER = replace(
    DELAY, name="carrier", kind="string", jensen_shannon=0.02, psi_unbiased=-0.001, ks=None, ks_slack=None,
    wasserstein=None, missing_ratio=0.0, unseen_ratio=0.003, infinite_ratio=None, out_of_range_ratio=None, p_value=0.97,
    drifted=False, labels=("UA", "DL", "other"), reference=(0.5, 0.3, 0.2), current=(0.51, 0.3, 0.19),
)  # fmt: skip
SILENT = replace(
    DELAY, name="gust", rows=40, effective_rows=40, enough_rows=False, jensen_shannon=None, psi=None, psi_unbiased=None,
    ks=None, ks_slack=None, wasserstein=None, missing_ratio=0.45, out_of_range_ratio=0.0, p_value=None, drifted=None,
    detectable=None,
)  # fmt: skip
ANSWERS = replace(CARRIER, name="label", kind="class", labels=("0", "1"), reference=(0.8, 0.2), current=(0.7, 0.3))
CONFIDENCE = replace(
    DELAY, name="confidence", kind="score", jensen_shannon=0.11, missing_ratio=0.0, p_value=0.2, drifted=False
)  # fmt: skip
PAIR = PairDrift(
    first="delay", second="gust", rows=800, rows_needed=100, association_reference=0.6, association=0.1, psi_unbiased=0.4,
    p_value=1e-6, drifted=True, first_labels=("< 2", ">= 2"), second_labels=("< 30", ">= 30"),
    reference=(0.4, 0.1, 0.1, 0.4), current=(0.3, 0.2, 0.2, 0.3),
)  # fmt: skip
SEGMENT = SegmentDrift(
    column="carrier", segment="UA", rows=300, rows_needed=50, share_reference=0.5, share=0.51, psi_unbiased=0.12,
    p_value=0.001, drifted=True, labels=("0", "1"), reference=(0.9, 0.1), current=(0.75, 0.25),
)  # fmt: skip
QUIET_SEGMENT = replace(SEGMENT, segment="DL", rows=20, psi_unbiased=None, p_value=None, drifted=None)
JOINT = JointDrift(
    rows=900,
    pairs=(PAIR, replace(PAIR, second="carrier", psi_unbiased=0.001, p_value=0.9, drifted=False)),
    segments=(SEGMENT, QUIET_SEGMENT),
)
CHAMPION = VersionDrift(
    model="flights", version="1", roles=("champion",), rows=900, window_rows=10_000, rate=0.05,
    columns=(SILENT, CARRIER, DELAY), predictions=ANSWERS, tested=2, drifted=1, global_p_value=2e-9, alarmed=("delay", ""),
    alarms=(DriftAlarm("delay", "unseen", 1767312000.0, 4e7), DriftAlarm("", "shares", 1767225600.0, 3e20)),
    answers=(CONFIDENCE,), expected_accuracy=ExpectedAccuracy(0.8123, 0.79, 0.83, 0.851, 5000, 0.012),
)  # fmt: skip
CANARY = replace(
    CHAMPION, version="2", roles=("canary", "shadow"), rows=0, columns=(SILENT,), predictions=None, tested=0,
    drifted=None, global_p_value=None, alarmed=None, alarms=(), answers=(),
    expected_accuracy=None,
)  # fmt: skip
