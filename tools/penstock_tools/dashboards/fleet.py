"""The dashboard of all servers: which there are, whether they serve the same, and whether one does worse than the others."""

from typing import Final

from penstock_tools.dashboards.board import (
    Board,
    Panel,
    Query,
    Row,
    added,
    highest,
    of_servers,
    per_second,
    quantile,
    within,
)

_TOTAL: Final = 'stage="total"'
_FAULTS: Final = 'reason=~"model_failed|internal|overloaded|deadline|not_ready"'
_EACH: Final = "{{instance}}"

_SERVERS = Row(
    "Servers",
    (
        Panel(
            "Servers",
            "table",
            "Each server with its release: whether it can answer, for how long it has run, and what its workers take.",
            (
                Query(highest(of_servers("penstock_build_info"), "instance", "version", "python_version")),
                Query(highest(of_servers("penstock_ready"), "instance"), "ready"),
                Query(f"time() - {highest(of_servers('process_start_time_seconds'), 'instance')}", "runs for (s)"),
                Query(f"count by (instance) ({of_servers('penstock_worker_resident_bytes')})", "workers"),
                Query(added(of_servers("penstock_worker_resident_bytes"), "instance"), "memory (bytes)"),
                Query(added(per_second(of_servers("penstock_worker_cpu_seconds_total")), "instance"), "cores used"),
                Query(highest(of_servers("penstock_capacity_ratio"), "instance"), "capacity used"),
            ),
            width=24,
        ),
        Panel(
            "Ready",
            "states",
            "Whether each server can answer something, and nothing while it is away.",
            (Query(highest(of_servers("penstock_ready"), "instance"), _EACH),),
            thresholds=(1.0, 0.5),
            width=12,
        ),
        Panel(
            "Restarts of workers",
            "lines",
            "Workers that died and were replaced, by server.",
            (Query(added(within(of_servers("penstock_worker_restarts_total")), "instance"), _EACH),),
            width=12,
        ),
    ),
)
_LOAD = Row(
    "Load",
    (
        Panel(
            "Requests",
            "lines",
            "Answered requests per second by server. Lines far apart are load that is not balanced.",
            (Query(added(per_second(of_servers("penstock_requests_total")), "instance"), _EACH),),
            "reqps",
        ),
        Panel(
            "Connections",
            "lines",
            "Open connections by server. gRPC keeps them: a new server gets none unless [grpc] connection_age_s ends old ones.",
            (Query(added(of_servers("penstock_worker_connections"), "instance"), _EACH),),
            empty_until="the native transport serves",
        ),
        Panel(
            "CPU",
            "lines",
            "Cores that each server's workers use.",
            (Query(added(per_second(of_servers("penstock_worker_cpu_seconds_total")), "instance"), _EACH),),
        ),
        Panel(
            "p99",
            "lines",
            "What 99 of 100 requests are answered within, by server.",
            (Query(quantile(0.99, of_servers("model_prediction_latency_seconds_bucket", _TOTAL), "instance"), _EACH),),
            "s",
            is_log=True,
        ),
        Panel(
            "Errors",
            "lines",
            "Requests per second that a server failed to answer by its own fault.",
            (Query(added(per_second(of_servers("penstock_refusals_total", _FAULTS)), "instance"), _EACH),),
            "reqps",
        ),
        Panel(
            "Memory",
            "lines",
            "Resident memory of each server's workers.",
            (Query(added(of_servers("penstock_worker_resident_bytes"), "instance"), _EACH),),
            "bytes",
        ),
    ),
)
_ALIKE = Row(
    "Do they serve the same",
    (
        Panel(
            "Champions",
            "lines",
            "On how many servers each version is champion. Two lines of a model that stay are a server left behind.",
            (
                Query(
                    added(of_servers("penstock_model_role", 'role="champion"'), "model_name", "model_version"),
                    "{{model_name}} {{model_version}}",
                ),
            ),
        ),
        Panel(
            "Since the registry answered",
            "lines",
            "How long ago each source of models answered last. What is served goes on; what is promoted is not seen.",
            (
                Query(
                    f"time() - {highest(of_servers('penstock_source_answered_timestamp_seconds'), 'instance', 'source')}",
                    "{{instance}} {{source}}",
                ),
            ),
            "s",
            thresholds=(600.0,),
        ),
        Panel(
            "Versions by state",
            "stacked",
            "Versions over all servers that are ready, load, or cannot be served.",
            (Query(added(of_servers("penstock_version_state"), "state"), "{{state}}"),),
        ),
        Panel(
            "Loads",
            "lines",
            "Versions that workers loaded, and that failed.",
            (
                Query(
                    added(within(of_servers("penstock_loads_total")), "instance", "result"), "{{instance}} {{result}}"
                ),
            ),
        ),
        Panel(
            "Kept out",
            "lines",
            "Versions that did not pass the airlock, or ended workers, by server.",
            (Query(highest(of_servers("penstock_quarantined_versions"), "instance"), _EACH),),
            thresholds=(1.0,),
        ),
        Panel(
            "Who acts on rollouts",
            "table",
            "For each version that is rolled out, the server that acts: one, by a lease in the registry.",
            (
                Query(
                    f"{highest(of_servers('penstock_rollout_acting'), 'model_name', 'model_version', 'instance')} == 1"
                ),
            ),
            empty_until="a server with --rollouts acts on one",
        ),
    ),
)
_STORES = Row(
    "Answers that wait for labels",
    (
        Panel(
            "Kept answers",
            "lines",
            "What the files of answers take, by server.",
            (Query(highest(of_servers("penstock_kept_answer_bytes"), "instance"), _EACH),),
            "bytes",
            empty_until="[labels] is enabled",
        ),
        Panel(
            "Labels that wait",
            "lines",
            "Labels whose answer no server has found yet.",
            (Query(highest(of_servers("penstock_waiting_labels"), "instance"), _EACH),),
            empty_until="[labels] is enabled",
        ),
        Panel(
            "Lost",
            "lines",
            "Answers that found no room, answers deleted before they were old enough, and labels that were refused.",
            (
                Query(added(within(of_servers("penstock_answers_not_kept_total")), "instance"), f"{_EACH} not kept"),
                Query(
                    added(within(of_servers("penstock_answers_deleted_early_total")), "instance"),
                    f"{_EACH} deleted early",
                ),
                Query(
                    added(within(of_servers("penstock_labels_refused_total")), "instance"), f"{_EACH} labels refused"
                ),
            ),
            empty_until="[labels] is enabled",
        ),
    ),
)
FLEET: Final = Board(
    "fleet",
    "Fleet",
    "Which servers there are, whether they serve the same, and whether one does worse than the others.",
    (_SERVERS, _LOAD, _ALIKE, _STORES),
    picks_models=False,
)
