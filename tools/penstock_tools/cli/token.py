"""`penstock token`: makes tokens for callers, and says what a token may do."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from penstock_server.access.explanation import Explanation

app = typer.Typer(no_args_is_help=True, help="Make tokens for callers of a server, and check what they may do.")


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is; rules call it token:NAME.")],
    *,
    ends: Annotated[
        str, typer.Option(metavar="DATE", help="When it ends, such as 2027-01-31. Default: never.", show_default=False)
    ] = "",
) -> None:
    """Makes a random token, shows it once, and shows the line for the server's file of tokens, which holds its hash.

    Example: [bold]penstock token new shop --ends 2027-01-31[/bold]
    """
    from penstock_server.access.tokens import line_of, new_token

    token = new_token()
    line = line_of(name, token, ends)
    typer.echo(f"the token, which is shown only now:\n{token}\n\nits line for the file of tokens:\n{line}")


@app.command()
def check(
    *,
    config: Annotated[Path, typer.Option(metavar="FILE", help="The server's settings.", show_default=False)],
    model: Annotated[
        str, typer.Option(metavar="NAME", help="Say what it may do with this model.", show_default=False)
    ] = "",
) -> None:
    """Says whose a token is, what it may do, and when it ends. The token is read from $PENSTOCK_TOKEN, or asked for.

    Exit code 1 means that the server would refuse it, or that it may do nothing with the model.

    Example: [bold]penstock token check --config penstock.toml --model fraud[/bold]
    """
    import os
    import sys
    import time

    from penstock_server.access.explanation import explain
    from penstock_server.errors import InvalidInputError
    from penstock_server.settings import read_settings

    # Not an argument: other users of the machine can read those.
    token = os.environ.get("PENSTOCK_TOKEN") or (
        typer.prompt("token", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    )
    access = read_settings(config).access
    if not access.is_on:
        raise InvalidInputError(f"{config} has no rules in [access], so its server asks nobody")
    found = explain(token.strip(), access, time.time())
    typer.echo(_told(found))
    if model:
        verbs = found.verbs_on(model)
        typer.echo(f"on {model}: {', '.join(verbs) or 'nothing'}")
        if not verbs:
            raise typer.Exit(1)


def _told(found: "Explanation") -> str:
    from datetime import UTC, datetime
    from math import inf

    until = "without an end"
    if found.identity.expires_s < inf:
        until = f"until {datetime.fromtimestamp(found.identity.expires_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
    lines = [f"{found.identity.name}, {until}"]
    for grant in found.rights.grants:
        models = ", ".join(pattern.text for pattern in grant.models)
        lines.append(f"rule {grant.rule}: {', '.join(sorted(grant.verbs))} on {models}")
    if not found.rights.grants:
        lines.append("no rule is about it: it may do nothing")
    if (limit := found.rights.limit) is not None:
        lines.append(f"at most {limit.per_s:g} calls per second, {limit.at_once:g} at once")
    return "\n".join(lines)
