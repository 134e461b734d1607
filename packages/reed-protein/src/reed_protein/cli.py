"""The command line `reed-protein`: its commands live in the modules `cli_*`, which import nothing heavy."""

from typing import Annotated

import typer
from reed_core import cli_plot_run, console

from reed_protein import cli_design, cli_score, cli_train

app = typer.Typer(
    name="reed-protein",
    help="Protein inverse folding by representation-guided masked diffusion: sequences for a backbone.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def _options(version: Annotated[bool, console.version_option("reed-protein")] = False) -> None:
    """Sequences for a backbone."""


cli_design.register(app)
cli_score.register(app)
cli_train.register(app)
cli_plot_run.register(app)


def main() -> None:
    """The console script."""
    console.run(app)
