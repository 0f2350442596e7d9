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
    """Gives a version of a model its role, which every server of the registry then follows.

    The [bold]champion[/bold] answers; a [bold]canary[/bold] answers a share of the traffic in its place; a
    [bold]shadow[/bold] is asked too and only compared. A canary or shadow that becomes champion is that no
    longer. To go back, promote the former champion.

    Example: [bold]penstock promote fraud 4 --alias canary --weight 5[/bold], and when it does well
    [bold]penstock promote fraud 4[/bold]
    """
    from penstock_tools.publish import promote as promotion

    typer.echo(str(promotion.promote(name, version, alias, weight, registry)))
