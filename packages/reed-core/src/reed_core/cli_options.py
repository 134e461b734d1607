"""Options that the command lines of all domains share. Imports no torch."""

import re
from typing import Annotated

import typer

from reed_core.errors import InputError

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 leaves the choice to torch.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Overrides a setting: --set train.samples=1000.")]
Shard = Annotated[str, typer.Option(help="i/N: write the i-th of N parts, i from 1; start N of them.")]


def part_of(shard: str) -> tuple[int, int]:
    """What `--shard i/N` asks for: (i - 1, N).

    Raises:
        InputError: If it is something else.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard {shard}: expected i/N with i from 1 to N, as 2/8")
    return int(found[1]) - 1, int(found[2])
