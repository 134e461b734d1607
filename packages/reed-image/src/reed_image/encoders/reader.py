"""Readers of text: from a text to its tokens [m, width], for cross-attention; padding is masked and never read.

    words         token i = h(word_i) + p_i / 2: a normal vector drawn by the hash of the word, sines of its place;
                  no weights, nothing is downloaded, and nothing is known of what words mean
    any other     one layer's hidden states of a language model of transformers (extra `vlm`): CLIP's text tower, the
                  encoder of T5, BERT, or a causal model; a folder, or "OWNER/NAME"
A text's tokens are its own, whatever stands beside it in a batch.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from reed_core.errors import InputError
from reed_core.representation import fingerprint_module
from torch import Tensor, nn

from reed_image.encoders.language import language_model, pad_with

WORDS = "words"


class Tokens(NamedTuple):
    """Texts as tokens.

    Attributes:
        value: [b, m, width]; 0 where there is none.
        mask: True where a token exists, [b, m]; those of a text lead.
    """

    value: Float[Tensor, "b m d"]
    mask: Bool[Tensor, "b m"]


class Reading(BaseModel):
    """How texts are read.

    Attributes:
        model: "words", or a language model as transformers loads it.
        dim: Width of the vectors of words; of a language model, its own.
        tokens: Tokens of a text at most; the rest is cut off.
        layer: Which hidden states of a language model: 0 are the embeddings, -1 the last.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = WORDS
    dim: int = Field(256, ge=2, multiple_of=2)
    tokens: int = Field(32, ge=1)
    layer: int = -1


class ReaderSpec(Reading):
    """What read the texts a model was trained with; kept in its configuration, and needed to tell it another text.

    Attributes:
        weights: The reader's fingerprint; "" where it is not known yet.
    """

    weights: str = ""


@runtime_checkable
class Reader(Protocol):
    """Reads texts.

    Attributes:
        dim: Width of a token.
        fingerprint: Changes whenever a token may.
    """

    @property
    def dim(self) -> int: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokens of some texts, padded to the longest."""
        ...


class HashedWords:
    """Words as fixed random vectors: equal words are equal, others are nearly orthogonal.

    Args:
        dim: Width of a token.
        most: Tokens of a text at most.
    """

    def __init__(self, dim: int, most: int) -> None:
        self.dim, self.most = dim, most
        self._known: dict[str, Tensor] = {}

    @property
    def fingerprint(self) -> str:
        """The settings: there are no weights."""
        return f"words-1,{self.dim},{self.most}"

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokens of some texts; case and punctuation do not count."""
        read = [re.findall(r"\w+", text.casefold())[: self.most] for text in texts]
        longest = max(1, *map(len, read))
        value = torch.zeros(len(read), longest, self.dim)
        mask = torch.zeros(len(read), longest, dtype=torch.bool)
        places = _places(longest, self.dim)
        for row, words in enumerate(read):
            mask[row, : len(words)] = True
            for place, word in enumerate(words):
                value[row, place] = self._vector(word) + 0.5 * places[place]
        return Tokens(value, mask)

    def _vector(self, word: str) -> Tensor:
        if word not in self._known:
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little") >> 1
            drawn = torch.randn(self.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            self._known[word] = drawn.float()
        return self._known[word]


class LanguageModel:
    """A language model's hidden states.

    The model is given over: it is frozen and set to evaluation mode.

    Args:
        model: A model of transformers, called with `output_hidden_states=True`.
        tokenizer: Its tokenizer.
        layer: Which hidden states.
        most: Tokens of a text at most.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, layer: int, most: int) -> None:
        self.module, self.tokenizer = _text_part(model).eval().requires_grad_(False), tokenizer
        self.layer, self.most = layer, most
        pad_with(tokenizer, "right")
        self.dim = int(self(["a"]).value.shape[-1])

    @property
    def fingerprint(self) -> str:
        """The hash of the weights, and how they are read."""
        return fingerprint_module(self.module, f"reader-1,{self.layer},{self.most}")

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokens of some texts, on the CPU."""
        options: dict[str, Any] = {"padding": True, "truncation": True, "max_length": self.most, "return_tensors": "pt"}
        inputs = self.tokenizer(list(texts), **options)
        place = next(self.module.parameters()).device
        ids, mask = (inputs[name].to(place) for name in ("input_ids", "attention_mask"))
        found = self.module(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        if not -len(found) <= self.layer < len(found):
            raise InputError(
                f"layer {self.layer} of a language model with the states 0 to {len(found) - 1}; choose one"
            )
        exists = mask.bool()
        return Tokens(torch.where(exists[..., None], found[self.layer].float(), 0.0).cpu(), exists.cpu())


def load_reader(spec: Reading) -> HashedWords | LanguageModel:
    """The reader that a specification names.

    Args:
        spec: What is wanted.

    Raises:
        InputError: If it cannot be had, or is another one than the one that is recorded.
    """
    found: HashedWords | LanguageModel
    if spec.model == WORDS:
        found = HashedWords(spec.dim, spec.tokens)
    else:
        found = LanguageModel(*language_model(spec.model), spec.layer, spec.tokens)
    if isinstance(spec, ReaderSpec) and spec.weights not in ("", found.fingerprint):
        raise InputError(
            f"language model '{spec.model}' is not the one the texts were read with (other weights); find that one"
        )
    return found


def _text_part(model: nn.Module) -> nn.Module:
    """What reads text alone: the encoder of a sequence-to-sequence model, the text tower of a two-tower one."""
    whole: Any = model
    if getattr(getattr(whole, "config", None), "is_encoder_decoder", False):
        encoder: nn.Module = whole.get_encoder()
        return encoder
    if hasattr(whole, "text_model") and hasattr(whole, "vision_model"):
        tower: nn.Module = whole.text_model
        return tower
    return model


def _places(count: int, dim: int) -> Float[Tensor, "m d"]:
    half = dim // 2
    angles = torch.arange(count)[:, None] * 10000.0 ** (-torch.arange(half) / half)
    return torch.cat([angles.sin(), angles.cos()], -1)
