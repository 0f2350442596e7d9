"""`penstock drift`: whether what a model is asked still looks like what it learned from."""

from pathlib import Path
from typing import Annotated

import typer

from penstock_tools.cli.options import Json, ModelName

_REPORTS = "Reports"


def drift(
    name: ModelName,
    *,
    server: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The server: host:port for gRPC, or http://host:port.")
    ] = "127.0.0.1:8001",
    version: Annotated[
        str,
        typer.Option(
            metavar="V", help="A version, or an alias such as @canary. Default: the champion.", show_default=False
        ),
    ] = "",
    feature: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show one feature in full.", show_default=False)
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it until Ctrl-C.")] = False,
    as_json: Json = False,
    fail_on_drift: Annotated[
        bool, typer.Option("--fail-on-drift", help="Exit with 3 if a feature or the answers drifted, for scripts.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a page that needs nothing else, for a browser or paper.",
            rich_help_panel=_REPORTS,
            show_default=False,
        ),
    ] = None,
    evidently: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a report by Evidently, from the server's request log.",
            rich_help_panel=_REPORTS,
            show_default=False,
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The request log, for --evidently.", rich_help_panel=_REPORTS, show_default=False
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Compare with these rows, .csv or .parquet. Default: the first half of the period logged.",
            rich_help_panel=_REPORTS,
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Of the rows logged, those since then, such as 2026-05-01 or 2026-05-01T12:30.",
            rich_help_panel=_REPORTS,
            show_default=False,
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="TIME",
            help="Of the rows logged, those before then.",
            rich_help_panel=_REPORTS,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Shows whether what a model is asked still looks like what it learned from, feature by feature.

    Features stand in the order of the evidence; a dot marks those that drifted, judged together so that a wide model
    does not cry wolf. Nothing is said of a feature before it has 25 rows for each of its cells.

    Example: [bold]penstock drift fraud --server models:8001 --html drift.html[/bold]
    """
    if evidently is not None:
        from penstock_tools.drift import evidently as evidently_report

        evidently_report.write(evidently, name, log=log, version=version, reference=reference, start=start, end=end)
        typer.echo(f"the report is in {evidently}")
        return

    from penstock_tools.drift import command as telling
    from penstock_tools.drift import page

    telling.check_choice(watch=watch, json=as_json, html=html is not None)
    ask = telling.asking(server, name, version)
    if watch:
        telling.watch(ask, feature)
        return
    found = ask()
    if html is not None:
        telling.write(html, page.page(found))
        typer.echo(f"the page is in {html}")
    elif as_json:
        typer.echo(telling.as_json(found, feature))
    else:
        telling.show(found, feature)
    raise typer.Exit(telling.exit_code(found, fail_on_drift=fail_on_drift))
