"""Options that several commands of `reed-protein` share."""

from pathlib import Path
from typing import Annotated

import typer

Weights = Annotated[Path | None, typer.Option(help="Folder of weights; by default those that come with the package.")]
