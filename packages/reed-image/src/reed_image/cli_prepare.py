"""The command `prepare`. Heavy imports stay inside the command, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from reed_core import console
from reed_core.cli_options import Device, Quiet, Threads
from reed_core.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("prepare")(prepare)


def prepare(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of images (CLASS/NAME.png), a zip, parquet files, a REPA folder (images/ and vae-sd/), or "
            "the name of a Hugging Face data set."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write. An unfinished one is gone on with.")],
    size: Annotated[int, typer.Option(help="Side of the pictures, in pixels.")],
    autoencoder: Annotated[
        str | None,
        typer.Option(
            help="pixels, a folder of diffusers, TAEF2 or train-vae, or OWNER/NAME. Left out, a REPA folder's own "
            "latents."
        ),
    ] = None,
    crop: Annotated[
        Literal["adm", "resize"], typer.Option(help="How a picture becomes square: ADM's centre crop, or squeezed.")
    ] = "adm",
    flips: Annotated[bool, typer.Option("--flips", help="Keep a mirrored copy of each as well.")] = False,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Keep the pictures, which featurize needs.")
    ] = True,
    fit: Annotated[
        int, typer.Option(help="Pictures whose latents set the normalisation; 0: the autoencoder's own.")
    ] = 0,
    dtype: Annotated[Literal["float16", "float32"], typer.Option(help="Type of the stored latents.")] = "float16",
    limit: Annotated[int | None, typer.Option(help="At most this many pictures.")] = None,
    smallest: Annotated[
        int | None, typer.Option(help="Shortest side accepted, in pixels; a quarter of --size by default.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which part of a Hugging Face data set.")] = "train",
    image_column: Annotated[str | None, typer.Option(help="Where there are columns; found by default.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Likewise, of the classes.")] = None,
    batch: Annotated[int, typer.Option(help="Pictures encoded at once.")] = 64,
    workers: Annotated[int, typer.Option(help="Threads that read and crop; 0: one per core, 8 at most.")] = 0,
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Turns pictures into the folder of latents that training reads: once.

    What cannot be used is counted, and listed in skipped.tsv. Stopped at any moment, it goes on where it was.
    """
    if min(size, batch) < 1 or min(fit, workers) < 0 or (limit is not None and limit < 1):
        raise InputError("--size, --batch and --limit are at least 1, --fit and --workers at least 0")
    from reed_core.device import use_device

    from reed_image.autoencoder import load_autoencoder
    from reed_image.data import SD_LATENTS, open_source
    from reed_image.data import prepare as write
    from reed_image.data.repa import RepaFolder

    place = use_device(device, threads)
    pictures = open_source(source, split, image_column, label_column)
    maker: Any = SD_LATENTS
    if autoencoder is not None:
        maker = load_autoencoder(autoencoder).to(place)
    elif not isinstance(pictures, RepaFolder):
        raise InputError("--autoencoder is missing: pixels, a folder of diffusers or TAEF2, or OWNER/NAME")
    found = write(
        pictures,
        out,
        maker,
        size=size,
        crop=crop,
        dtype=dtype,
        flips=flips,
        images=images,
        smallest=smallest,
        limit=limit,
        batch=batch,
        fit=fit,
        workers=workers,
        progress=not quiet,
    )
    manifest = found.manifest
    skipped = ", ".join(f"{count} {reason}" for reason, count in sorted(manifest.skipped.items()))
    typer.echo(f"pictures    {manifest.pictures}{', each mirrored as well' if found.copies > 1 else ''}")
    typer.echo(f"skipped     {skipped or 'none'}")
    typer.echo(f"classes     {len(manifest.classes) or int(found.labels.max()) + 1 or 'none'}")
    typer.echo(f"latents     {manifest.autoencoder.name}, {list(found.mean.shape[2:])}")
    typer.echo(f"their mean  {' '.join(f'{value:.3f}' for value in manifest.mean)}")
    typer.echo(f"deviation   {' '.join(f'{value:.3f}' for value in manifest.std)}")
    console.report(f"prepared pictures are in {out}")
