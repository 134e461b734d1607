"""The readout of a latent: p(z_l | h(x_t), z_given), a projector with a head, or a flow (THEORY sections 2 and 3).

    features = [h, shown_1 * z_1, shown_1, shown_2 * z_2, shown_2, ...]       per element (token, pair or sample)
    p(z_l | features) = head(projector(features))   or   LatentFlow(features)
A global latent reads h pooled over the sample's own elements. A given latent that is global is repeated for every
element. It is concatenated as its value (one-hot for classes) and a flag; both are 0 where it is not shown or unknown.
Without a tap and without given latents, the features are the constant 1 and the readout is a learned p(z_l).
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from reed_core.errors import InputError
from reed_core.generator import Flow, FlowDraw, LatentFlow
from reed_core.head import Categorical
from reed_core.latent import Latent, Representation, Revealed, pool_tokens
from reed_core.noise import NoiseSource
from reed_core.process.base import masked_mean, masked_sum
from reed_core.projector import Projector


class Readout(nn.Module):
    """What a denoiser's hidden state, and other latents, say of one latent.

    Args:
        latent: The latent.
        given: The latents named in `latent.given`.

    Raises:
        InputError: If `given` are not those latents, or one is neither global nor of the level of `latent`.
    """

    projector: Projector
    flow: LatentFlow

    def __init__(self, latent: Latent, given: Sequence[Latent] = ()) -> None:
        super().__init__()
        by_name = {other.name: other for other in given}
        if set(by_name) != set(latent.given):
            raise InputError(
                f"latent '{latent.name}' is given {', '.join(latent.given) or 'no latents'}; its readout got "
                f"{', '.join(by_name) or 'none'}; pass the latents it names"
            )
        for other in given:
            if other.level not in ("global", latent.level):
                raise InputError(
                    f"latent '{latent.name}' ({latent.level}) cannot be given '{other.name}' ({other.level}); expected "
                    f"a global latent or one of level {latent.level}"
                )
        self.latent = latent
        self.given = tuple(by_name[name] for name in latent.given)
        width = (latent.tap_dim if latent.tap is not None else 0) + sum(other.dim + 1 for other in self.given)
        if isinstance(latent.head, Flow):
            self.flow = LatentFlow(latent.dim, width, latent.head.hidden, latent.head.layers)
        else:
            self.projector = Projector(max(width, 1), latent.dim, latent.hidden, latent.layers)

    def draw(self, value: Representation, noise: NoiseSource) -> FlowDraw | None:
        """The random numbers that `energy` needs: None unless the head is a flow."""
        return self.flow.draw(value.z, noise) if isinstance(self.latent.head, Flow) else None

    def energy(
        self,
        hidden: Float[Tensor, "b ..."] | None,
        value: Representation,
        mask: Bool[Tensor, "b n"] | None,
        given: Mapping[str, Revealed],
        drawn: FlowDraw | None = None,
    ) -> Float[Tensor, "b"]:
        """The training loss: the head's energy, averaged over each sample's known elements.

        Under autocast the projector computes in low precision, as the network does; the head and a flow in float32.

        Args:
            hidden: The tapped state, [b, n, w], [b, n, k, w] or [b, w]; None without a tap.
            value: The latent; no gradient reaches it.
            mask: True where an element of x exists; None when all do.
            given: Other latents that are revealed; those that `latent.given` does not name are ignored.
            drawn: What `draw` returned.

        Raises:
            InputError: If hidden state and value have other elements, or a flow got no random numbers.
        """
        z, known, features = self._aligned(hidden, value, mask, given)
        head = self.latent.head
        if not isinstance(head, Flow):
            return masked_mean(head.energy(self.projector(features), z), known)
        if drawn is None:
            raise InputError(
                f"latent '{self.latent.name}' is a flow, whose energy needs random numbers; pass draw(...)"
            )
        with torch.autocast(z.device.type, enabled=False):
            return masked_mean(self.flow.energy(features, z, drawn), known)

    def nats(
        self,
        hidden: Float[Tensor, "b ..."] | None,
        value: Representation,
        mask: Bool[Tensor, "b n"] | None,
        given: Mapping[str, Revealed],
        noise: NoiseSource,
    ) -> Float[Tensor, "b"]:
        """-log p(z_l | .) in nats, summed over known elements; for a flow, a draw of its variational bound.

        Args:
            hidden: As in `energy`.
            value: The latent.
            mask: As in `energy`.
            given: As in `energy`.
            noise: One stream per sample; only a flow draws from it.
        """
        z, known, features = self._aligned(hidden, value, mask, given)
        head = self.latent.head
        if isinstance(head, Flow):
            nats = self.flow.nats(features, z, noise)
        else:
            nats = head.energy(self.projector(features), z) + head.log_normaliser(self.latent.dim)
        return masked_sum(nats, known)

    @torch.no_grad()
    def sample(
        self,
        hidden: Float[Tensor, "b ..."] | None,
        noise: NoiseSource,
        mask: Bool[Tensor, "b n"] | None,
        given: Mapping[str, Revealed],
        elements: tuple[int, ...] = (),
    ) -> Shaped[Tensor, "b ..."]:
        """A draw of z_l: vectors, or class indices for a categorical head.

        Args:
            hidden: As in `energy`.
            noise: One stream per sample.
            mask: As in `energy`.
            given: As in `energy`.
            elements: The axes of z between batch and features; used only when `hidden` is None.
        """
        features = self._features(hidden, mask, given, (len(noise), *elements))
        head = self.latent.head
        if isinstance(head, Flow):
            lead = (len(noise), *elements) if features is None else tuple(features.shape[:-1])
            return self.flow.sample(features, noise, lead[1:], head.steps, head.method)
        return head.sample(self.projector(features), noise)

    @torch.no_grad()
    def predict(
        self,
        hidden: Float[Tensor, "b ..."] | None,
        mask: Bool[Tensor, "b n"] | None,
        given: Mapping[str, Revealed],
        elements: tuple[int, ...] = (),
    ) -> Shaped[Tensor, "b ..."]:
        """The most likely z_l: a unit vector, a mean, a class index; for a flow its ODE from zero noise.

        Args:
            hidden: As in `energy`. When it is None, the batch size is that of `mask` or of a given latent, else 1.
            mask: As in `energy`.
            given: As in `energy`.
            elements: As in `sample`.
        """
        sources = [hidden, mask, *(given[other.name].z for other in self.given if other.name in given)]
        count = next((source.shape[0] for source in sources if source is not None), 1)
        features = self._features(hidden, mask, given, (count, *elements))
        head = self.latent.head
        if isinstance(head, Flow):
            lead = (count, *elements) if features is None else tuple(features.shape[:-1])
            return self.flow.predict(features, lead, head.steps, head.method)
        return head.mode(self.projector(features))

    def _aligned(
        self, hidden: Tensor | None, value: Representation, mask: Tensor | None, given: Mapping[str, Revealed]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The value without gradient and with the unknown taken out, where it is known, and the features."""
        z, known = value.z.detach(), value.mask
        is_class = isinstance(self.latent.head, Categorical)
        lead = tuple(z.shape if is_class else z.shape[:-1])
        if known is None and self.latent.level != "global":
            known = mask
        features = self._features(hidden, mask, given, lead)
        if features is not None and tuple(features.shape[:-1]) != lead:
            raise InputError(
                f"latent '{self.latent.name}' ({self.latent.level}): the tap '{self.latent.tap}' has elements "
                f"{tuple(features.shape[:-1])}, its z {lead}; give z for the elements of the tapped state"
            )
        z = z.to(next(self.parameters()).device)
        if known is not None:
            known = _spread(known.to(z.device), lead)
            z = torch.where(known, z, -1) if is_class else torch.where(known[..., None], z, 0.0)
        return z, known, features

    def _features(
        self, hidden: Tensor | None, mask: Tensor | None, given: Mapping[str, Revealed], lead: tuple[int, ...]
    ) -> Tensor | None:
        """[*lead, width]; None for a flow that is told nothing."""
        own = next(self.parameters())
        like, parts = own.new_empty(0), []
        if self.latent.tap is not None:
            if hidden is None:
                raise InputError(
                    f"latent '{self.latent.name}' reads '{self.latent.tap}', but got no hidden state; pass the tap"
                )
            like = hidden
            kept = None if mask is None or hidden.ndim < 3 else _spread(mask.to(hidden.device), hidden.shape[:-1])
            if self.latent.level == "global":
                hidden = pool_tokens(hidden, kept) if hidden.ndim > 2 else hidden
            elif kept is not None:
                hidden = torch.where(kept[..., None], hidden, 0.0)
            parts, lead = [hidden], tuple(hidden.shape[:-1])
        for other in self.given:
            parts += _told(other, given.get(other.name), lead, like)
        if parts:
            return torch.cat(parts, -1)
        return None if isinstance(self.latent.head, Flow) else own.new_ones((*lead, 1))


