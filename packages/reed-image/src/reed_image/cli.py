"""The command line `reed-image`: its commands live in the modules `cli_*`, which import nothing heavy."""

from typing import Annotated

import typer
from reed_core import cli_plot_run, console

from reed_image import (
    cli_caption,
    cli_evaluate,
    cli_featurize,
    cli_prepare,
    cli_sample,
    cli_train,
    cli_vae,
    cli_weights,
)

app = typer.Typer(
    name="reed-image",
    help="Images by representation-guided diffusion transformers on the latents of an autoencoder.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def _options(version: Annotated[bool | None, console.version_option("reed-image")] = False) -> None:
    """Images by diffusion."""


cli_prepare.register(app)
cli_caption.register(app)
cli_vae.register(app)
cli_featurize.register(app)
cli_train.register(app)
cli_sample.register(app)
cli_evaluate.register(app)
cli_weights.register(app)
cli_plot_run.register(app)


def main() -> None:
    """The console script."""
    console.run(app)
