"""The command `train-vae`. Heavy imports stay inside the command, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated, Any

import typer
from reed_core import console
from reed_core.cli_options import Device, Quiet, Threads
from reed_core.errors import InputError


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
    encoder: Annotated[
        str | None,
        typer.Option(help="A timm model: its own tokens are the latents, and only a decoder is trained (RAE)."),
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Trains a small autoencoder; RUN/autoencoder is what `prepare --autoencoder` takes.

    Without --encoder it is one that diffusers loads.

    Settings: samples, batch, learning_rate, seed, checkpoint_every, log_every and measured; widths, latent, layers and
    weight; with --encoder, in their place, factor, width, depth, heads, noise, and encoder.weights, .at, .seed and
    .settings.
    """
    from pydantic import ValidationError
    from reed_core.device import use_device
    from reed_core.train.config import assign

    from reed_image.autoencoder.train import VaeConfig
    from reed_image.autoencoder.train import train_vae as train
    from reed_image.autoencoder.train_rae import RaeConfig, train_rae
    from reed_image.data import open_prepared

    values: dict[str, Any] = {} if encoder is None else {"encoder": {"model": encoder}}
    assign(values, set_ or (), "--set")
    config: VaeConfig | RaeConfig
    try:
        config = VaeConfig.model_validate(values) if encoder is None else RaeConfig.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise InputError(f"--set {' '.join(set_ or ())}: {problems}; correct the settings") from error
    place = use_device(device, threads)
    if isinstance(config, RaeConfig):
        train_rae(open_prepared(data), config, out, device=place, progress=not quiet)
    else:
        train(open_prepared(data), config, out, device=place, progress=not quiet)
    console.report(
        f"the autoencoder is in {out / 'autoencoder'}; try: reed-image prepare --autoencoder {out}/autoencoder"
    )
