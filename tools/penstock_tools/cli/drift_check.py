"""`penstock drift-check`: what drift alarms would have said of rows that are there already."""

from pathlib import Path
from typing import Annotated

import typer

from penstock_tools.cli.options import Json, Registry

_BASELINE = "Without a published version"


def drift_check(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="The version to compare with: NAME for the registry's champion, NAME@ALIAS, NAME/VERSION, or the folder "
            "of a published version. Left out: the first of the rows are the training rows.",
            show_default=False,
        ),
    ] = None,
    *,
    sample: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Rows to replay, .csv or .parquet.", show_default=False),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A server's request log to replay instead. Where it holds a share of the requests only, the server's own "
            "alarms come sooner.",
            show_default=False,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The sample's column that says when each row came: dates or times by ISO 8601, or numbers. The rows are put "
            "in its order, and alarms are told by month. By default the rows are taken as they are.",
            show_default=False,
        ),
    ] = None,
    train_share: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="The share of the rows, the first ones, that stand for the training rows. Default: 0.5.",
            rich_help_panel=_BASELINE,
            show_default=False,
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="A column that a model would not see, such as the answers or a row's number; may be given several times.",
            rich_help_panel=_BASELINE,
            show_default=False,
        ),
    ] = None,
    false_alarm_looks: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="Looks from one false alarm to the next, on average, at least, as the server's setting of that name. "
            "Default: 31,536,000, a year of looks each second.",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[
        int, typer.Option(metavar="N", help="How often each delay is measured; 0 leaves the delays out.")
    ] = 3,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a self-contained page with pictures.", show_default=False),
    ] = None,
    as_json: Json = False,
    registry: Registry = None,
) -> None:
    """Replays rows in the order of time through the alarms that a server raises, and says how they do on them.

    It tells which alarms would have gone on, since when and how many a month; how small a shift of each column is seen at all;
    and after how many rows an alarm follows a shift of PSI 0.25, 0.5 and 1 that is put into these rows. So you know before a
    model is served whether its alarms would be too many, or too late.

    Alarms on rows that you hold for normal mean that the training rows do not cover what is normal: take more of them, or
    leave out a column that always changes, such as a row's number.

    Example: [bold]penstock drift-check fraud --sample last_year.parquet --time created_at --html alarms.html[/bold]

    Example: [bold]penstock drift-check --sample history.csv --time day --train-share 0.25 --without is_fraud[/bold]

    Example: [bold]penstock drift-check fraud@canary --log /var/log/penstock/requests[/bold]
    """
    from penstock_server.drift.report import RUN_LENGTH
    from penstock_tools import output, progress
    from penstock_tools.calibration import check, page, table

    request = check.Request(
        model,
        sample,
        log,
        time,
        train_share,
        tuple(without or ()),
        registry,
        RUN_LENGTH if false_alarm_looks is None else false_alarm_looks,
        runs,
    )
    with progress.bars() as bars:
        found = check.check(request, bars)
    if html is not None:
        output.write(html, page.page(found))
    if as_json:
        typer.echo(output.as_json(found))
        return
    from rich.console import Console

    Console().print(table.overview(found))
    if html is not None:
        typer.echo(f"the page is in {html}")
