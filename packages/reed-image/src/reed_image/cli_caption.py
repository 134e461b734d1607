"""The command `caption`. Heavy imports stay inside the command, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated

import typer
from reed_core import console
from reed_core.cli_options import Device, Quiet, Threads


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("caption")(caption)


def caption(
    data: Annotated[str, typer.Argument(help="Pictures: anything that prepare reads, or a prepared folder.")],
    out: Annotated[Path, typer.Option(help="The .jsonl file to write; one that is there is gone on with.")],
    model: Annotated[str, typer.Option(help="A vision-language model of transformers: a folder, or OWNER/NAME.")],
    prompt: Annotated[str, typer.Option(help="What it is asked.")] = "Describe this image.",
    tokens: Annotated[int, typer.Option(help="Tokens of an answer at most.")] = 200,
    batch: Annotated[int, typer.Option(help="Pictures at once.")] = 16,
    split: Annotated[str, typer.Option(help="Which part of a Hugging Face data set.")] = "train",
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Says in words what is on each picture: the captions of a recipe's text, and of its latents of kind text.

    Stopped at any moment, it goes on where it was. Needs the extra vlm of reed-image.
    """
    from reed_core.device import use_device
    from rich.console import Console
    from rich.progress import Progress

    from reed_image.encoders.captioner import Captioner, pictures_to_caption
    from reed_image.encoders.captioner import caption as write

    place = use_device(device, threads)
    pictures, count = pictures_to_caption(data, split)
    captioner = Captioner(model, prompt, tokens).to(place)
    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task("captioning", total=count)
        done = write(captioner, pictures, out, batch, lambda some: bar.advance(task, some))
    console.report(
        f"{out}: {done.new} captions written, {done.held} were there, {done.skipped} pictures could not be read"
    )
