"""`penstock top`: a server live in a terminal."""

from typing import Annotated

import typer

from penstock_tools.cli.options import DEFAULT_HTTP, Ca, Cert, CertKey, Http, Json, ServerName, UseTls, encryption


def top(
    *,
    http: Http = DEFAULT_HTTP,
    once: Annotated[bool, typer.Option("--once", help="Show one interval and end, for scripts.")] = False,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, max=3600, help="From one look to the next.")
    ] = 1.0,
    as_json: Json = False,
    tls: UseTls = False,
    ca: Ca = None,
    cert: Cert = None,
    cert_key: CertKey = None,
    server_name: ServerName = None,
) -> None:
    """Shows a server live: each version's role, weight and state, its requests, errors, times and drift, and rollouts.

    Rates and times are those since the look before, over all workers, without the network. [bold]p50[/bold] and
    [bold]p99[/bold] are bounds of the server's histogram. Errors are requests that got no answer by the server's fault.

    Example: [bold]penstock top --http http://models:8002[/bold]
    """
    import time
    from functools import partial

    from penstock_tools import output
    from penstock_tools.client_commands import top as command

    encrypted = encryption(tls=tls, ca=ca, cert=cert, cert_key=cert_key, server_name=server_name)
    look = partial(command.fetch, http, encrypted)
    if as_json:
        first = look()
        time.sleep(interval)
        typer.echo(output.as_json(command.lines(first, look())))
    elif once:
        command.show_once(look, interval_s=interval)
    else:
        command.watch(look, interval_s=interval)
