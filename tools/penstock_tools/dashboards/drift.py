"""The dashboard of drift: do rows and answers look as in training, are answers still right, is the model trained anew."""

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
    portions,
    within,
)

_VERSION: Final = ("model_name", "model_version")
_FEATURE: Final = (*_VERSION, "feature_name")
_NAME: Final = "{{model_name}} {{model_version}}"
_FEATURE_NAME: Final = "{{model_name}} {{model_version}} {{feature_name}}"
_WATCHED: Final = "a version with a drift baseline has answered enough rows"
_ALARMS: Final = "a feature has an alarm"
_MOST: Final = 15
"""Features that a graph shows: more lines than that tell nothing."""


def _worst(metric: str) -> str:
    return f"topk({_MOST}, {highest(of_models(metric), *_FEATURE)})"


def _of_windows(what: str) -> str:
    """The mean over servers, whose windows hold other rows each."""
    return mean(of_models(what), *_VERSION)


_ALARM = Row(
    "Alarms",
    (
        Panel(
            "Alarm",
            "states",
            "Whether a version has a drift alarm, of features or answers. It is wrong once in a year of looks.",
            (Query(highest(of_models("penstock_drift_alarm"), *_VERSION), _NAME),),
            thresholds=(1.0,),
            empty_until="a version with a drift baseline is served",
        ),
        Panel(
            "Importance of what has an alarm",
            "lines",
            "The share of the features' importance to the model that lies in those with an alarm: drift of what matters.",
            (Query(highest(of_models("penstock_drift_alarm_importance"), *_VERSION), _NAME),),
            "percentunit",
            most=1.0,
            empty_until="a version that was published with its features' importance is served",
        ),
        Panel(
            "Drifts since",
            "table",
            "How long each feature with an alarm has drifted.",
            (
                Query(
                    f"time() - {highest(of_models('penstock_feature_drift_alarm_since_timestamp_seconds'), *_FEATURE)}",
                    "for",
                ),
            ),
            "s",
            empty_until=_ALARMS,
        ),
    ),
)
_FEATURES = Row(
    "Features",
    (
        Panel(
            "Distance from training",
            "lines",
            f"Jensen-Shannon distance of the {_MOST} features that are farthest: 0 as in training, 1 nothing in common.",
            (Query(_worst("data_drift_score"), _FEATURE_NAME),),
            most=1.0,
            empty_until=_WATCHED,
        ),
        Panel(
            "PSI now",
            "bars",
            "Population stability index less its mean without drift, of the largest. Up to 0.1 is called no drift.",
            (Query(f"sort_desc({_worst('penstock_feature_drift_psi_unbiased')})", _FEATURE_NAME),),
            thresholds=(0.1, 0.25),
            empty_until=_WATCHED,
        ),
        Panel(
            "Features that drifted",
            "lines",
            "How many features a test calls drifted in the present window, of those that have enough rows to be judged.",
            (
                Query(highest(of_models("penstock_drifted_features"), *_VERSION), f"{_NAME} drifted"),
                Query(highest(of_models("penstock_drift_tested_features"), *_VERSION), f"{_NAME} judged"),
            ),
            empty_until="a version with a drift baseline is served",
        ),
        Panel(
            "Features in numbers",
            "table",
            "The window of each feature beside training: distance, PSI, probability of so much by chance, shift in standard "
            "deviations, and shares of rows that are missing, unseen, infinite or out of the range of training.",
            tuple(
                Query(highest(of_models(metric), *_FEATURE), name)
                for metric, name in (
                    ("data_drift_score", "distance"),
                    ("penstock_feature_drift_psi_unbiased", "PSI"),
                    ("penstock_feature_drift_p_value", "p"),
                    ("penstock_feature_drift_wasserstein", "shift"),
                    ("penstock_feature_missing_ratio", "missing"),
                    ("penstock_feature_unseen_ratio", "unseen"),
                    ("penstock_feature_infinite_ratio", "infinite"),
                    ("penstock_feature_out_of_range_ratio", "out of range"),
                )
            ),
            width=24,
            empty_until=_WATCHED,
        ),
        Panel(
            "Rows without a value",
            "lines",
            f"Share of the window's rows, of the {_MOST} features with the most.",
            (Query(_worst("penstock_feature_missing_ratio"), _FEATURE_NAME),),
            "percentunit",
            empty_until="a version with a drift baseline has answered",
        ),
        Panel(
            "Values that training never saw",
            "lines",
            "Unseen categories, and numbers out of the range of training: a share of the window's rows.",
            (
                Query(_worst("penstock_feature_unseen_ratio"), f"{_FEATURE_NAME} unseen"),
                Query(_worst("penstock_feature_out_of_range_ratio"), f"{_FEATURE_NAME} out of range"),
            ),
            "percentunit",
            empty_until="a version with a drift baseline has answered",
        ),
        Panel(
            "Pairs and segments",
            "lines",
            "Pairs of features that no longer go together, and values or ranges of features for which the answers drifted.",
            (
                Query(highest(of_models("penstock_drifted_pairs"), *_VERSION), f"{_NAME} pairs"),
                Query(highest(of_models("penstock_drifted_segments"), *_VERSION), f"{_NAME} segments"),
            ),
            empty_until="a sample of some hundred rows is counted by pairs of columns",
        ),
    ),
)
_ANSWERS = Row(
    "Answers",
    (
        Panel(
            "Distance of answers from training",
            "lines",
            "Of the class or score, and of further numbers of the answers, such as a classifier's confidence.",
            (
                Query(highest(of_models("penstock_prediction_drift_score"), *_VERSION), f"{_NAME} prediction"),
                Query(
                    highest(of_models("penstock_answer_drift_score"), *_VERSION, "answer_name"),
                    f"{_NAME} {{{{answer_name}}}}",
                ),
            ),
            most=1.0,
            empty_until=_WATCHED,
        ),
        Panel(
            "Mix of classes",
            "stacked",
            "Share of each predicted class of a model's rows.",
            (
                Query(
                    portions(of_models("model_predictions_total"), "model_name", "prediction_class"),
                    "{{model_name}} {{prediction_class}}",
                ),
            ),
            "percentunit",
        ),
        Panel(
            "Accuracy, expected and measured",
            "lines",
            "What share of the window's answers should be right, with its band, if features and truth hang together as before; "
            "the share on the hold-out; and what labels say.",
            (
                Query(_of_windows("penstock_expected_accuracy"), f"{_NAME} expected"),
                Query(_of_windows("penstock_expected_accuracy_low"), f"{_NAME} low"),
                Query(_of_windows("penstock_expected_accuracy_high"), f"{_NAME} high"),
                Query(_of_windows("penstock_expected_accuracy_reference"), f"{_NAME} hold-out"),
                Query(_of_windows("model_accuracy_rolling"), f"{_NAME} by labels"),
            ),
            "percentunit",
            least=None,
            empty_until="a classifier was published with --holdout, or labels come",
        ),
    ),
)
_WINDOW = Row(
    "Windows and training",
    (
        Panel(
            "Rows in the window",
            "lines",
            "Counted rows that drift is judged by; a window that does not fill says little.",
            (Query(_of_windows("penstock_drift_window_rows"), _NAME),),
            empty_until="a version with a drift baseline is served",
        ),
        Panel(
            "Rules of retraining",
            "states",
            "Whether the conditions of each rule hold.",
            (
                Query(
                    highest(of_models("penstock_retraining_rule_met"), "model_name", "rule"), "{{model_name}} {{rule}}"
                ),
            ),
            thresholds=(1.0,),
            empty_until="[retraining] has rules",
        ),
        Panel(
            "Calls for retraining",
            "lines",
            "By rule and what became of them.",
            (
                Query(
                    added(within(of_models("penstock_retraining_triggers_total")), "model_name", "rule", "outcome"),
                    "{{model_name}} {{rule}} {{outcome}}",
                ),
            ),
            empty_until="a rule of [retraining] has called",
        ),
    ),
)
DRIFT: Final = Board(
    "drift",
    "Drift",
    "Do rows and answers look as in training, are answers still right, and is the model trained anew.",
    (_ALARM, _FEATURES, _ANSWERS, _WINDOW),
)
