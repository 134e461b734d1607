"""Captions of pictures by a vision-language model (extra `vlm`), as REED makes them (arXiv 2507.08980): greedy.

    {"name": "ant/1.png", "caption": "an ant on a leaf", "by": "OWNER/NAME 3f2a09c1"}      one line for each picture

Lines are appended a batch at a time and flushed to the disk. A line that was cut short (the writer was killed) is
dropped, and names that are there already are skipped: a second call goes on where the first ended.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from reed_core.errors import InputError

from reed_image.data import open_prepared, open_source
from reed_image.data.image_file import UnusableError, read_rgb
from reed_image.data.manifest import MANIFEST
from reed_image.data.source import digest
from reed_image.encoders.language import language_model, pad_with

PROMPT, TOKENS = "Describe this image.", 200
"""What REED asks its model, and the tokens of an answer at most."""
_BEGIN = b'{"name": '


class NamedPicture(NamedTuple):
    """A picture to be captioned.

    Attributes:
        name: Its name.
        read: Reads it; raises `UnusableError` for what is no picture.
    """

    name: str
    read: Callable[[], Image.Image]


class Written(NamedTuple):
    """What `caption` did, in pictures.

    Attributes:
        new: Captioned now.
        held: Captioned before.
        skipped: Not to be read.
    """

    new: int
    held: int
    skipped: int


class Captioner:
    """A vision-language model that says what is on a picture, without chance.

    Args:
        name: A folder, or "OWNER/NAME", as transformers loads it.
        prompt: What it is asked; a model without a chat template or a place for a picture in its text is asked nothing.
        tokens: Tokens of an answer at most.

    Raises:
        InputError: If transformers is not installed, or the model cannot be had.
    """

    def __init__(self, name: str, prompt: str = PROMPT, tokens: int = TOKENS) -> None:
        if tokens < 1:
            raise InputError(f"{tokens} tokens of a caption; expected at least 1")
        loaded = language_model(name, see=True)
        self.name, self.tokens = name, tokens
        self.module: Any = loaded.model.eval().requires_grad_(False)
        self.processor = loaded.reader
        pad_with(self.processor, "left")  # what is said follows the question at once
        self.text = self._question(prompt)
        self.by = f"{name} {digest((name, self.text, tokens))[:8]}"

    def to(self, device: torch.device | str) -> "Captioner":
        """Moves the model; returns this object."""
        self.module.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        """Captions of some pictures, each on one line.

        Raises:
            InputError: If the model cannot do that.
        """
        options: dict[str, Any] = {"images": list(images), "return_tensors": "pt"}
        if self.text is not None:
            options |= {"text": [self.text] * len(images), "padding": True}
        place = next(self.module.parameters()).device
        try:
            inputs = self.processor(**options).to(place)
            found = self.module.generate(**inputs, max_new_tokens=self.tokens, do_sample=False)
        except (ValueError, TypeError, RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{self.name} cannot caption pictures ({reason}); choose another model") from error
        asked = inputs.get("input_ids")
        if asked is not None and torch.equal(found[:, : asked.shape[1]], asked):
            found = found[:, asked.shape[1] :]
        said: list[str] = self.processor.batch_decode(found, skip_special_tokens=True)
        return [" ".join(one.split()) for one in said]

    def _question(self, prompt: str) -> str | None:
        if getattr(self.processor, "chat_template", None):
            turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}
            asked: str = self.processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
            return asked
        here = getattr(self.processor, "image_token", None)
        return None if here is None else f"{here} {prompt}"


def caption(
    captioner: Captioner,
    pictures: Iterable[NamedPicture],
    out: Path,
    batch: int = 16,
    progress: Callable[[int], Any] | None = None,
) -> Written:
    """Captions pictures that are not in a file yet, and appends them to it.

    Args:
        captioner: Says what is on them.
        pictures: The pictures.
        out: A .jsonl file.
        batch: Pictures captioned at once.
        progress: Called with the number of pictures that were dealt with.

    Raises:
        InputError: If the file holds something else, or captions of another model or question.
    """
    if batch < 1 or out.suffix != ".jsonl":
        raise InputError(f"cannot write captions to {out} by {batch}; expected a .jsonl file, and at least 1")
    held = _held(out, captioner.by)
    new = before = skipped = 0
    waiting = iter(pictures)
    while some := list(islice(waiting, batch)):
        ready: list[tuple[str, Image.Image]] = []
        for one in some:
            if one.name in held:
                before += 1
                continue
            try:
                ready.append((one.name, one.read()))
            except UnusableError:
                skipped += 1
        if ready:
            said = captioner([image for _, image in ready])
            _append(out, [(name, text) for (name, _), text in zip(ready, said, strict=True)], captioner.by)
            new += len(ready)
        if progress is not None:
            progress(len(some))
    return Written(new, before, skipped)


def pictures_to_caption(where: str, split: str = "train") -> tuple[Iterator[NamedPicture], int]:
    """The pictures of a prepared folder, or of anything that can be prepared, and how many there are at most.

    A source is better: prepared pictures are cropped, and as small as they are trained on.

    Args:
        where: A folder that `prepare` wrote, or what it reads.
        split: Which part of a Hugging Face data set.

    Raises:
        InputError: If nothing of the kind is there, or it was prepared without its pictures.
    """
    if (Path(where) / MANIFEST).is_file():
        prepared = open_prepared(where)
        images = prepared.images
        if images is None:
            raise InputError(f"{where} was prepared without its pictures; give what it was prepared from")

        def reader(number: int) -> Callable[[], Image.Image]:
            return lambda: Image.fromarray(images[number])

        return (NamedPicture(name, reader(row)) for row, name in enumerate(prepared.names)), len(prepared.names)
    source = open_source(where, split)

    def decoder(read: Callable[[], bytes]) -> Callable[[], Image.Image]:
        return lambda: read_rgb(read())

    return (NamedPicture(one.name, decoder(one.read)) for one in source.pictures()), len(source)


def _held(out: Path, by: str) -> set[str]:
    """The names in a file, of which a line that was cut short is taken off."""
    if not out.exists():
        return set()
    try:
        content = out.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        entries = [json.loads(line) for line in whole.splitlines()]
        if not _BEGIN.startswith(content[len(whole) :][: len(_BEGIN)]):
            raise ValueError("its last line is no caption that was cut short")
        found = {str(entry["name"]) for entry in entries}
        others = {entry.get("by") for entry in entries} - {by}
        if len(whole) < len(content) and not others:
            with out.open("r+b") as stream:
                stream.truncate(len(whole))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{out} is no file of captions ({type(error).__name__}); choose another") from error
    if others:
        raise InputError(f"{out} holds captions by {others.pop()}, not by {by}; choose another file")
    return found


def _append(out: Path, captions: Sequence[tuple[str, str]], by: str) -> None:
    lines = [json.dumps({"name": name, "caption": text, "by": by}, ensure_ascii=False) for name, text in captions]
    try:
        with out.open("ab") as stream:
            stream.write("".join(f"{line}\n" for line in lines).encode())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise InputError(f"cannot write {out} ({type(error).__name__}); free space, or choose another place") from error
