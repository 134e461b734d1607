"""The command line of reed-molecule. It lists what works today: the version."""

from typing import Annotated

import typer
from reed_core.console import run, version_option

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def reed_molecule(context: typer.Context, version: Annotated[bool, version_option("reed-molecule")] = False) -> None:
    """Representation-guided diffusion for molecules.

    The package will hold diffusion models of molecules in three dimensions, guided by pretrained encoders of their
    structure; this version ships no model and no command yet. What works today is in reed-core and reed-protein.
    """
    typer.echo(context.get_help())


def main() -> None:
    """The console script `reed-molecule`."""
    run(app)
