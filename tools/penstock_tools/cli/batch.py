"""`penstock batch`: a whole table scored with a registered version."""

from pathlib import Path
from typing import Annotated

import typer

from penstock_tools.cli.options import Json, Registry

_ROWS = "Rows and columns"
_RUN = "How it runs"


def batch(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The registered model, or the folder of a version.", show_default=False),
    ],
    rows: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A .parquet or .csv file, a folder or a pattern of such, also in a store such as s3://; or a database's "
            "table as URL#TABLE, such as postgresql+psycopg://host/db#customers.",
            show_default=False,
        ),
    ],
    answers: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT",
            help="A .parquet or .csv file; a folder, also in a store, which gets parts of Parquet; or URL#TABLE.",
            show_default=False,
        ),
    ],
    *,
    version: Annotated[
        str,
        typer.Option(
            metavar="V", help="A version, or an alias such as @canary. Default: @champion.", show_default=False
        ),
    ] = "",
    key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="The column that tells the rows apart, kept beside the answers; several times if it takes several. A "
            "database needs it.",
            rich_help_panel=_ROWS,
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="A column of the input to keep beside the answers; may be given several times, '*' keeps all. Default: the "
            "key, or all without one.",
            rich_help_panel=_ROWS,
            show_default=False,
        ),
    ] = None,
    columns: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            help="The columns of the one matrix that a model takes, in its order, if its publisher did not name them.",
            rich_help_panel=_ROWS,
            show_default=False,
        ),
    ] = "",
    prefix: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="Goes before the names of answers.", rich_help_panel=_ROWS, show_default=False
        ),
    ] = "",
    bad_rows: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Set rows that cannot be answered aside in this .parquet or .csv file, each with its number, column and "
            "reason. Without it the first such row ends the job.",
            rich_help_panel=_ROWS,
            show_default=False,
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Processes that score. Default: one per core.",
            rich_help_panel=_RUN,
            show_default=False,
        ),
    ] = None,
    part_rows: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="About the rows of a part: what is in memory once per process, and done again after a kill.",
            rich_help_panel=_RUN,
        ),
    ] = 262_144,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Score on a cluster of Ray, such as auto or ray://head:10001; local starts one here. Needs the extra "
            "'ray', and Parquet that its machines reach.",
            rich_help_panel=_RUN,
            show_default=False,
        ),
    ] = None,
    job: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="A name for this job, such as a date: a job of this name that is finished is not done again.",
            rich_help_panel=_RUN,
            show_default=False,
        ),
    ] = "",
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace files that exist, and begin anew where another job stopped.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    drift: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the drift report as a self-contained page.", show_default=False),
    ] = None,
    track: Annotated[
        bool | None,
        typer.Option(
            "--track/--no-track",
            help="Keep the job as a run in the registry's MLflow. Default: where the version is from a registry.",
            show_default=False,
        ),
    ] = None,
    model_repository: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder of <model>/<version>/, in place of a registry.", show_default=False),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Score with a version that runs Python, which can run any code.")
    ] = False,
    as_json: Json = False,
    registry: Registry = None,
) -> None:
    """Scores a whole table with a registered version, and says what drifted.

    The version runs as in a server: the same files, checked by their golden requests, the same compiled kernels, the same
    answers to the last bit. Answers are columns named after the model's outputs, and the classes where there are several.

    A job that is killed goes on where it was when the same command is given again, and each row is answered once: files appear
    whole or not at all, and a database gets all answers in one transaction, which replaces rows of the same key.

    Example: [bold]penstock batch fraud payments/ scores/ --key id --bad-rows bad.csv[/bold]

    Example: [bold]penstock batch churn 'postgresql+psycopg://db/crm#customers' 'postgresql+psycopg://db/crm#churn' --key id
    --job $(date +%F)[/bold]

    Example: [bold]penstock batch fraud s3://lake/payments/2027-01/ s3://lake/scores/2027-01/ --ray auto[/bold]
    """
    from penstock_tools import output, progress
    from penstock_tools.batch import run as command
    from penstock_tools.batch import table, tracking
    from penstock_tools.drift import page

    request = command.Request(
        model=name,
        input=rows,
        output=answers,
        version=version,
        registry=registry,
        repository=model_repository,
        key=tuple(key or ()),
        keep=tuple(keep or ()),
        columns=tuple(each.strip() for each in columns.split(",") if each.strip()),
        prefix=prefix,
        bad_rows=bad_rows,
        processes=processes,
        part_rows=part_rows,
        ray=ray,
        overwrites=overwrite,
        job=job,
        allows_python=trust,
    )
    with progress.bars() as bars:
        found = command.run(request, bars)
    is_registered = model_repository is None and not Path(name).is_dir()
    run_id = None
    if (is_registered if track is None else track) and not found.was_finished:
        run_id = tracking.track(found, registry)
    if drift is not None and found.drift is not None:
        output.write(drift, page.page(found.drift))
    if as_json:
        typer.echo(output.as_json(found))
        return
    for line in table.lines(found, run_id):
        typer.echo(line)
