"""Loading models of transformers (extra `vlm`), from a folder or by name; what fails is one line."""

from importlib import import_module
from typing import Any, NamedTuple

from reed_core.errors import InputError
from torch import nn


class Loaded(NamedTuple):
    """A model and what makes its input.

    Attributes:
        model: The model.
        reader: Its tokenizer, or its processor where it sees pictures.
    """

    model: nn.Module
    reader: Any


def language_model(name: str, see: bool = False) -> Loaded:
    """A language model, in float32 on the CPU.

    Args:
        name: A folder of `save_pretrained`, or "OWNER/NAME".
        see: Whether it is to see pictures: a vision-language model with its processor.

    Raises:
        InputError: If transformers is not installed, or the model cannot be had.
    """
    try:
        library = import_module("transformers")
    except ImportError as error:
        raise InputError("language models need the package transformers; install reed-image[vlm]") from error
    reader, kind = ("AutoProcessor", "AutoModelForImageTextToText") if see else ("AutoTokenizer", "AutoModel")
    try:
        held = getattr(library, reader).from_pretrained(name)
        return Loaded(getattr(library, kind).from_pretrained(name, use_safetensors=True), held)
    except Exception as error:  # a download fails in many ways, and so does a folder that is something else
        raise InputError(
            f"language model '{name}' is neither a folder here nor can it be downloaded ({type(error).__name__}); "
            "give the folder of a copy"
        ) from error


def pad_with(reader: Any, side: str) -> None:
    """Sets the side on which texts are padded, and gives a tokenizer without one a padding token.

    Args:
        reader: A tokenizer or a processor.
        side: "left" or "right".
    """
    plain = reader.tokenizer if hasattr(reader, "tokenizer") else reader
    plain.padding_side = side
    if getattr(plain, "pad_token", "") is None:
        plain.pad_token = plain.eos_token
