"""The command line `reed-molecule`: its commands live in the modules `cli_*`, which import nothing heavy."""

from typing import Annotated

import typer
from reed_core import cli_plot_run, console

from reed_molecule import (
    cli_complete,
    cli_evaluate,
    cli_featurize,
    cli_prepare,
    cli_pretrain,
    cli_sample,
    cli_train,
)

app = typer.Typer(
    name="reed-molecule",
    help="3D molecules by representation-guided diffusion of coordinates, elements, charges and bonds.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def _options(version: Annotated[bool | None, console.version_option("reed-molecule")] = False) -> None:
    """3D molecules by diffusion."""


cli_prepare.register(app)
cli_pretrain.register(app)
cli_featurize.register(app)
cli_train.register(app)
cli_sample.register(app)
cli_complete.register(app)
cli_evaluate.register(app)
cli_plot_run.register(app)


def main() -> None:
    """The console script."""
    console.run(app)
