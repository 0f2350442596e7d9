"""`penstock publish`: registers a scikit-learn pipeline or an ONNX file as a model's next version."""

from pathlib import Path
from typing import Annotated

import typer

from penstock_server.batching.limits import Batching
from penstock_tools.cli.options import ModelName, Precision, Registry, SampleFile, Trust, Weight


def publish(
    name: ModelName,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A fitted pipeline (.skops, .joblib or .pkl), an ONNX model (.onnx), or a model that MLflow keeps: "
            "models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN/PATH; one of Weights & Biases, "
            "wandb:ENTITY/PROJECT/NAME:VERSION; or one in a store of objects, such as s3://BUCKET/FOLDER.",
            show_default=False,
        ),
    ],
    *,
    sample: SampleFile = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The column of the sample, and of the hold-out, with the true answers. The scores on the sample's are logged "
            "with the run.",
            show_default=False,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The sample's column of times, by which its rows are put in order: dates or times by ISO 8601, or numbers. "
            "The model need not read it. By default the rows are taken as they are.",
            show_default=False,
        ),
    ] = None,
    holdout: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA",
            help="Rows that the classifier did not train on, .csv or .parquet, the true answers in the column of --labels. By "
            "how sure it is, servers tell the accuracy that they expect of the rows served, without labels: if the relation "
            "between features and truth held. Training rows would make it look better than it is.",
            show_default=False,
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            metavar="SPEC",
            help="The feature specification in front of an ONNX model, .yaml or .json.",
            show_default=False,
        ),
    ] = None,
    alias: Annotated[
        str | None,
        typer.Option(metavar="A", help="The role to give it: champion, canary or shadow.", show_default=False),
    ] = None,
    weight: Weight = None,
    registry: Registry = None,
    precision: Precision = None,
    batching: Annotated[
        Batching | None,
        typer.Option(
            metavar="B",
            help="Whether servers may batch requests together: rows joins them, request runs each alone. "
            "By default a probe finds out whether rows are independent.",
            show_default=False,
        ),
    ] = None,
    link: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The page of the run that trained the model. The version keeps it as its tag penstock.link. Of an artifact of "
            "Weights & Biases it is known.",
            show_default=False,
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain/--no-explain",
            help="Keep with the version what attributions are computed from, where the model is linear or made of trees, "
            "and how much each column matters, which `penstock drift` shows.",
        ),
    ] = True,
    trust: Trust = False,
    allow_python: Annotated[
        bool,
        typer.Option(
            "--allow-python",
            help="Keep a pipeline that cannot be compiled whole, for servers that run Python. Says what that costs, and why.",
        ),
    ] = False,
) -> None:
    """Registers a fitted scikit-learn pipeline, or an ONNX file, as the next version of a model.

    A pipeline is compiled: its transformers to a feature specification, its estimator to ONNX. Both together must answer
    as the pipeline does on the sample; otherwise nothing is registered. The sample also gives the drift baseline and the
    golden requests. Which columns show drift late or never is said at the end.

    An ONNX file is checked and registered as it is. With [bold]--features[/bold] it stands behind a feature specification,
    and with [bold]--sample[/bold] its drift is watched, with a specification or without: the sample holds what it takes.

    A model that was logged with mlflow.sklearn, xgboost, lightgbm, catboost or onnx is read from the registry and
    registered anew, compiled. Its input example is the sample when you give no other. So is what such a folder holds in
    Weights & Biases or in a store of objects, where also plain files of pipelines and graphs may lie.

    Servers that follow the registry load the version once it has a role.

    Example: [bold]penstock publish fraud fraud.skops --sample train.parquet --labels is_fraud --alias champion[/bold]

    Example: [bold]penstock publish fraud fraud.onnx --alias canary --weight 5[/bold]

    Example: [bold]penstock publish churn models:/churn-sklearn@champion --sample train.parquet --alias champion[/bold]
    """
    from penstock_tools import progress
    from penstock_tools.cli import consent
    from penstock_tools.publish import files, summary

    request = files.Request(
        name,
        file,
        sample,
        labels,
        features,
        alias,
        weight,
        registry,
        precision,
        batching,
        allow_python,
        explain,
        time,
        holdout,
        link,
    )
    decisions: list[str] = []
    with progress.steps() as report:
        version, pipeline = files.publish(request, consent.asker(trusts=trust), report, decisions.append)
    if pipeline is not None:
        summary.show(pipeline.prepared, pipeline.scores, summary.explained(pipeline.explanation, pipeline.importance))
    for decision in decisions:
        typer.echo(decision)
    if alias is None:
        role = f"it is served once you run: penstock promote {name} {version}"
        typer.echo(f"{name} version {version} is registered; {role}")
    else:
        share = "" if weight is None else f" with {weight:g}% of the traffic"
        typer.echo(f"{name} version {version} is registered and is now {alias}{share}")
