"""`penstock replay`: a server's request log through another version."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from penstock_tools.cli.options import Json, Registry


def replay(
    log: Annotated[
        Path,
        typer.Argument(
            metavar="LOG",
            help="The folder of a server's request log, a folder in it, or one of its files.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The registered model; or the folder of a published version, without VERSION.",
            show_default=False,
        ),
    ],
    version: Annotated[
        str | None,
        typer.Argument(
            metavar="VERSION",
            help="The version to ask: its number, or an alias such as @canary. Default: the champion.",
            show_default=False,
        ),
    ] = None,
    *,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="True answers: the folder of labels that a server keeps; or a .csv or .parquet with the columns id (that of "
            "the request) and label, and row where requests have several rows.",
            show_default=False,
        ),
    ] = None,
    max_disagreement: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            min=0.0,
            max=1.0,
            help="Exit with 1 if a larger share of the rows, from 0 to 1, gets another answer, or if nothing was compared.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only rows answered from then on, by ISO 8601, such as 2027-01-15 or 2027-01-15T08:00; UTC without a zone.",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only rows answered before then.", show_default=False)
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Replay a version that runs Python, which can run any code.")
    ] = False,
    as_json: Json = False,
    registry: Registry = None,
) -> None:
    """Asks a version for every row of a server's request log, and compares its answers with those that were given.

    The rows are decoded, transformed and answered by the server's own code, and compared as a server compares a shadow. So you
    know before a version gets any traffic how often it would have answered otherwise, for which classes and on which rows; with
    labels, also which of the two was right more often.

    Example: [bold]penstock replay /var/log/penstock/requests fraud 4 --max-disagreement 0.02[/bold]

    Example: [bold]penstock replay requests fraud @canary --labels chargebacks.csv[/bold]
    """
    from penstock_tools import output, progress
    from penstock_tools.replay import replay as command
    from penstock_tools.replay import table

    if version is None:
        model = name
    elif Path(name).is_dir():
        raise typer.BadParameter(
            f"{name} is the folder of a version, which goes without a number", param_hint="VERSION"
        )
    else:
        model = f"{name}{version}" if version.startswith("@") else f"{name}/{version}"
    bounds = _moment("--since", since), _moment("--until", until)
    with progress.bars() as bars:
        found = command.replay(command.Request(log, model, labels, registry, trust, *bounds), bars)
    if as_json:
        typer.echo(output.as_json(found))
    else:
        from rich.console import Console

        Console().print(table.overview(found))
    if max_disagreement is not None and (found.disagreement is None or found.disagreement > max_disagreement):
        raise typer.Exit(1)


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time of ISO 8601, such as 2027-01-15T08:00", param_hint=option
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
