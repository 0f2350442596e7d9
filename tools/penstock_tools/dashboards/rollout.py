"""The dashboard of rollouts: how far each is and why, and how canaries, shadows and champions compare."""

from typing import Final

from penstock_tools.dashboards.board import (
    Board,
    Panel,
    Query,
    Row,
    added,
    highest,
    mean,
    of_models,
    per_second,
    portions,
    quantile,
    ratio,
)

_VERSION: Final = ("model_name", "model_version")
_NAME: Final = "{{model_name}} {{model_version}}"
_CLASSES: Final = ("champion_class", "shadow_class")
_A_ROLLOUT: Final = "a version is rolled out"
_A_CANARY: Final = "a canary shares a model's traffic"
_A_SHADOW: Final = "a version is shadow"
_LABELS: Final = "labels come ([labels])"


_PROGRESS = Row(
    "Rollouts",
    (
        Panel(
            "Status",
            "table",
            "What a rollout does (running, paused, promoting, promoted, rolled_back, aborted, refused) beside which champion.",
            (Query(highest(of_models("penstock_rollout_status"), *_VERSION, "champion", "status")),),
            empty_until=_A_ROLLOUT,
        ),
        Panel(
            "Status over time",
            "states",
            "The same over time; each line is there while its status holds.",
            (Query(highest(of_models("penstock_rollout_status"), *_VERSION, "status"), f"{_NAME} {{{{status}}}}"),),
            empty_until=_A_ROLLOUT,
        ),
        Panel(
            "Share of the present stage",
            "lines",
            "The canary's share at the stage that the rollout is in; 0 as shadow.",
            (Query(highest(of_models("penstock_rollout_stage_weight_ratio"), *_VERSION), _NAME),),
            "percentunit",
            most=1.0,
            empty_until=_A_ROLLOUT,
        ),
        Panel(
            "Evidence that it is worse",
            "lines",
            "By gate, as a share of what is needed: at 1 the version is rolled back.",
            (
                Query(
                    highest(of_models("penstock_rollout_evidence", 'that="worse"'), *_VERSION, "metric"),
                    f"{_NAME} {{{{metric}}}}",
                ),
            ),
            is_log=True,
            thresholds=(1.0,),
            empty_until=_A_ROLLOUT,
        ),
        Panel(
            "Evidence that it is within the margin",
            "lines",
            "By gate: the promotion waits until all have reached 1.",
            (
                Query(
                    highest(of_models("penstock_rollout_evidence", 'that="within"'), *_VERSION, "metric"),
                    f"{_NAME} {{{{metric}}}}",
                ),
            ),
            is_log=True,
            empty_until=_A_ROLLOUT,
        ),
        Panel(
            "Time",
            "table",
            "How long the present stage has lasted, how long the rollout may still take, and how many servers act on it: one.",
            (
                Query(
                    f"time() - {highest(of_models('penstock_rollout_stage_since_timestamp_seconds'), *_VERSION)}",
                    "in this stage",
                ),
                Query(
                    f"{highest(of_models('penstock_rollout_deadline_timestamp_seconds'), *_VERSION)} - time()", "left"
                ),
                Query(added(of_models("penstock_rollout_acting"), *_VERSION), "servers that act"),
            ),
            "s",
            empty_until=_A_ROLLOUT,
        ),
    ),
)
_TRAFFIC = Row(
    "Versions that share traffic",
    (
        Panel(
            "Share of the requests",
            "lines",
            "Of the requests that name no version: what each version got, beside the weight that it is to have.",
            (
                Query(
                    portions(of_models("penstock_routed_requests_total"), *_VERSION),
                    f"{_NAME} got",
                ),
                Query(highest(of_models("penstock_canary_weight_ratio"), *_VERSION), f"{_NAME} is to get"),
            ),
            "percentunit",
            most=1.0,
        ),
        Panel(
            "Share of failures",
            "lines",
            "Of each version's requests those that it failed to answer, by its own fault.",
            (
                Query(
                    ratio(
                        of_models("penstock_routed_failures_total"),
                        of_models("penstock_routed_requests_total"),
                        *_VERSION,
                    ),
                    _NAME,
                ),
            ),
            "percentunit",
        ),
        Panel(
            "Latency",
            "lines",
            "p50 and p99 of each version's requests that named no version.",
            tuple(
                Query(
                    quantile(q, of_models("penstock_routed_latency_seconds_bucket"), *_VERSION), f"{_NAME} p{q * 100:g}"
                )
                for q in (0.5, 0.99)
            ),
            "s",
            is_log=True,
        ),
        Panel(
            "Weight and exposure",
            "table",
            "A version's share by design, and what came to it since the weights are in force.",
            (
                Query(highest(of_models("penstock_experiment_weight_ratio"), *_VERSION), "weight"),
                Query(mean(of_models("penstock_experiment_exposure_ratio"), *_VERSION), "exposure"),
            ),
            "percentunit",
            empty_until=_A_CANARY,
        ),
        Panel(
            "Evidence of a mismatch",
            "lines",
            "That requests were not shared by the weights. At 1 a comparison is void: something sends callers elsewhere.",
            (Query(highest(of_models("penstock_experiment_mismatch_evidence"), "model_name"), "{{model_name}}"),),
            is_log=True,
            thresholds=(1.0,),
            empty_until=_A_CANARY,
        ),
        Panel(
            "Intervals beside the champion",
            "table",
            "What a canary's metrics are between, at all looks: ratios of errors and slow answers, differences of the rest.",
            (
                Query(mean(of_models("penstock_experiment_interval_low"), *_VERSION, "metric", "of"), "low"),
                Query(mean(of_models("penstock_experiment_interval_high"), *_VERSION, "metric", "of"), "high"),
            ),
            empty_until=f"{_A_CANARY} and requests have failed or were slow",
        ),
    ),
)
_SHADOWS = Row(
    "Shadows",
    (
        Panel(
            "Agreement",
            "lines",
            "Share of compared rows with the champion's class, since the shadow was loaded.",
            (Query(mean(of_models("penstock_shadow_agreement_ratio"), *_VERSION), _NAME),),
            "percentunit",
            most=1.0,
            empty_until=f"{_A_SHADOW} and has answered",
        ),
        Panel(
            "Comparisons by result",
            "stacked",
            "Rows per second: agree, disagree, failed, refused by the shadow's features.",
            (
                Query(
                    added(per_second(of_models("penstock_shadow_comparisons_total")), *_VERSION, "result"),
                    f"{_NAME} {{{{result}}}}",
                ),
            ),
            "rowsps",
            empty_until=_A_SHADOW,
        ),
        Panel(
            "Rows not copied",
            "stacked",
            "By reason: busy is overload of the shadow's thread, sampled_out the share that is asked for.",
            (
                Query(
                    added(per_second(of_models("penstock_shadow_dropped_total")), *_VERSION, "reason"),
                    f"{_NAME} {{{{reason}}}}",
                ),
            ),
            "rowsps",
            empty_until=_A_SHADOW,
        ),
        Panel(
            "Distance of scores",
            "lines",
            "What 50 and 99 of 100 rows' scores are apart from the champion's, at most.",
            tuple(
                Query(
                    quantile(q, of_models("penstock_shadow_score_distance_bucket"), *_VERSION), f"{_NAME} p{q * 100:g}"
                )
                for q in (0.5, 0.99)
            ),
            empty_until=f"{_A_SHADOW} and has answered",
        ),
        Panel(
            "Times the champion's time",
            "lines",
            "How many times as long as the champion the shadow took for the same batch.",
            tuple(
                Query(quantile(q, of_models("penstock_shadow_time_ratio_bucket"), *_VERSION), f"{_NAME} p{q * 100:g}")
                for q in (0.5, 0.9)
            ),
            thresholds=(1.0,),
            empty_until=f"{_A_SHADOW} and has answered",
        ),
        Panel(
            "Classes",
            "table",
            "Rows by the champion's class and the shadow's, the most first.",
            (
                Query(
                    f"sort_desc({added(of_models('penstock_shadow_classes_total'), *_VERSION, *_CLASSES)})",
                    "rows",
                ),
            ),
            empty_until=f"{_A_SHADOW} and has answered",
        ),
    ),
)
_TRUTH = Row(
    "By labels",
    (
        Panel(
            "Accuracy",
            "lines",
            "Of the latest answers that are old enough and labelled, with the interval of 95 %.",
            (
                Query(mean(of_models("model_accuracy_rolling"), *_VERSION), _NAME),
                Query(mean(of_models("model_accuracy_rolling_low"), *_VERSION), f"{_NAME} low"),
                Query(mean(of_models("model_accuracy_rolling_high"), *_VERSION), f"{_NAME} high"),
            ),
            "percentunit",
            least=None,
            empty_until=_LABELS,
        ),
        Panel(
            "Answers by their label",
            "stacked",
            "Answers per second that have become old enough: right, wrong, unlabelled.",
            (
                Query(
                    added(per_second(of_models("penstock_labelled_answers_total")), *_VERSION, "role", "result"),
                    f"{_NAME} {{{{role}}}} {{{{result}}}}",
                ),
            ),
            "rowsps",
            empty_until=_LABELS,
        ),
        Panel(
            "Labels by what became of them",
            "stacked",
            "matched, late, duplicate, conflicting, invalid (no class of the model), unknown (no answer has the id).",
            (
                Query(
                    added(per_second(of_models("penstock_labels_total")), "model_name", "state"),
                    "{{model_name}} {{state}}",
                ),
            ),
            "short",
            empty_until=_LABELS,
        ),
    ),
)
ROLLOUT: Final = Board(
    "rollout",
    "Rollouts",
    "How far each rollout is and why, and how canaries, shadows and champions compare.",
    (_PROGRESS, _TRAFFIC, _SHADOWS, _TRUTH),
)
