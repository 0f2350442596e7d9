"""`penstock config`: checks a server's settings, shows those in force, and describes all that there are."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, help="Check a server's settings, show those in force, and describe all of them."
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The settings file, as penstock serve --config takes it.")]


@app.command()
def check(file: File) -> None:
    """Checks settings as a server does before it starts: names, ranges, files, folders, libraries and ports.

    Exit code 1 means that a server could not start with them; what is wrong is said in a sentence. Warnings tell what is
    likely to go wrong on this machine. Nothing is started, and no registry is asked.

    Example: [bold]penstock config check penstock.toml[/bold]
    """
    from penstock_server import cli

    cli.run(config=file, only_check=True)


@app.command()
def show(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The settings file; without one, the defaults.")
    ] = None,
    *,
    changed: Annotated[bool, typer.Option("--changed", help="Leave out what is as it is by default.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Show JSON, for programs.")] = False,
) -> None:
    """Shows every setting in force, with what it means, as a settings file that a server reads again.

    A password in the registry's address is not shown.

    Example: [bold]penstock config show > penstock.toml[/bold]
    """
    from dataclasses import replace

    from penstock_server.errors import InvalidInputError
    from penstock_server.settings import read_settings
    from penstock_server.sources.registry import redacted
    from penstock_tools.config.file import as_mapping, as_toml
    from penstock_tools.output import as_json as json_of

    if as_json and changed:
        raise InvalidInputError("--json shows all settings, so --changed has no meaning beside it; give one of them")
    settings = read_settings(file)
    if settings.registry is not None:
        settings = replace(settings, registry=redacted(settings.registry))
    typer.echo(json_of(as_mapping(settings)) if as_json else as_toml(settings, only_changed=changed), nl=False)


@app.command()
def schema() -> None:
    """Prints the JSON Schema of the settings file, by which an editor completes names and explains them.

    Editors with a language server for TOML find it by a first line such as #:schema penstock.schema.json.

    Example: [bold]penstock config schema > penstock.schema.json[/bold]
    """
    from penstock_tools.config.reference import schema
    from penstock_tools.output import as_json

    typer.echo(as_json(schema()), nl=False)
