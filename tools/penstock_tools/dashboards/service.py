"""The dashboard of the service: is it well, what does it do, how long does it take, what does it refuse."""

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
    of_servers,
    per_second,
    quantile,
    quantiles,
    ratio,
    recorded,
    within,
)

_TOTAL: Final = 'stage="total"'
_FAULTS: Final = 'reason=~"model_failed|internal|overloaded|deadline|not_ready"'
"""Refusals that are the server's fault: those that the objective for errors counts."""
_VERSION: Final = ("model_name", "model_version")
_NOT_READY: Final = of_models("penstock_version_state", 'state!~"READY|STANDBY"')
_LATENCY: Final = "model_prediction_latency_seconds"


def _share_of_errors(*labels: str) -> str:
    errors = added(per_second(of_models("penstock_refusals_total", _FAULTS)), *labels)
    return f"{errors} / ({added(per_second(of_models('penstock_requests_total')), *labels)} + {errors})"


_NOW = Row(
    "Now",
    (
        Panel(
            "Requests",
            "number",
            "Answered requests per second.",
            (Query(added(per_second(of_models("penstock_requests_total")))),),
            "reqps",
            4,
        ),
        Panel(
            "Errors",
            "number",
            "Share of requests that the server failed to answer by its own fault: failures, overload, deadlines, not ready.",
            (Query(_share_of_errors()),),
            "percentunit",
            4,
            (0.001, 0.01),
        ),
        Panel(
            "p99",
            "number",
            "What 99 of 100 requests are answered within, as the server measures it.",
            (Query(quantile(0.99, of_models(f"{_LATENCY}_bucket", _TOTAL))),),
            "s",
            4,
        ),
        Panel(
            "Servers that are ready",
            "number",
            "Share of the servers that are scraped and can answer something.",
            (Query(mean(of_servers("penstock_ready"))),),
            "percentunit",
            4,
            (1.0, 0.5),
            most=1.0,
        ),
        Panel(
            "Versions not ready",
            "number",
            "Versions that should be served, on how many servers they are not: they load, or cannot be served.",
            (Query(f"count({_NOT_READY}) or vector(0)"),),
            "short",
            4,
            (1.0,),
        ),
        Panel(
            "Drift alarms",
            "number",
            "Versions with a drift alarm; the dashboard for drift says about what.",
            (Query(f"sum({highest(of_models('penstock_drift_alarm'), *_VERSION)})"),),
            "short",
            4,
            (1.0,),
            empty_until="a version with a drift baseline is served",
        ),
    ),
)
_TRAFFIC = Row(
    "Traffic",
    (
        Panel(
            "Requests by version",
            "stacked",
            "Answered requests per second of each version, over all servers.",
            (
                Query(
                    added(per_second(of_models("penstock_requests_total")), *_VERSION),
                    "{{model_name}} {{model_version}}",
                ),
            ),
            "reqps",
        ),
        Panel(
            "Rows by class",
            "stacked",
            "Rows answered per second, by predicted class. A mix that shifts is drift of the answers.",
            (
                Query(
                    added(per_second(of_models("model_predictions_total")), "model_name", "prediction_class"),
                    "{{model_name}} {{prediction_class}}",
                ),
            ),
            "rowsps",
        ),
        Panel(
            "Rows per batch",
            "lines",
            "Mean rows of a batch. It grows with the load: batches hold what came meanwhile.",
            (
                Query(
                    ratio(of_models("penstock_batch_rows_sum"), of_models("penstock_batch_rows_count"), "model_name"),
                    "{{model_name}}",
                ),
            ),
        ),
    ),
)
_TIMES = Row(
    "Latency",
    (
        Panel(
            "Latency by model",
            "lines",
            "From a request's arrival to its answer, without the network. Points lead to traces, where requests are traced.",
            quantiles(of_models(f"{_LATENCY}_bucket", _TOTAL), "model_name"),
            "s",
            is_log=True,
        ),
        Panel(
            "Mean time by stage",
            "lines",
            "Total and queue of a request, features and graph of a batch. A queue that takes most of the total is overload.",
            (
                Query(
                    ratio(of_models(f"{_LATENCY}_sum"), of_models(f"{_LATENCY}_count"), "stage"),
                    "{{stage}}",
                ),
            ),
            "s",
            is_log=True,
        ),
        Panel(
            "Latency of all requests",
            "heatmap",
            "How many requests took how long: two bands are two kinds of requests.",
            (Query(added(within(of_models(f"{_LATENCY}_bucket", _TOTAL)), "le"), "{{le}}"),),
            "s",
        ),
    ),
)
_ERRORS = Row(
    "Without an answer",
    (
        Panel(
            "Share of errors by model",
            "lines",
            "As Errors above, by model.",
            (Query(_share_of_errors("model_name"), "{{model_name}}"),),
            "percentunit",
            thresholds=(0.01,),
        ),
        Panel(
            "Refusals by reason",
            "stacked",
            "Requests per second that a version did not answer. invalid_input, unsupported, unauthenticated, denied and "
            "limited are the callers'; overloaded and deadline say that there is too much to do.",
            (Query(added(per_second(of_models("penstock_refusals_total")), "reason"), "{{reason}}"),),
            "reqps",
        ),
        Panel(
            "Refused before a version was found",
            "stacked",
            "The same of requests that came to no version: not_found names a model that is not served.",
            (Query(added(per_second(of_servers("penstock_unrouted_refusals_total")), "reason"), "{{reason}}"),),
            "reqps",
        ),
    ),
)


