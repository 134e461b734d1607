"""What a language model makes of a picture's caption: the mean state of one layer, over the caption's own tokens.

Padding never counts: REED's published code averages over it, so that an image's target depends on its batch. Any model
and tokenizer of transformers serve (extra `vlm`); a vision-language model may also be given the picture itself, with
its processor in place of the tokenizer.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from reed_core.errors import InputError
from reed_core.latent import Representation, pool_tokens
from reed_core.representation import fingerprint_module
from torch import Tensor, nn

from reed_image.data.prepared import Named
from reed_image.data.source import digest
from reed_image.encoders.language import language_model, pad_with


class TextEncoder:
    """Captions as z, [b, width]; unknown for a picture without a caption.

    The model is given over: it is frozen and set to evaluation mode.

    Args:
        model: A model of transformers, called with `output_hidden_states=True`.
        tokenizer: Its tokenizer; or, with `see`, its processor.
        captions: Captions by the name of the picture.
        layer: Which hidden states: 0 are the embeddings, -1 the last.
        see: Whether the model sees the picture too. `prompt` must then hold what stands for it in the text.
        prompt: The text, with {caption} where the caption goes.
        partial: Whether pictures may lack a caption; their z is then unknown.
        name: A short name.
    """

    level: Literal["global"] = "global"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        captions: Mapping[str, str],
        *,
        layer: int = -1,
        see: bool = False,
        prompt: str = "{caption}",
        partial: bool = False,
        name: str = "text",
    ) -> None:
        self.name, self.module, self.tokenizer, self.captions = (
            name,
            model.eval().requires_grad_(False),
            tokenizer,
            captions,
        )
        self.layer, self.see, self.prompt, self.partial = layer, see, prompt, partial
        pad_with(tokenizer, "right")  # on the left it would shift the positions of a caption by its batch
        config: Any = model.config
        self.dim = int(getattr(config, "text_config", config).hidden_size)

    @property
    def fingerprint(self) -> str:
        """The hash of the weights, of the captions, and of how they are read."""
        captions = digest(sorted(self.captions.items()))
        return f"weights={fingerprint_module(self.module)} captions={captions} " + (
            f"version=text-1,{self.layer},{self.see},{digest([self.prompt])[:16]}"
        )

    @torch.no_grad()
    def __call__(self, x_0: Tensor, c: Any = None, mask: Bool[Tensor, "b n"] | None = None) -> Representation:
        """Encodes the captions of a batch.

        Args:
            x_0: Pictures in [0, 1]; not looked at unless the model sees.
            c: `Named`.
            mask: Not used.

        Raises:
            InputError: If a picture has no caption.
        """
        if not isinstance(c, Named):
            raise InputError("captions are found by the names of the pictures; give the items of prepared pictures")
        known = torch.tensor([name in self.captions for name in c.names])
        if not self.partial and not bool(known.all()):
            lacking = c.names[int((~known).nonzero()[0])]
            raise InputError(f"no caption for {lacking}; write one, or allow pictures without (partial)")
        z = torch.zeros(len(c.names), self.dim)
        rows = known.nonzero()[:, 0].tolist()
        if rows:
            texts = [self.prompt.replace("{caption}", self.captions[c.names[row]]) for row in rows]
            z[rows] = self._states(texts, [x_0[row] for row in rows]).cpu()
        return Representation(z, known)

    def _states(self, texts: Sequence[str], images: Sequence[Tensor]) -> Float[Tensor, "b d"]:
        options: dict[str, Any] = {"return_tensors": "pt", "padding": True}
        if self.see:
            shown = [(image.clamp(0, 1) * 255).round().byte().cpu().numpy() for image in images]
            options["images"] = shown
        inputs = self.tokenizer(text=list(texts), **options)
        place = next(self.module.parameters()).device
        given = {key: value.to(place) for key, value in inputs.items()}
        states = self.module(**given, output_hidden_states=True).hidden_states[self.layer]
        return pool_tokens(states.float(), given["attention_mask"].bool())


def load_text_encoder(model: str, captions: Mapping[str, str], **options: Any) -> TextEncoder:
    """A text encoder with a model of transformers (extra `vlm`), from a folder or by its name.

    Args:
        model: A folder of `save_pretrained`, or "OWNER/NAME".
        captions: Captions by the name of the picture.
        options: As of `TextEncoder`.

    Raises:
        InputError: If transformers is not installed, or the model cannot be had.
    """
    found = language_model(model, bool(options.get("see", False)))
    return TextEncoder(found.model, found.reader, captions, **options)
