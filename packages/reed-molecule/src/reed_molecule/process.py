"""The forward process of molecules: coordinates without their centre of mass, atom types, formal charges and bonds.

Coordinates. With P = I - 11^T / n the projection of a molecule's n atoms onto zero centre of mass (of each axis),
    x_t = signal P x_0 + noise P eps,   x in the range of P, of dimension 3 (n - 1)
P commutes with every step of a Gaussian interpolant, so noise, target, prior and reverse kernel are those of
`Interpolant`, projected. Only what is counted per dimension changes: each Gaussian has 3 (n - 1) of them, not 3 n
(THEORY section 7). A prediction is projected before it is scored: what it says of the centre of mass is not used.

Bonds. A symmetric matrix holds each unordered pair once. `Symmetric` lists pairs i < j by growing j, runs its process
on that list and writes the result to (i, j) and (j, i). In this order a smaller molecule's pairs come first, so padding
changes no number of a sample. The list has n (n - 1) / 2 entries: the loss and the nats count each pair once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant, Masked, Product, UniformDiscrete
from reed_core.process.base import BoundedProcess, Corrupted, HybridNats
from torch import Tensor

from reed_molecule.vocabulary import BONDS, Vocabulary

FIELDS = ("coords", "types", "charges", "bonds")
WEIGHTS = {"coords": 1.0, "types": 0.2, "charges": 0.2, "bonds": 1.0}


def centre(x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n d"]:
    """Moves the mean of a sample's existing elements to 0; padding becomes 0, whatever it held."""
    if mask is None:
        return x - x.mean(1, keepdim=True)
    kept = mask[..., None]
    x = torch.where(kept, x, 0.0)
    mean = x.sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1)
    return torch.where(kept, x - mean, 0.0)


