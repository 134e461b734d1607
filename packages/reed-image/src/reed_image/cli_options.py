"""Options that several commands of `reed-image` share."""

from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 leaves the choice to torch.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Overrides a setting: --set train.samples=1000.")]
