"""The command line of reed-image. It lists what works today: the version."""

from typing import Annotated

import typer
from reed_core.console import run, version_option

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def reed_image(context: typer.Context, version: Annotated[bool, version_option("reed-image")] = False) -> None:
    """Representation-guided diffusion for images.

    The package will hold diffusion transformers on the latents of an image autoencoder, guided by pretrained vision
    and language encoders; this version ships no model and no command yet. What works today is in reed-core and
    reed-protein.
    """
    typer.echo(context.get_help())


def main() -> None:
    """The console script `reed-image`."""
    run(app)
