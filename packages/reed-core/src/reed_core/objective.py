"""The objective: process + latents + reveal + curriculum -> a loss that any training loop can call (THEORY section 5).

    L(n) = b(n) E_t[l_denoise(t)] + a(n) sum_l lambda_l E_t[w_l(t) D_l(P_l(pool_l(h^(k_l)(x_t))), stopgrad z_l)]

w_l(t) = alpha_l(t) / pi(t), where pi is the (uniform) density of training times, so that the effective reveal density
is alpha_l whatever the process samples. A point mass has no density: it draws its own tau, with a forward pass of its
own (none when its head reads no tap).

Explicit latents are told to the denoiser: each sample draws reveal times from the coupling, and sees z_l where
tau_l >= t, that is with probability A^l(t). With a process whose `time_weight` is "elbo" this is an unbiased estimate
of the bound, log Z included (THEORY D14). Their heads must not see z: they read upstream of the injection, or a second
forward pass without z.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reed_core.coupling import Coupling, Independent, Sampled, revealed
from reed_core.curriculum import Curriculum
from reed_core.denoiser import Tap
from reed_core.errors import InputError
from reed_core.generator import Flow
from reed_core.latent import Latent, Representation, Representations, Revealed
from reed_core.noise import NoiseSource
from reed_core.process.base import Process
from reed_core.question import Asked, Question
from reed_core.readout import Readout
from reed_core.regulariser import Regulariser
from reed_core.state import State, any_tensor, batch_size, full_precision


@dataclass(frozen=True)
class ConditionDropout:
    """Replaces the condition by a null condition for a random part of a batch, as classifier-free guidance needs.

    Attributes:
        probability: Share of samples whose condition is dropped.
        drop: `drop(c, dropped)` returns c with the null condition where `dropped` [b] is True.
    """

    probability: float
    drop: Callable[[Any, Tensor], Any]

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise InputError(f"a share of dropped conditions lies between 0 and 1, got {self.probability:g}")


@dataclass(frozen=True)
class Loss:
    """What an objective returns; everything but `total` is per sample and detached from nothing.

    Attributes:
        total: Scalar to be differentiated.
        denoising: The process's loss of each sample, unweighted by the curriculum, [b].
        alignment: For each latent that was on, its head's energy for each sample, reveal weight included, [b].
        regularisation: The same for each regulariser that was on.
        t: The times drawn, [b].
    """

    total: Float[Tensor, ""]
    denoising: Float[Tensor, "b"]
    alignment: dict[str, Float[Tensor, "b"]] = field(default_factory=dict)
    regularisation: dict[str, Float[Tensor, "b"]] = field(default_factory=dict)
    t: Tensor | None = None


class Objective(nn.Module):
    """A training objective; its parameters are the readouts of its latents.

    Args:
        process: The forward process.
        latents: The latents, each read at its own tap; none means plain diffusion.
        curriculum: a(n) and b(n).
        condition_dropout: How and how often the condition is dropped, or None.
        coupling: How the reveal times of several latents hang together; it matters for explicit latents and for heads
            that see other latents.
        regularisers: Losses beside the bound.
        head_pass: "shared": heads read the denoising pass, upstream of any injection of their own z. "null": with
            explicit latents, heads read a second pass in which no z is shown; any tap will do.

    Raises:
        InputError: If names collide, or a latent is given one that does not exist.
    """

    def __init__(
        self,
        process: Process,
        latents: Sequence[Latent] = (),
        curriculum: Curriculum | None = None,
        condition_dropout: ConditionDropout | None = None,
        *,
        coupling: Coupling | None = None,
        regularisers: Sequence[Regulariser] = (),
        head_pass: str = "shared",
    ) -> None:
        super().__init__()
        names = [*(latent.name for latent in latents), *(regulariser.name for regulariser in regularisers)]
        if len(set(names)) != len(names):
            raise InputError(f"latents and regularisers need different names, got {', '.join(names)}")
        for name in names:
            if not name or "." in name or hasattr(nn.ModuleDict(), name):
                raise InputError(f"'{name}' cannot name a latent: no torch module can have this name; choose another")
        for latent in latents:
            unknown = [other for other in latent.given if other not in names or other == latent.name]
            if unknown:
                raise InputError(f"latent '{latent.name}' is given {', '.join(unknown)}; expected other latents' names")
        for regulariser in regularisers:
            if regulariser.reveal.is_atomic:
                raise InputError(f"'{regulariser.name}' weighs all times; give it a reveal density without an atom")
        if head_pass not in ("shared", "null"):
            raise InputError(f"head_pass '{head_pass}' is unknown; expected shared or null")
        self.process = process
        self.latents = tuple(latents)
        self.curriculum = curriculum or Curriculum()
        self.condition_dropout = condition_dropout
        self.coupling = coupling or Independent()
        self.regularisers = tuple(regularisers)
        self.head_pass = head_pass
        self.readouts = nn.ModuleDict(
            {latent.name: Readout(latent, [self.latent(name) for name in latent.given]) for latent in latents}
        )

    def latent(self, name: str) -> Latent:
        """The latent of a name.

        Raises:
            InputError: If there is none.
        """
        for latent in self.latents:
            if latent.name == name:
                return latent
        raise InputError(f"no latent '{name}'; there are {', '.join(latent.name for latent in self.latents) or 'none'}")

    def readout(self, name: str) -> Readout:
        """p(z | x_t, given) of the latent of a name."""
        return cast(Readout, self.readouts[self.latent(name).name])

    def fit_scale(self, z: Representations) -> None:
        """Gives the heads that are flows the mean and the scale of z; call it once, before training.

        Args:
            z: Values of a few thousand samples, of every latent whose head is a `Flow`.
        """
        for latent in self.latents:
            if isinstance(latent.head, Flow):
                self.readout(latent.name).flow.fit_scale(z[latent.name].z, z[latent.name].mask)

    @property
    def explicit(self) -> tuple[Latent, ...]:
        """The latents that the denoiser is told."""
        return tuple(latent for latent in self.latents if latent.injection == "explicit")

    def needs_latents(self, n: float) -> bool:
        """Whether a step after n samples reads any latent's value."""
        return bool(self.explicit) or any(self.curriculum.a(n) * latent.weight != 0.0 for latent in self.latents)

    def forward(
        self,
        denoiser: Callable[..., State],
        x_0: State,
        noise: NoiseSource,
        *,
        z: Representations | Callable[[], Representations] | None = None,
        c: Any = None,
        mask: State = None,
        weight: Float[Tensor, "b"] | None = None,
        n: float = 0.0,
    ) -> Loss:
        """The loss of one batch: `loss` of what `draw` drew.

        Args:
            denoiser: The network, called as `denoiser(x_t, t, c)`, with `z=` when there are explicit latents; a torch
                module when a latent reads it.
            x_0: Clean data, [b, ...], or a mapping of fields.
            noise: One random stream per sample.
            z: The value of each latent, or a function that returns them and is called only when they are needed.
            c: The condition, passed through.
            mask: True where an element of x_0 exists, [b, n]; for fields, one for all or a mapping. Latents take the
                first of a mapping.
            weight: Weight of each sample in the total, [b] (for example its number of tokens); None counts all alike.
            n: Samples seen so far, for the curriculum.

        Raises:
            InputError: If a latent that is needed has no value, or the noise is for another number of samples.
        """
        return self.loss(denoiser, self.draw(x_0, noise, z=z, c=c, mask=mask, weight=weight, n=n))

    def draw(
        self,
        x_0: State,
        noise: NoiseSource,
        *,
        z: Representations | Callable[[], Representations] | None = None,
        c: Any = None,
        mask: State = None,
        weight: Float[Tensor, "b"] | None = None,
        n: float = 0.0,
    ) -> Question:
        """Draws every random number of a step and corrupts the batch; arguments and errors as in `forward`."""
        if len(noise) != batch_size(x_0):
            raise InputError(
                f"noise for {len(noise)} samples, a batch of {batch_size(x_0)}; give one stream per sample"
            )
        device = any_tensor(x_0).device
        a, b = self.curriculum.a(n), self.curriculum.b(n)
        if self.condition_dropout is not None:
            dropped = noise.uniform(()) < self.condition_dropout.probability
            c = self.condition_dropout.drop(c, dropped.to(device))
        active = [latent for latent in self.latents if a * latent.weight != 0.0]
        values = self._values(active, z, device)
        t = self.process.sample_time(noise).to(device)
        corrupted = self.process.corrupt(x_0, t, noise, mask)
        told = None
        if self.explicit:
            times = self.coupling.times([latent.reveal for latent in self.latents], noise)
            told = self._shown(self.explicit, values, revealed(times, t.cpu()), mask)
        asked = [self._ask(latent, x_0, t, noise, mask, values) for latent in active]
        return Question(
            corrupted=corrupted,
            c=c,
            told=told,
            asked=tuple(asked),
            weight=weight,
            a=torch.tensor(a, device=device),
            b=torch.tensor(b, device=device),
            regularise=a != 0.0,
        )

    def loss(self, denoiser: Callable[..., State], question: Question) -> Loss:
        """The loss of a question: tensors in, tensors out, nothing drawn; one graph under `torch.compile`.

        Under autocast network and projectors compute in low precision; hidden states, heads and losses are in float32.

        Args:
            denoiser: The network.
            question: What `draw` drew.
        """
        at, weight = question.corrupted, question.weight
        regularisers = self.regularisers if question.regularise else ()
        shared = [asked.latent for asked in question.asked if asked.corrupted is None]
        taps = [tap for regulariser in regularisers for tap in regulariser.taps]
        second = self.head_pass == "null" and question.told is not None
        first = () if second else shared
        prediction, states = self._run(denoiser, first, taps, at.x_t, at.t, question.c, question.told)
        hidden = self._run(denoiser, shared, (), at.x_t, at.t, question.c)[1] if second and shared else states
        kind = at.t.device.type
        with torch.autocast(kind, enabled=False):
            denoising = self.process.loss(prediction, at)
        total = question.b * _mean(denoising, weight)
        alignment: dict[str, Tensor] = {}
        for asked in question.asked:
            latent, own = asked.latent, asked.corrupted
            hidden_here = hidden if own is None else self._run(denoiser, [latent], (), own.x_t, own.t, question.c)[1]
            state = None if latent.tap is None else hidden_here[latent.tap]
            energy = self.readout(latent.name).energy(state, asked.value, _first(at.mask), asked.given, asked.drawn)
            alignment[latent.name] = energy * asked.weight.to(energy)
            total = total + question.a * latent.weight * _mean(alignment[latent.name], weight)
        regularisation: dict[str, Tensor] = {}
        for regulariser in regularisers:
            with torch.autocast(kind, enabled=False):
                energy = regulariser.energy(states, prediction, at)
            regularisation[regulariser.name] = energy * regulariser.reveal.density(at.t).to(energy)
            total = total + question.a * regulariser.weight * _mean(regularisation[regulariser.name], weight)
        return Loss(total, denoising, alignment, regularisation, at.t)

    def hidden(
        self,
        denoiser: Callable[..., State],
        names: Sequence[str],
        x_t: State,
        t: Float[Tensor, "b"],
        c: Any = None,
        z: Mapping[str, Revealed] | None = None,
    ) -> dict[str, Tensor | None]:
        """The states that the named latents' heads read at x_t, by name; None for a head without a tap.

        Args:
            denoiser: The network; it is not run when no head has a tap.
            names: Names of latents.
            x_t: Corrupted data.
            t: Times, [b].
            c: The condition.
            z: Latents shown to the denoiser, none of them among `names`; None shows none.
        """
        latents = [self.latent(name) for name in names]
        states: dict[str, Tensor] = {}
        if any(latent.tap is not None for latent in latents):
            states = self._run(denoiser, latents, (), x_t, t, c, z)[1]
        return {latent.name: None if latent.tap is None else states[latent.tap] for latent in latents}

    def _values(self, active: Sequence[Latent], z: Any, device: torch.device) -> dict[str, Representation]:
        given = {name for latent in active for name in latent.given}
        needed = [
            latent for latent in self.latents if latent in active or latent in self.explicit or latent.name in given
        ]
        if not needed:
            return {}
        values: Representations = z() if callable(z) else z or {}
        missing = [latent.name for latent in needed if latent.name not in values]
        if missing:
            raise InputError(f"no representation for latent {', '.join(missing)}; give one, or a weight of 0")
        moved = {}
        for latent in needed:
            value = values[latent.name]
            mask = None if value.mask is None else value.mask.to(device)
            moved[latent.name] = Representation(value.z.detach().to(device), mask)
        return moved

    def _shown(
        self, latents: Sequence[Latent], values: Mapping[str, Representation], shown: Tensor, mask: State
    ) -> dict[str, Revealed]:
        index = {latent.name: column for column, latent in enumerate(self.latents)}
        told = {}
        for latent in latents:
            value = values[latent.name]
            known = _first(mask) if value.mask is None and latent.level != "global" else value.mask
            told[latent.name] = Revealed(value.z, known, shown[:, index[latent.name]].to(value.z.device))
        return told

    def _ask(
        self,
        latent: Latent,
        x_0: State,
        t: Float[Tensor, "b"],
        noise: NoiseSource,
        mask: State,
        values: Mapping[str, Representation],
    ) -> Asked:
        """Draws when a latent is asked for, and which others its head sees then."""
        place = self.latents.index(latent)
        reveals = [other.reveal for other in self.latents]
        own = latent.reveal.is_atomic or (bool(latent.given) and isinstance(self.coupling, Sampled))
        tau, times = t, None
        if own and latent.given:
            times = self.coupling.times(reveals, noise)
            tau = times[:, place].to(t)
        elif own:
            tau = latent.reveal.quantile(noise.uniform(())).to(t)
        elif latent.given:
            times = self.coupling.times_given(reveals, place, t.cpu(), noise)
        given: dict[str, Revealed] = {}
        if times is not None:
            earlier = torch.arange(len(reveals)) < place  # of two revealed at once, the first listed comes first
            now = times[:, place : place + 1]
            shown = torch.where(earlier, times >= now, times > now)
            given = self._shown([self.latent(name) for name in latent.given], values, shown, mask)
        value = values[latent.name]
        tau = tau.clamp(self.process.t_min, self.process.t_max)
        return Asked(
            latent=latent,
            value=value,
            weight=torch.ones_like(t) if own else latent.reveal.density(t),
            given=given,
            corrupted=self.process.corrupt(x_0, tau, noise, mask) if own and latent.tap is not None else None,
            drawn=self.readout(latent.name).draw(value, noise),
        )

    def _run(
        self,
        denoiser: Callable[..., State],
        latents: Sequence[Latent],
        taps: Sequence[str],
        x_t: State,
        t: Float[Tensor, "b"],
        c: Any,
        told: Mapping[str, Revealed] | None = None,
    ) -> tuple[State, dict[str, Tensor]]:
        readers: dict[str, list[str]] = {path: [] for path in taps}
        for latent in latents:
            if latent.tap is not None:
                readers.setdefault(latent.tap, []).append(latent.name)
        paths = list(readers)
        arguments = {} if told is None else {"z": told}
        if not paths:
            return full_precision(denoiser(x_t, t, c, **arguments)), {}
        if not isinstance(denoiser, nn.Module):
            raise InputError(
                f"latents are read from a torch module, got a {type(denoiser).__name__}; pass the module itself"
            )
        with Tap(denoiser, paths, blind=readers if told else None) as tap:
            prediction = denoiser(x_t, t, c, **arguments)
        return full_precision(prediction), {path: full_precision(tap[path]) for path in paths}


def _first(mask: State) -> Tensor | None:
    return None if mask is None else any_tensor(mask)


def _mean(values: Float[Tensor, "b"], weight: Float[Tensor, "b"] | None) -> Float[Tensor, ""]:
    if weight is None:
        return values.mean()
    weight = weight.to(values)
    return (values * weight).sum() / weight.sum().clamp(min=torch.finfo(values.dtype).tiny)