@dataclass(frozen=True)
class Centred(Interpolant):
    """A Gaussian interpolant of point clouds [b, n, d] whose centre of mass is 0; masks are [b, n].

    `loss` is the mean square over the d (n - 1) dimensions of a sample (0 for a single point). The nats are sums over
    those dimensions. Settings are those of `Interpolant`.
    """

    def corrupt(
        self,
        x_0: Float[Tensor, "b n d"],
        t: Float[Tensor, "b"],
        noise: NoiseSource,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Corrupted:
        """x_t = signal(t) P x_0 + noise(t) P eps; arguments as in `Interpolant.corrupt`."""
        drawn = super().corrupt(x_0, t, noise, mask)
        return replace(
            drawn, x_0=centre(drawn.x_0, mask), x_t=centre(drawn.x_t, mask), target=centre(drawn.target, mask)
        )

    def loss(self, prediction: Float[Tensor, "b n d"], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """Mean squared error per dimension of the subspace."""
        mean = super().loss(centre(prediction, corrupted.mask), corrupted)
        count = _count(corrupted.x_0, corrupted.mask).to(mean)
        return mean * count / (count - 1.0).clamp(min=1.0)

    def prior(
        self, like: Float[Tensor, "b n d"], noise: NoiseSource, mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Standard normal noise of the subspace."""
        return centre(super().prior(like, noise, mask), mask)

    def step(
        self,
        prediction: Float[Tensor, "b n d"],
        x_t: Float[Tensor, "b n d"],
        t: Float[Tensor, "b"],
        s: Float[Tensor, "b"],
        noise: NoiseSource,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """One draw of the projected reverse kernel; arguments as in `Interpolant.step`."""
        return centre(super().step(prediction, x_t, t, s, noise, mask), mask)

    def prior_nats(self, x_0: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b"]:
        """KL(q(x_{t_max} | x_0) || N(0, P))."""
        whole = super().prior_nats(centre(x_0, mask), mask)
        one = torch.zeros(1, 1, x_0.shape[2], dtype=whole.dtype, device=whole.device)
        return whole - _extra(x_0, mask).to(whole) * super().prior_nats(one)

    def nats(self, prediction: Float[Tensor, "b n d"], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """elbo_weight(t) |P prediction - target|^2, per unit of time."""
        return super().nats(centre(prediction, corrupted.mask), corrupted)

    def hybrid_nats(
        self,
        unconditional: Float[Tensor, "b n d"],
        conditional: Float[Tensor, "b n d"],
        A: Float[Tensor, "b"],
        corrupted: Corrupted,
    ) -> HybridNats:
        """As in `Interpolant.hybrid_nats`, of the projected predictions."""
        mask = corrupted.mask
        return super().hybrid_nats(centre(unconditional, mask), centre(conditional, mask), A, corrupted)

    def reconstruction_nats(self, prediction: Float[Tensor, "b n d"], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """-log N(x_0; predicted x_0, (noise / signal)^2 P), a density on the subspace."""
        whole = super().reconstruction_nats(centre(prediction, corrupted.mask), corrupted)
        zero = torch.zeros(len(whole), 1, corrupted.x_0.shape[2], dtype=whole.dtype, device=whole.device)
        point = Corrupted(x_0=zero, x_t=zero, t=corrupted.t, target=zero)
        return whole - _extra(corrupted.x_0, corrupted.mask).to(whole) * super().reconstruction_nats(zero, point)


def _count(x: Tensor, mask: Tensor | None) -> Int[Tensor, "b"]:
    """Number of existing points of each sample."""
    return torch.full((x.shape[0],), x.shape[1], device=x.device) if mask is None else mask.sum(1)


def _extra(x: Tensor, mask: Tensor | None) -> Int[Tensor, "b"]:
    """How many points' worth of dimensions the projection takes away: 1, or 0 of an empty sample."""
    return _count(x, mask).clamp(max=1)


class Pairs(NamedTuple):
    """The unordered pairs of n elements, i < j, by growing j.

    Attributes:
        first: i, [n (n - 1) / 2].
        second: j, the same.
    """

    first: Int[Tensor, "p"]
    second: Int[Tensor, "p"]

    @classmethod
    def of(cls, count: int, device: torch.device) -> "Pairs":
        """The pairs of `count` elements."""
        second, first = torch.tril_indices(count, count, -1, device=device)
        return cls(first, second)

    def pack(self, matrix: Shaped[Tensor, "b n n *k"]) -> Shaped[Tensor, "b p *k"]:
        """The entries above the diagonal."""
        return matrix[:, self.first, self.second]

    def spread(self, packed: Shaped[Tensor, "b p *k"], base: Shaped[Tensor, "b n n *k"]) -> Shaped[Tensor, "b n n *k"]:
        """A copy of `base` with the packed entries on both sides of the diagonal, which keeps that of `base`."""
        out = base.clone()
        out[:, self.first, self.second] = packed
        out[:, self.second, self.first] = packed
        return out


@dataclass(frozen=True)
class Symmetric:
    """A process of symmetric matrices [b, n, n]: one draw per unordered pair; the diagonal is never touched.

    Masks are [b, n, n], symmetric; what they say of the diagonal is ignored. A prediction counts as the mean of its two
    sides: nothing depends on the order of the elements.

    Attributes:
        pairs: The process of a pair, such as `UniformDiscrete`.
    """

    pairs: BoundedProcess

    @property
    def t_min(self) -> float:
        """That of the pairs' process."""
        return self.pairs.t_min

    @property
    def t_max(self) -> float:
        """That of the pairs' process."""
        return self.pairs.t_max

    @property
    def num_tokens(self) -> int:
        """Classes of a pair, when its process is discrete."""
        process: Any = self.pairs
        return process.num_tokens

    def sample_time(self, noise: NoiseSource) -> Float[Tensor, "b"]:
        """Uniform times on [t_min, t_max)."""
        return self.pairs.sample_time(noise)

    def corrupt(
        self,
        x_0: Shaped[Tensor, "b n n"],
        t: Float[Tensor, "b"],
        noise: NoiseSource,
        mask: Bool[Tensor, "b n n"] | None = None,
    ) -> Corrupted:
        """Corrupts each pair once."""
        at = _pairs(x_0)
        drawn = self.pairs.corrupt(at.pack(x_0), t, noise, _packed(at, mask))
        x_0 = at.spread(drawn.x_0, x_0)
        nothing = torch.zeros_like(x_0, dtype=torch.bool)
        return Corrupted(
            x_0=x_0,
            x_t=at.spread(drawn.x_t, x_0),
            t=t,
            target=at.spread(drawn.target, x_0),
            mask=mask,
            scored=None if drawn.scored is None else at.spread(drawn.scored, nothing),
        )

    def loss(self, prediction: Float[Tensor, "b n n *k"], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """The loss of the pairs' process, averaged over unordered pairs; 0 for a single element."""
        return self.pairs.loss(*_listed(corrupted, prediction))

    def prior(
        self, like: Shaped[Tensor, "b n n"], noise: NoiseSource, mask: Bool[Tensor, "b n n"] | None = None
    ) -> Shaped[Tensor, "b n n"]:
        """A draw at t = 1; 0 on the diagonal."""
        at = _pairs(like)
        return at.spread(self.pairs.prior(at.pack(like), noise, _packed(at, mask)), torch.zeros_like(like))

    def step(
        self,
        prediction: Float[Tensor, "b n n *k"],
        x_t: Shaped[Tensor, "b n n"],
        t: Float[Tensor, "b"],
        s: Float[Tensor, "b"],
        noise: NoiseSource,
        mask: Bool[Tensor, "b n n"] | None = None,
    ) -> Shaped[Tensor, "b n n"]:
        """One draw of the reverse kernel of each pair."""
        at = _pairs(x_t)
        said = _both_sides(at, prediction)
        return at.spread(self.pairs.step(said, at.pack(x_t), t, s, noise, _packed(at, mask)), x_t)

    def prior_nats(self, x_0: Shaped[Tensor, "b n n"], mask: Bool[Tensor, "b n n"] | None = None) -> Float[Tensor, "b"]:
        """Summed over unordered pairs, as all nats."""
        at = _pairs(x_0)
        return self.pairs.prior_nats(at.pack(x_0), _packed(at, mask))

    def nats(self, prediction: Float[Tensor, "b n n *k"], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """Those of the pairs' process."""
        return self.pairs.nats(*_listed(corrupted, prediction))

    def hybrid_nats(
        self,
        unconditional: Float[Tensor, "b n n *k"],
        conditional: Float[Tensor, "b n n *k"],
        A: Float[Tensor, "b"],
        corrupted: Corrupted,
    ) -> HybridNats:
        """Those of the pairs' process."""
        without, packed = _listed(corrupted, unconditional)
        return self.pairs.hybrid_nats(without, _listed(corrupted, conditional)[0], A, packed)

    def reconstruction_nats(self, prediction: Float[Tensor, "b n n *k"], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """Those of the pairs' process."""
        return self.pairs.reconstruction_nats(*_listed(corrupted, prediction))


def _pairs(matrix: Tensor) -> Pairs:
    return Pairs.of(matrix.shape[1], matrix.device)


def _packed(at: Pairs, mask: Tensor | None) -> Tensor | None:
    return None if mask is None else at.pack(mask)


def _both_sides(at: Pairs, prediction: Tensor) -> Tensor:
    """The mean of both sides of a prediction, for each pair."""
    return 0.5 * (at.pack(prediction) + prediction[:, at.second, at.first])


def _listed(corrupted: Corrupted, prediction: Tensor) -> tuple[Tensor, Corrupted]:
    """A prediction and a corruption as the pairs' process takes them."""
    at = _pairs(corrupted.x_0)
    packed = Corrupted(
        x_0=at.pack(corrupted.x_0),
        x_t=at.pack(corrupted.x_t),
        t=corrupted.t,
        target=at.pack(corrupted.target),
        mask=_packed(at, corrupted.mask),
        scored=None if corrupted.scored is None else at.pack(corrupted.scored),
    )
    return _both_sides(at, prediction), packed


Discrete = Literal["uniform", "masked"]


def molecule_process(
    vocabulary: Vocabulary,
    discrete: Discrete = "uniform",
    *,
    time_weight: Literal["elbo", "flat"] = "flat",
    weights: Mapping[str, float] | None = None,
) -> Product:
    """The process of whole molecules: a product of `coords`, `types`, `charges` and `bonds`, all on the master clock.

    Uniform noise is the default for the discrete fields: a bond or an element drawn wrongly can still be changed while
    the coordinates settle, which few-step sampling needs. With masked noise what has been revealed stays, but the
    network is told what it may trust.

    Args:
        vocabulary: Elements and formal charges.
        discrete: "uniform" or "masked" (the mask token is then the class after the last).
        time_weight: The training loss of every field, "flat" or "elbo".
        weights: Weights of the fields in the training loss; `WEIGHTS` for those left out.
    """

    def tokens(count: int) -> BoundedProcess:
        if discrete == "uniform":
            return UniformDiscrete(count, time_weight)
        return Masked(count, count, time_weight)

    return Product(
        {
            "coords": Centred(time_weight=time_weight),
            "types": tokens(len(vocabulary.symbols)),
            "charges": tokens(len(vocabulary.charges)),
            "bonds": Symmetric(tokens(BONDS)),
        },
        weights={**WEIGHTS, **(weights or {})},
    )


def recast(process: Product, kind: type[Centred], **more: Any) -> Product:
    """A process of molecules whose coordinates are of another kind of `Centred`, with the settings they have.

    Args:
        process: The process.
        kind: The kind.
        more: Settings that only this kind has.
    """
    coords = process.fields["coords"]
    settings = {field.name: getattr(coords, field.name) for field in fields(Centred)}
    return replace(process, fields={**process.fields, "coords": kind(**settings, **more)})
