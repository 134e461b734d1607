"""Options that several commands of `reed-molecule` share, and how ranges are written."""

from pathlib import Path
from typing import Annotated

import typer

DRAWING, OUTPUT, INPUT = "Drawing", "Output", "Input"

Weights = Annotated[str, typer.Option(help="Folder of weights, or the name of weights that come with the package.")]
Workers = Annotated[int, typer.Option(help="Processes that read molecules.")]
Timeout = Annotated[float, typer.Option(help="Seconds for one molecule, after which it is dropped.")]
Num = Annotated[int, typer.Option(help="Molecules.", rich_help_panel=DRAWING)]
Steps = Annotated[int, typer.Option(help="Steps of each molecule.", rich_help_panel=DRAWING)]
Seed = Annotated[int, typer.Option(help="Molecule i depends on (seed, i) alone.", rich_help_panel=DRAWING)]
Temperature = Annotated[
    float,
    typer.Option(
        help="Of elements, charges and bonds: 1 draws from the model, below 1 more molecules are stable.",
        rich_help_panel=DRAWING,
    ),
]
Only = Annotated[
    str,
    typer.Option(
        help="Draw until --num are valid, connected, stable (no radical, too) or novel; any keeps all.",
        rich_help_panel=DRAWING,
    ),
]
AtMost = Annotated[
    int | None, typer.Option(help="Most samples with --only; ten times --num by default.", rich_help_panel=DRAWING)
]
Out = Annotated[Path, typer.Option(help="File to write: .sdf, .sdf.gz, .xyz or .pdb.", rich_help_panel=OUTPUT)]
Grid = Annotated[Path | None, typer.Option(help="Also a picture of the molecules, .png.", rich_help_panel=OUTPUT)]
Relax = Annotated[
    str | None, typer.Option(help="Relax valid molecules: mmff, or xtb (needs tblite).", rich_help_panel=OUTPUT)
]
