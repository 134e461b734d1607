"""The table `[text]` of a recipe: what the network is told in words, read from a cache that `featurize` writes.

captions = "captions.jsonl"      {"name": ..., "caption": ...} a line; left out, the names of the classes
model = "words"                  or a language model of transformers (`reed_image.encoders.reader`)
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from reed_core.representation import Cache
from reed_core.representation.identity import parts_of

from reed_image.data import Prepared
from reed_image.encoders.caption_tokens import CaptionTokens
from reed_image.encoders.captions import read_captions
from reed_image.encoders.reader import Reader, ReaderSpec, Reading, Tokens, load_reader
from reed_image.latents.spec import data_path
from reed_image.latents.store import open_plan, plan_of


class TextCondition(Reading):
    """What the network is told in words, and what reads it; withheld with the recipe's `drop`, together with the class.

    Attributes:
        captions: The file of captions, .jsonl or .tsv; "" takes the names of the classes.
        partial: Whether pictures may lack a caption; they are told nothing.
        format: How the cache stores tokens: float16, float32 or int8.
    """

    captions: str = ""
    partial: bool = False
    format: str = Field("float16", pattern=r"^(float16|float32|int8)$")

    @property
    def kind(self) -> str:
        """Of the cache, in its name."""
        return "tokens"

    @property
    def name(self) -> str:
        """What a person calls it."""
        return "text"

    def parts(self, grid: int) -> dict[str, str]:
        """Every setting that the tokens depend on, by name."""
        values = self.model_dump(mode="json", exclude={"format"})
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}

    def encoder(self, grid: int) -> CaptionTokens:
        """The encoder; loads the reader and the captions."""
        captions = read_captions(data_path(self.captions)) if self.captions else None
        reader: Reader = load_reader(self)
        return CaptionTokens(reader, captions, self.tokens, self.partial)


@dataclass(frozen=True)
class TextRows:
    """The tokens of prepared pictures, by the number of the item.

    Attributes:
        cache: Where they are; None gives ones, enough to measure the work.
        most: Tokens of a text at most; every batch is padded to that, so that its shape does not change.
        dim: Width of a token.
        spec: What read them.
    """

    cache: Cache | None
    most: int
    dim: int
    spec: ReaderSpec

    def gather(self, items: Sequence[int]) -> Tokens:
        """The tokens of some items."""
        if self.cache is None:
            return Tokens(torch.ones(len(items), self.most, self.dim), torch.ones(len(items), self.most).bool())
        found = self.cache.gather(items, length=self.most)
        assert found.mask is not None
        return Tokens(found.z.float(), found.mask)


def open_text(spec: TextCondition, prepared: Prepared, root: Path, blanks: bool = False) -> TextRows:
    """Opens the tokens of a recipe's text.

    Args:
        spec: The text.
        prepared: The pictures.
        root: The folder of caches.
        blanks: Where there is no cache yet, put ones of its form in its place.

    Raises:
        InputError: If there is no cache, or it is of something else.
    """
    reading = {name: getattr(spec, name) for name in Reading.model_fields}
    plan = plan_of(spec, prepared, root, 0)
    if blanks and not plan.complete:
        reader = load_reader(spec)
        return TextRows(None, spec.tokens, reader.dim, ReaderSpec(**reading, weights=reader.fingerprint))
    cache = open_plan(plan, prepared)
    content = cache.manifest.content
    weights = parts_of(content.encoder_fingerprint)["encoder.reader"]
    return TextRows(cache, spec.tokens, content.dim, ReaderSpec(**reading, weights=weights))
