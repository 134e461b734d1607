"""Options that several commands of `reed-protein` share."""

from pathlib import Path
from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 leaves the choice to torch.")]
Weights = Annotated[Path | None, typer.Option(help="Folder of weights; by default those that come with the package.")]
