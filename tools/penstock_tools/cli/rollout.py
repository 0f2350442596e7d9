"""`penstock rollout`: from a registered version to the champion by steps, judged by a server on the way."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_tools.cli.options import Ca, Cert, CertKey, Json, ModelName, Registry, ServerName, UseTls, encryption

if TYPE_CHECKING:
    from penstock_tools.client_commands.connection import Encryption

app = typer.Typer(
    no_args_is_help=True,
    help="Roll a version out by steps: shadow, a growing share of the traffic, champion; or back, when it is proven worse.",
)

_STAGES = "Stages"
_JUDGEMENT = "Judgement"


@app.command()
def start(
    name: ModelName,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The version to roll out, such as 4.")],
    *,
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT,...",
            help="Its shares of the traffic; 100 stands for the promotion. Default: 5,25,50,100.",
            rich_help_panel=_STAGES,
            show_default=False,
        ),
    ] = None,
    hold: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="The least time at each step. Default: 10m.", rich_help_panel=_STAGES, show_default=False
        ),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="The least requests that it answers at each step. Default: 1000.", rich_help_panel=_STAGES,
            show_default=False,
        ),
    ] = None,
    shadow: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Be shadow for so long first. Default: not.", rich_help_panel=_STAGES, show_default=False
        ),
    ] = None,
    shadow_rows: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="The least rows compared meanwhile. Default: 1000.", rich_help_panel=_STAGES, show_default=False
        ),
    ] = None,
    sample: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT", help="Of the champion's answers, as shadow. Default: 100.", rich_help_panel=_STAGES,
            show_default=False,
        ),
    ] = None,
    hold_back: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT", help="Leave the champion so much in a last step.", rich_help_panel=_STAGES, show_default=False
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Then it waits for you to decide. Default: 1d.", rich_help_panel=_STAGES, show_default=False
        ),
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=MARGIN",
            help="What it is judged by, again for each: errors, p50, p95 and p99 (times the champion's rate), disagreement and "
            "distance (shares, as shadow), accuracy (points), value. Default: errors=1.5 and p99=2.",
            rich_help_panel=_JUDGEMENT,
            show_default=False,
        ),
    ] = None,
    false_rollbacks: Annotated[
        float | None,
        typer.Option(
            metavar="P", help="How likely it may be that a good version goes back. Default: 0.03.", rich_help_panel=_JUDGEMENT,
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="All of this as TOML or JSON; options come before it.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")] = False,
    registry: Registry = None,
) -> None:  # fmt: skip
    """Declares how a version is to become champion. A server with [bold]--rollouts[/bold] then does it.

    The server looks at errors, latencies, answers and labels of the version and the champion all the time, by tests that stay
    valid however often one looks. A version that is proven worse goes back at once. One that has shown to be as good within
    the margins goes on to the next step. If neither is shown, nothing happens until you decide.

    Example: [bold]penstock rollout start fraud 4 --steps 5,25,50,100 --hold 10m[/bold]

    Example: [bold]penstock rollout start fraud 4 --shadow 1h --gate errors=1.5 --gate accuracy=1[/bold]
    """
    from penstock_server.rollout.spec import of_mapping
    from penstock_tools.publish import rollout as command

    given = {
        "steps": None if steps is None else _percentages(steps),
        "hold": hold,
        "requests": requests,
        "shadow": shadow,
        "shadow_rows": shadow_rows,
        "sample": sample,
        "hold_back": hold_back,
        "deadline": deadline,
        "gates": None if gate is None else dict(map(_margin, gate)),
        "false_rollbacks": false_rollbacks,
    }
    declared = {
        **({} if file is None else command.read_file(file)),
        **{k: v for k, v in given.items() if v is not None},
    }
    spec = of_mapping(declared) if dry_run else command.start(name, version, declared, registry)
    typer.echo(f"{name} version {version}{' would be' if dry_run else ' is'} rolled out. {spec.in_words()}")


@app.command()
def status(
    name: ModelName,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it until it is over; exit with 1 unless the version is champion.")
    ] = False,
    http: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Ask this server, by its --http-port, and not the registry: it also knows how versions that share the traffic "
            "compare.",
            show_default=False,
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it as one HTML page; with --http.", show_default=False),
    ] = None,
    as_json: Json = False,
    registry: Registry = None,
    tls: UseTls = False,
    ca: Ca = None,
    cert: Cert = None,
    cert_key: CertKey = None,
    server_name: ServerName = None,
) -> None:
    """Shows how far a model's rollout is, what each gate says, and what has happened.

    With [bold]--http[/bold] also an experiment: versions that share the traffic by fixed weights, without a rollout too.

    Example: [bold]penstock rollout status fraud --watch[/bold]

    Example: [bold]penstock rollout status fraud --http http://127.0.0.1:8002 --page fraud.html[/bold]
    """
    if http is not None:
        if watch or registry is not None:
            raise typer.BadParameter("asks a server once, without --watch and --registry", param_hint="--http")
        encrypted = encryption(tls=tls, ca=ca, cert=cert, cert_key=cert_key, server_name=server_name)
        _served(name, http, encrypted, page=page, as_json=as_json)
        return
    if page is not None:
        raise typer.BadParameter("is made of what a server knows; name it with --http URL", param_hint="--page")
    import time

    from penstock_tools import output
    from penstock_tools.client_commands import rollout as shown
    from penstock_tools.publish import rollout as command

    found = command.status(name, registry)
    if as_json:
        typer.echo(output.as_json(found.as_record()))
        return
    if not watch:
        shown.show(found)
        return
    with shown.live() as screen:
        while True:
            screen.update(shown.page(found))
            if found.progress is not None and found.progress.has_ended:
                break
            time.sleep(1)
            found = command.status(name, registry)
    raise typer.Exit(found.progress.status != "promoted")


def _served(name: str, url: str, encrypted: "Encryption", *, page: Path | None, as_json: bool) -> None:
    from penstock_tools import output
    from penstock_tools.rollout import fetch, table
    from penstock_tools.rollout.page import page as page_of

    served = fetch.fetch(url, name, encrypted)
    if page is not None:
        output.write(page, page_of(served))
    if as_json:
        typer.echo(output.as_json(served._asdict()))
    elif page is None:
        table.show(served)


@app.command()
def pause(name: ModelName, *, registry: Registry = None) -> None:
    """Keeps the version where it is. If it is proven worse, it still goes back."""
    _command(name, "pause", registry)


@app.command()
def resume(name: ModelName, *, registry: Registry = None) -> None:
    """Lets a paused rollout go on, or one whose time was over; its deadline begins anew."""
    _command(name, "resume", registry)


@app.command()
def advance(name: ModelName, *, registry: Registry = None) -> None:
    """Goes on to the next step now, whatever is known; from the last one, promotes the version."""
    _command(name, "advance", registry)


@app.command()
def abort(name: ModelName, *, registry: Registry = None) -> None:
    """Ends the rollout: the champion answers everything again."""
    _command(name, "abort", registry)


def _command(name: str, word: str, registry: str | None) -> None:
    from penstock_tools.publish import rollout as command

    about = command.command(name, word, registry)
    typer.echo(
        f"asked to {word} the rollout of {name} {about}; `penstock rollout status {name}` shows what becomes of it"
    )


def _percentages(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no list of percentages such as 5,25,50,100", param_hint="--steps"
        ) from None


def _margin(text: str) -> tuple[str, float]:
    metric, _, margin = text.partition("=")
    try:
        return metric.strip(), float(margin)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no gate such as errors=1.5", param_hint="--gate") from None
