"""The command `train-vae`. Heavy imports stay inside the command, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated, Any

import typer
from reed_core import console
from reed_core.errors import InputError

from reed_image.cli_options import Device, Quiet, Threads


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("train-vae")(train_vae)


def train_vae(
    data: Annotated[Path, typer.Argument(help="Pictures, prepared with --autoencoder pixels.")],
    out: Annotated[Path, typer.Option(help="Run folder; an unfinished run is resumed.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting: --set samples=200000, --set latent=8, --set 'widths=[32,64,64]'."),
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Trains a small autoencoder; RUN/autoencoder is what `prepare --autoencoder` takes, and what diffusers loads.

    Settings: widths, latent, layers, weight, samples, batch, learning_rate, seed, checkpoint_every, log_every and
    measured.
    """
    import json

    from pydantic import ValidationError
    from reed_core.device import use_device

    from reed_image.autoencoder.train import VaeConfig
    from reed_image.autoencoder.train import train_vae as train
    from reed_image.data import open_prepared

    values: dict[str, Any] = {}
    for entry in set_ or ():
        name, equals, value = entry.partition("=")
        if not equals:
            raise InputError(f"--set {entry}: expected NAME=VALUE")
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            values[name] = value
    try:
        config = VaeConfig.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise InputError(f"--set {' '.join(set_ or ())}: {problems}; correct the settings") from error
    place = use_device(device, threads)
    train(open_prepared(data), config, out, device=place, progress=not quiet)
    console.report(
        f"the autoencoder is in {out / 'autoencoder'}; try: reed-image prepare --autoencoder {out}/autoencoder"
    )
