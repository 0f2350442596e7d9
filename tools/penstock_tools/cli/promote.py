"""`penstock promote`: gives a version of a model its role."""

from typing import Annotated

import typer

from penstock_tools.cli.options import ModelName, Registry, Weight


def promote(
    name: ModelName,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Its version, such as 3.", show_default=False)],
    alias: Annotated[str, typer.Option(metavar="A", help="The role: champion, canary or shadow.")] = "champion",
    weight: Weight = None,
    registry: Registry = None,
) -> None:
    """Gives a version of a model a role, which every server of the registry then follows.

    The [bold]champion[/bold] answers. A [bold]canary[/bold] answers a share of the traffic instead of the champion. A
    [bold]shadow[/bold] gets the same requests, and its answers are only compared. Promoting a canary or shadow to
    champion removes its old role. To go back, promote the former champion again.

    Example: [bold]penstock promote fraud 4 --alias canary --weight 5[/bold]

    Example, when the canary does well: [bold]penstock promote fraud 4[/bold]
    """
    from penstock_tools.publish import promote as command

    typer.echo(str(command.promote(name, version, alias, weight, registry)))
