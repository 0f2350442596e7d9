"""`penstock features`: shows and checks a feature specification."""

from pathlib import Path
from typing import Annotated

import typer

from penstock_tools.cli.options import Precision, SampleFile, Trust


def features(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A specification (.yaml or .json), or a fitted pipeline (.skops, .joblib or .pkl).",
            show_default=False,
        ),
    ],
    *,
    sample: SampleFile = None,
    precision: Precision = None,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Print the specification as YAML, to read or to edit.")
    ] = False,
    trust: Trust = False,
) -> None:
    """Shows what a feature specification takes and gives, and runs it on a sample.

    For a pipeline it shows what [bold]penstock publish[/bold] would register. That needs a sample, on which each compiled
    transformer is compared with scikit-learn's.

    Example: [bold]penstock features fraud.skops --sample train.csv[/bold]

    Example: [bold]penstock features fraud.skops --sample train.csv --yaml > fraud.yaml[/bold]
    """
    from penstock_server.features.spec import spec
    from penstock_tools.publish import specification, summary

    matrix = prepared = None
    if file.suffix in specification.SUFFIXES and sample is None and precision is None:
        shown = specification.read_specification(file)  # which needs no training stack
    else:
        from penstock_tools import progress
        from penstock_tools.cli import consent
        from penstock_tools.publish import files

        with progress.steps() as report:
            found = files.read_features(file, sample, precision, consent.asker(trusts=trust), report)
        shown, matrix, prepared = found.features, found.matrix, found.prepared
    if as_yaml:
        typer.echo(spec.encode_yaml(shown).decode(), nl=False)
        return
    summary.show_columns(shown, matrix)
    if prepared is not None:
        summary.show(prepared, {})
