"""The commands `export` and `import`. Heavy imports stay inside them, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from reed_core import console
from reed_core.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command("export")(export)
    app.command("import")(import_)


def export(
    weights: Annotated[str, typer.Argument(help="Folder of weights, as RUN/weights, or a name as cifar10.")],
    out: Annotated[Path, typer.Option(help="Folder to write; absent, or empty.")],
    autoencoder: Annotated[
        str | None,
        typer.Option(help="Put this autoencoder beside the model: here, or the model's own. Left out, only its name."),
    ] = None,
) -> None:
    """Writes a folder that diffusers loads: SiTPipeline.from_pretrained(FOLDER), in reed_image.export."""
    from reed_image.export import export as write
    from reed_image.model import load
    from reed_image.sample import decoder_of

    model = load(weights)
    beside = None if autoencoder is None else decoder_of(model.config, autoencoder).autoencoder
    write(model, out, beside)
    console.report(f"SiTPipeline.from_pretrained('{out}') in reed_image.export loads it")


def import_(
    checkpoint: Annotated[Path, typer.Argument(help="A .pt or .safetensors file of SiT, REPA or REED.")],
    out: Annotated[Path, typer.Option(help="Folder of weights to write; absent, or empty.")],
    source: Annotated[
        str | None, typer.Option(help="Whose code trained it: sit, repa or reed. Left out, it is found out.")
    ] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads, of sizes that were not published.")] = None,
    autoencoder: Annotated[
        Literal["sd", "pixels"], typer.Option(help="What made its latents: sd (Stable Diffusion's), or pixels.")
    ] = "sd",
) -> None:
    """Reads a published checkpoint, without running any code in it, and writes weights for sample and train --init."""
    if source not in (None, "sit", "repa", "reed"):
        raise InputError(f"--source {source}: expected sit, repa or reed")
    from reed_core.files import directory_written_aside
    from reed_core.hub import save_pretrained

    from reed_image.imports import SD_VAE, import_checkpoint

    whose: Any = source
    found = import_checkpoint(checkpoint, whose, heads, SD_VAE if autoencoder == "sd" else None)
    with directory_written_aside(out) as aside:
        save_pretrained(found.model, aside)
    network = found.model.config.network
    typer.echo(
        f"network     {network.depth} blocks of width {network.width}, {network.heads} heads, patch {network.patch}"
    )
    typer.echo(f"weights     {found.weights}, {sum(value.numel() for value in found.model.parameters()) / 1e6:.1f} M")
    typer.echo(f"direction   {found.direction}: t = {'1' if found.direction == 'sit' else '0'} was data, now 0")
    typer.echo(f"left out    {len(found.dropped)} tensors of projectors")
    console.report(f"weights are in {out}; try: reed-image sample --weights {out}")
