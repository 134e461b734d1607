"""Texts to draw pictures of: read once, by the reader the model was trained with."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from reed_core.errors import InputError
from torch import Tensor

from reed_image.encoders.reader import Tokens, load_reader
from reed_image.model import ModelConfig


@dataclass(frozen=True)
class Prompts:
    """Texts as tokens, taken in turn by the number of the picture.

    Attributes:
        texts: The texts, for a person.
        tokens: Their tokens, all of one length.
        labels: The class of each, [k], -1 without; None: none of them has one.
    """

    texts: tuple[str, ...]
    tokens: Tokens
    labels: Int[Tensor, "k"] | None = None

    def __len__(self) -> int:
        return len(self.texts)


def read_prompts(config: ModelConfig, texts: Sequence[str]) -> Prompts:
    """Reads texts for a model.

    Args:
        config: What the model is.
        texts: At least one.

    Raises:
        InputError: If the model reads no text, or what read its texts cannot be had.
    """
    if config.text is None:
        raise InputError("the model was trained without texts; leave them out, or train a recipe with [text]")
    if not texts:
        raise InputError("no text was given; give at least one")
    found = load_reader(config.text)(texts)
    short = config.text.tokens - found.mask.shape[1]
    value = torch.nn.functional.pad(found.value, (0, 0, 0, short))
    return Prompts(tuple(texts), Tokens(value, torch.nn.functional.pad(found.mask, (0, short))))
