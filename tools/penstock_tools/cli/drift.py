"""`penstock drift`: whether a model's requests still look like its training data."""

from pathlib import Path
from typing import Annotated

import typer

from penstock_tools.cli.options import (
    DEFAULT_SERVER,
    Ca,
    Cert,
    CertKey,
    Json,
    ModelName,
    ServerName,
    UseTls,
    encryption,
)

_REPORTS = "Reports"


def drift(
    name: ModelName,
    *,
    server: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", envvar="PENSTOCK_SERVER", help="The server: host:port for gRPC, or http://host:port."
        ),
    ] = DEFAULT_SERVER,
    version: Annotated[
        str,
        typer.Option(
            metavar="V", help="A version, or an alias such as @canary. Default: the champion.", show_default=False
        ),
    ] = "",
    feature: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show one feature with all its bins.", show_default=False)
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    as_json: Json = False,
    fail_on_drift: Annotated[
        bool,
        typer.Option("--fail-on-drift", help="Exit with 3 while a feature or the answers have an alarm; for scripts."),
    ] = False,
    least_importance: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="With --fail-on-drift: only where the alarmed features carry this share of the importance to the model, "
            "such as 0.1, or the answers have an alarm.",
            show_default=False,
        ),
    ] = 0.0,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a self-contained page, for a browser or to print.",
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
            help="Logged rows from this time on, such as 2026-05-01 or 2026-05-01T12:30.",
            rich_help_panel=_REPORTS,
            show_default=False,
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="TIME",
            help="Logged rows before this time.",
            rich_help_panel=_REPORTS,
            show_default=False,
        ),
    ] = None,
    tls: UseTls = False,
    ca: Ca = None,
    cert: Cert = None,
    cert_key: CertKey = None,
    server_name: ServerName = None,
) -> None:
    """Shows whether the requests of a model still look like its training data, feature by feature.

    Features with alarms stand first, with a triangle and since when; then those that drifted in the window, with a dot, and
    the others by significance. All features are judged together, so that a model with many features does not raise false
    alarms. A feature needs at least 25 rows per bin before its window is judged; an alarm needs fewer where drift is strong.
    The model's answers stand last.

    For a classifier that was published with a hold-out, the expected accuracy is told: what share of the answers should be
    right, by how sure the model is of them. No label is seen, so it holds only if the relation between features and truth held.

    Example: [bold]penstock drift fraud --server models:8001 --html drift.html[/bold]
    """
    if evidently is not None:
        from penstock_tools.drift.evidently import write_report

        write_report(evidently, name, log=log, version=version, reference=reference, start=start, end=end)
        typer.echo(f"the report is in {evidently}")
        return

    from penstock_tools import output
    from penstock_tools.drift import command, page

    command.check_choice(watch=watch, json=as_json, html=html is not None)
    encrypted = encryption(tls=tls, ca=ca, cert=cert, cert_key=cert_key, server_name=server_name)
    fetch_version = command.fetcher(server, name, version, encrypted)
    if watch:
        command.watch(fetch_version, feature)
        return
    found = fetch_version()
    if html is not None:
        output.write(html, page.page(found))
        typer.echo(f"the page is in {html}")
    elif as_json:
        typer.echo(command.as_json(found, feature))
    else:
        command.show(found, feature)
    raise typer.Exit(command.exit_code(found, fail_on_drift=fail_on_drift, least_importance=least_importance))
