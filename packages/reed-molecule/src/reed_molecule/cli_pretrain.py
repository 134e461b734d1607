"""The command `pretrain`. Heavy imports stay inside the command, so that `--help` is quick."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from reed_core import console
from reed_core.cli_options import Device, Quiet, Threads
from reed_core.errors import InputError

if TYPE_CHECKING:
    pass

KINDS = ("e3nn", "bond_graph")


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("pretrain")(pretrain)


def pretrain(
    kind: Annotated[str, typer.Argument(help="e3nn (geometry) or bond_graph (bonds).")],
    data: Annotated[str, typer.Argument(help="A prepared set; its training split is learned from.")],
    samples: Annotated[int, typer.Option(help="Molecules to be seen.")] = 200_000,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; runs/pretrain-KIND by default. An unfinished run is resumed.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Overrides a setting: --set width=128, --set train.seed=1.")
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Pretrains an encoder on a prepared set; a recipe's latent of this kind then takes its weights."""
    if kind not in KINDS:
        raise InputError(f"no encoder '{kind}' to pretrain; choose {' or '.join(KINDS)}")
    from reed_core.device import use_device

    from reed_molecule.pretrain import pretrain as run

    recipe = _recipe(kind, data, samples, set_ or [])
    folder = out or Path("runs") / f"pretrain-{kind}"
    run(recipe, folder, device=use_device(device, threads), progress=not quiet)
    console.report(
        f'weights are in {folder / "weights"}; in a recipe: kind = "{kind}", weights = "{folder / "weights"}"'
    )


def _recipe(kind: str, data: str, samples: int, overrides: list[str]):  # type: ignore[no-untyped-def]
    """The recipe of a run, with overrides."""
    import json
    import tempfile

    from reed_core.train.config import read_config

    from reed_molecule.pretrain import PretrainRecipe

    train = {"samples": samples, "warmup": samples // 50, "checkpoint_every": max(1, samples // 20)}
    values = {"kind": kind, "data": data, "train": {**train, "evaluate_every": max(1, samples // 10)}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{kind}.json"
        path.write_text(json.dumps(values), encoding="utf-8")
        return read_config(PretrainRecipe, path, overrides)
