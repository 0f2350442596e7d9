"""`penstock stream`: answers the messages of a Kafka topic."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from penstock_tools.cli.options import ModelName, Registry

_ROWS = "Rows"
_GROUP = "The group"


def stream(
    name: ModelName,
    *,
    brokers: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            envvar="PENSTOCK_BROKERS",
            help="The Kafka brokers; several with commas.",
            show_default=False,
        ),
    ],
    source: Annotated[str, typer.Option("--in", metavar="TOPIC", help="The topic with the rows.", show_default=False)],
    answers: Annotated[
        str, typer.Option("--out", metavar="TOPIC", help="The topic for the answers.", show_default=False)
    ],
    dead_letters: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC",
            help="The topic for messages that have no answer, with the reason in the header penstock.error. "
            "Default: the name of --in and .dead-letters.",
            show_default=False,
        ),
    ] = None,
    format_: Annotated[
        Literal["json", "avro", "arrow"],
        typer.Option(
            "--format",
            help="json: an object per message. avro: a record per message. arrow: an IPC stream of any number of rows per "
            "message. Answers have the same.",
            rich_help_panel=_ROWS,
        ),
    ] = "json",
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help="A field of the message that goes into its answer, such as an id. Repeat the option for more.",
            rich_help_panel=_ROWS,
            show_default=False,
        ),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The Avro schema of the messages, which have no number of it in front.",
            rich_help_panel=_ROWS,
            show_default=False,
        ),
    ] = None,
    schema_registry: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The Schema Registry that the Avro messages' schemas are in. The answers' is registered there too.",
            rich_help_panel=_ROWS,
            show_default=False,
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="GROUP",
            help="The consumer group. Processes with the same one share the partitions. Default: penstock-NAME.",
            rich_help_panel=_GROUP,
            show_default=False,
        ),
    ] = None,
    instance: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="This process's own name, which stays over restarts, such as a StatefulSet's pod. A process that takes its "
            "place then ends its unfinished transaction at once, instead of after ten seconds. Default: none.",
            rich_help_panel=_GROUP,
            show_default=False,
        ),
    ] = "",
    first: Annotated[
        Literal["earliest", "latest"],
        typer.Option("--from", help="Where a new group begins.", rich_help_panel=_GROUP),
    ] = "earliest",
    max_messages: Annotated[
        int, typer.Option(metavar="N", help="The most messages in one batch, which is one transaction.")
    ] = 5000,
    wait_ms: Annotated[
        float, typer.Option(metavar="MS", help="The longest that a message waits for others to share its batch.")
    ] = 20.0,
    kafka_config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Further settings of Kafka's client (librdkafka), a line name=value each: security.protocol, sasl.username "
            "and so on.",
            show_default=False,
        ),
    ] = None,
    registry: Registry = None,
    host: Annotated[str, typer.Option(help="The address of metrics and health.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="Its port; 0 picks a free one.")] = 8003,
    allow_python: Annotated[
        bool,
        typer.Option(
            "--allow-python",
            envvar="PENSTOCK_PYTHON_ALLOW",
            help="Use versions that run a whole pipeline in Python. Whoever may register versions can then run code here.",
        ),
    ] = False,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option(metavar="LEVEL", help="Default: $PENSTOCK_LOG_LEVEL, else info.", show_default=False),
    ] = None,
    log_format: Annotated[
        Literal["auto", "console", "json"] | None,
        typer.Option(metavar="FORMAT", help="Default: $PENSTOCK_LOG_FORMAT, else auto.", show_default=False),
    ] = None,
) -> None:
    """Answers the rows of a Kafka topic into another one, each exactly once, until Ctrl-C or SIGTERM.

    Answers and the group's positions are committed in one transaction: what reads the answers with
    [bold]isolation.level=read_committed[/bold] sees each once, whatever is killed and whenever. Start as many processes as
    there are cores to use, up to one per partition; when one ends or comes, the others go on.

    The stream follows the registry as a server does: a promoted version is fetched, tried, loaded and answers from the next
    batch on. A message's key is its routing key, so that a canary gets the keys that it gets in servers; shadows get
    copies. A message that is no row of the model's columns, or that the model refuses, goes to the dead letters as it came.

    An answer has the fields that are kept, model_name, model_version, and the model's outputs as [bold]penstock
    batch[/bold] names them. Metrics are those of a server by version, and [bold]penstock_stream_*[/bold] for lag, latency
    from a message's timestamp to its answer's commit, transactions and time.

    Example: [bold]penstock stream --brokers kafka:9092 --in rows --out answers --keep id fraud[/bold]
    """
    from penstock_server.log_setup import configure_logging
    from penstock_tools.stream.command import Request, run

    configure_logging(log_level, log_format)
    request = Request(
        model=name,
        brokers=brokers,
        source=source,
        answers=answers,
        dead_letters=dead_letters or f"{source}.dead-letters",
        group=group or f"penstock-{name}",
        instance=instance,
        format=format_,
        keep=tuple(keep or ()),
        schema=schema,
        schema_registry=schema_registry,
        first=first,
        registry=registry,
        most_messages=max_messages,
        wait_s=wait_ms / 1e3,
        config=kafka_config,
        host=host,
        http_port=http_port,
        allows_python=allow_python,
    )
    run(request, typer.echo)