def _burn(what: str, text: str) -> Panel:
    return Panel(
        f"Burn rate of {what}",
        "lines",
        text,
        tuple(
            Query(recorded(f"job_model:penstock_{what}_burn:{window}"), f"{{{{model_name}}}} {window}")
            for window in ("5m", "1h", "6h", "3d")
        ),
        thresholds=(14.4,),
        empty_until="Prometheus loads tools/deploy/prometheus/rules.yml",
    )


_OBJECTIVES = Row(
    "Objectives",
    (
        _burn(
            "latency",
            "How many times as fast as allowed the budget of slow answers is used up, over four windows. 1 uses up "
            "all of it in 30 days; above 14.4 over an hour somebody is called.",
        ),
        _burn("error", "The same of the budget of errors."),
        Panel(
            "Budget left",
            "table",
            "What is left of three days' budgets, 1 for all of it; below 0 the objective was missed.",
            (
                Query(f"1 - {recorded('job_model:penstock_latency_burn:3d')}", "latency"),
                Query(f"1 - {recorded('job_model:penstock_error_burn:3d')}", "errors"),
            ),
            "percentunit",
            empty_until="Prometheus loads tools/deploy/prometheus/rules.yml",
        ),
    ),
)
_VERSIONS = Row(
    "Versions",
    (
        Panel(
            "Versions and roles",
            "table",
            "Each version that has a role, its state as the worst of the servers sees it, and on how many it has that role.",
            (
                Query(
                    f"count by (model_name, model_version, role, state) ({of_models('penstock_model_role')} "
                    "* on (job, instance, model_name, model_version) group_left (state) "
                    f"{of_models('penstock_version_state')})",
                    "servers",
                ),
            ),
            width=12,
        ),
        Panel(
            "Not ready",
            "table",
            "Versions that are not ready, by state, and on how many servers. /v1/models has the reasons.",
            (Query(added(_NOT_READY, *_VERSION, "state"), "servers"),),
            width=6,
            empty_until="a version loads or cannot be served",
        ),
        Panel(
            "Kept out",
            "lines",
            "Versions per server that did not pass the airlock or ended workers, and loads that failed.",
            (
                Query(highest(of_servers("penstock_quarantined_versions"), "instance"), "{{instance}} kept out"),
                Query(
                    added(within(of_servers("penstock_loads_total", 'result="failed"')), "instance"),
                    "{{instance}} failed",
                ),
            ),
            width=6,
        ),
    ),
)
_WORKERS = Row(
    "Queues and workers",
    (
        Panel(
            "Capacity used",
            "lines",
            "How much of each server's capacity is used, from the measured costs of its models: at 1 no more fits within the "
            "objective, and above it requests are refused.",
            (Query(highest(of_servers("penstock_capacity_ratio"), "instance"), "{{instance}}"),),
            "percentunit",
            thresholds=(0.8, 1.0),
        ),
        Panel(
            "Requests that fit",
            "lines",
            "Requests per second that fit within the objective, of the kinds that come now, beside those that come.",
            (
                Query(added(of_servers("penstock_capacity_requests_per_second")), "fit"),
                Query(added(per_second(of_servers("penstock_requests_total"))), "come"),
            ),
            "reqps",
        ),
        Panel(
            "Requests that wait",
            "lines",
            "Requests in queues for a batch, at the moment of the scrape.",
            (Query(added(of_models("penstock_queue_requests"), "model_name"), "{{model_name}}"),),
        ),
        Panel(
            "CPU of workers",
            "lines",
            "Cores that each worker uses. Near 1 a worker is full: requests are answered by one thread, and large models by "
            "threads of their own.",
            (
                Query(
                    added(per_second(of_servers("penstock_worker_cpu_seconds_total")), "instance", "worker"),
                    "{{instance}} {{worker}}",
                ),
            ),
        ),
        Panel(
            "Memory of workers",
            "lines",
            "Resident memory of each worker.",
            (
                Query(
                    highest(of_servers("penstock_worker_resident_bytes"), "instance", "worker"),
                    "{{instance}} {{worker}}",
                ),
            ),
            "bytes",
        ),
        Panel(
            "Restarts",
            "lines",
            "Workers that died and were replaced.",
            (Query(added(within(of_servers("penstock_worker_restarts_total")), "instance"), "{{instance}}"),),
        ),
    ),
)
_BESIDE = Row(
    "Beside the answers",
    (
        Panel(
            "Hits of the response cache",
            "lines",
            "Share of requests that were answered from it.",
            (
                Query(
                    f"{added(per_second(of_models('penstock_response_cache_hits_total')), 'model_name')} / "
                    f"({added(per_second(of_models('penstock_response_cache_hits_total')), 'model_name')} + "
                    f"{added(per_second(of_models('penstock_response_cache_misses_total')), 'model_name')})",
                    "{{model_name}}",
                ),
            ),
            "percentunit",
            6,
            most=1.0,
            empty_until="[response_cache] keeps answers of a model",
        ),
        Panel(
            "Time of ensembles' steps",
            "stacked",
            "Seconds per second that each step takes, over all its batches.",
            (
                Query(
                    added(per_second(of_models("penstock_step_seconds_total")), "model_name", "step"),
                    "{{model_name}} {{step}}",
                ),
            ),
            "short",
            6,
            empty_until="an ensemble is served",
        ),
        Panel(
            "Request log",
            "lines",
            "Rows per second that are written, and that are not, because the log is busy or the disk full.",
            (
                Query(
                    added(per_second(of_models("penstock_request_log_rows_total")), "model_name"),
                    "{{model_name}} written",
                ),
                Query(
                    added(per_second(of_models("penstock_request_log_dropped_total")), "model_name", "reason"),
                    "{{model_name}} {{reason}}",
                ),
            ),
            "rowsps",
            6,
            empty_until="[request_log] samples requests",
        ),
        Panel(
            "Spans of traces",
            "lines",
            "Spans per second that the collector took, and that it did not.",
            (Query(added(per_second(of_servers("penstock_spans_total")), "result"), "{{result}}"),),
            "short",
            6,
            empty_until="[tracing] names a collector",
        ),
        Panel(
            "Ends of Python processes",
            "lines",
            "Processes that ran a version's own Python, ended and were replaced.",
            (
                Query(
                    added(within(of_models("penstock_python_process_ends_total")), *_VERSION),
                    "{{model_name}} {{model_version}}",
                ),
            ),
            width=6,
            empty_until="a process of a version in Python has ended",
        ),
    ),
)
SERVICE: Final = Board(
    "service",
    "Service",
    "Is it well, what does it do, how long does it take, and what does it refuse.",
    (_NOW, _TRAFFIC, _TIMES, _ERRORS, _OBJECTIVES, _VERSIONS, _WORKERS, _BESIDE),
)
