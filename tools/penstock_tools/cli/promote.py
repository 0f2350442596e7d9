"""`penstock promote`: gives a version of a model its role, or ends one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_tools.cli.options import (
    DEFAULT_HTTP,
    Ca,
    Cert,
    CertKey,
    Http,
    ModelName,
    Registry,
    ServerName,
    UseTls,
    Weight,
    encryption,
)

if TYPE_CHECKING:
    from penstock_tools.client_commands.connection import Encryption
    from penstock_tools.client_commands.served import Change


def promote(
    name: ModelName,
    version: Annotated[
        str | None,
        typer.Argument(
            metavar="VERSION", help="Its version, such as 3. Not needed with --remove --alias.", show_default=False
        ),
    ] = None,
    *,
    alias: Annotated[
        str | None,
        typer.Option(
            metavar="A",
            help="The role: champion, canary or shadow; the last two also with a suffix, as in canary-b. Default: champion.",
            show_default=False,
        ),
    ] = None,
    weight: Weight = None,
    sample: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="How many of the champion's batches a shadow gets, in percent. Default: 100.",
            show_default=False,
        ),
    ] = None,
    also: Annotated[
        bool, typer.Option("--also", help="Keep the role that the version has: canary and shadow at once.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="End the role instead: that of --alias, or all that VERSION has.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the server at --http serves it; exit with 1 if it does not.")
    ] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0.0, help="Wait no longer than this.")] = 120.0,
    http: Http = DEFAULT_HTTP,
    registry: Registry = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A server's settings: its policy says which aliases give the roles, and its registry is the default.",
            show_default=False,
        ),
    ] = None,
    tls: UseTls = False,
    ca: Ca = None,
    cert: Cert = None,
    cert_key: CertKey = None,
    server_name: ServerName = None,
) -> None:
    """Gives a version of a model a role, which every server of the registry then follows.

    The [bold]champion[/bold] answers. A [bold]canary[/bold] answers a share of the traffic instead of the champion. A
    [bold]shadow[/bold] gets the same requests, and its answers are only compared. A version has one role: a new one ends
    the former, unless you add [bold]--also[/bold]. A model may have more canaries and shadows: give their aliases a
    suffix. To go back, promote the former champion again.

    Example: [bold]penstock promote fraud 4 --alias canary --weight 5 --wait[/bold]

    Example, with a third version beside both: [bold]penstock promote fraud 5 --alias canary-b --weight 5[/bold]

    Example, when the canary does well: [bold]penstock promote fraud 4[/bold]

    Example, when it does not: [bold]penstock promote fraud --alias canary --remove[/bold]

    Example, where servers have another alias as champion: [bold]penstock promote fraud 4 --config penstock.toml[/bold]
    """
    from penstock.names import role_of
    from penstock_server.settings import read_settings
    from penstock_tools.client_commands.served import Change
    from penstock_tools.publish import promote as command

    if version is None and not remove:
        raise typer.BadParameter("name the version that gets the role, such as 3", param_hint="VERSION")
    if remove and (also or weight is not None or sample is not None):
        raise typer.BadParameter(
            "it ends a role, so it goes with no --weight, --sample or --also", param_hint="--remove"
        )
    encrypted = encryption(tls=tls, ca=ca, cert=cert, cert_key=cert_key, server_name=server_name)
    if wait:
        # Before anything is promoted: it would be, and the exit code would say that it was not.
        _check_answers(http, encrypted)
    settings = read_settings(config)
    at = registry or settings.registry
    if remove:
        removal = command.remove(name, version, alias, at, settings.policy)
        typer.echo(str(removal))
        changes = [Change(name, "", role_of(alias) or alias, former=former) for alias, former in removal.ended]
    else:
        done = command.promote(
            name, str(version), alias or "champion", weight, at, also=also, sample=sample, policy=settings.policy
        )
        typer.echo(str(done))
        changes = [Change(name, done.version, role_of(done.alias) or done.alias, done.weight)]
    if wait:
        for change in changes:
            _wait(change, http, encrypted, timeout)


def _check_answers(http: str, encrypted: "Encryption") -> None:
    from penstock_tools.client_commands import models

    models.fetch(http, encrypted)


def _wait(change: "Change", http: str, encrypted: "Encryption", timeout_s: float) -> None:
    from penstock_tools import progress
    from penstock_tools.client_commands import models, served

    with progress.steps() as report:
        took_s = served.wait(lambda: models.fetch(http, encrypted), change, timeout_s=timeout_s, report=report)
    what = f"serves version {change.version}" if change.version else f"no longer serves version {change.former}"
    typer.echo(f"the server {what} as {change.role}, after {took_s:.1f} s")