def _told(other: Latent, told: Revealed | None, lead: tuple[int, ...], like: Tensor) -> list[Tensor]:
    """A given latent as features: its value, 0 where it is not shown, and whether it is shown."""
    if told is None:
        return [like.new_zeros((*lead, other.dim)), like.new_zeros((*lead, 1))]
    z = told.z.detach().to(like.device)
    if isinstance(other.head, Categorical):
        own = z >= 0
        z = F.one_hot(z.clamp(min=0), other.dim)
    else:
        own = torch.ones(z.shape[:-1], dtype=torch.bool, device=z.device)
    if told.mask is not None:
        own = own & _spread(told.mask.to(z.device), own.shape)
    if told.shown is not None:
        own = own & _spread(told.shown.to(z.device), own.shape)
    z, flag = torch.where(own[..., None], z.to(like.dtype), 0.0), own[..., None].to(like.dtype)
    if other.level == "global":
        z, flag = (part.reshape(part.shape[0], *([1] * (len(lead) - 1)), part.shape[-1]) for part in (z, flag))
    return [z.expand(*lead, -1), flag.expand(*lead, -1)]


def _spread(mask: Tensor, shape: Sequence[int]) -> Tensor:
    """A mask of leading axes, repeated over the axes that follow."""
    return mask.reshape(*mask.shape, *([1] * (len(shape) - mask.ndim))).expand(*shape)
