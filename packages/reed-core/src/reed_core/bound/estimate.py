"""What a bound is worth: estimates with their errors, what makes two bounds comparable, and their difference.

Values are a matrix v[i, k]: sample i, independent repeat k of all its random draws. With N samples and K repeats
    mean            m = 1/N sum_i m_i,   m_i = 1/K sum_k v[i, k]
    standard_error  sqrt(sum_i (m_i - m)^2 / (N (N - 1)))            over draws of the data, and of the noise
    draw_error      sqrt(sum_i sum_k (v[i, k] - m_i)^2 / (K (K - 1))) / N      of the noise alone, the data held fixed
Both are unbiased in the square: samples share no random number, nor do repeats. Per dimension, m is divided by the mean
number of elements E, and v by v - m e / E, the usual error of a ratio.

Bounds can be subtracted when they bound the same -log p(x_0, z): the same latents, whose heads have the same, fixed
concentration, under the same process (THEORY section 1). Which reveal density, coupling, injection, tap or network a
model uses does not matter: every one of them bounds the same quantity (THEORY D3).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reed_core.errors import InputError
from reed_core.head import Categorical, Head
from reed_core.latent import Latent

_TRAINING_ONLY = frozenset(
    {"prediction", "time_weight"}
)  # of a process: how it is parametrised and weighed in training
ALIGNMENT = "alignment/"
"""What the name of a latent's term starts with."""
_FOOTNOTE = (
    "A continuous z that is a function of x_0 makes -log q(x_0, z) unbounded below: only differences at fixed heads "
    "mean something."
)


@dataclass(frozen=True)
class Estimate:
    """A mean with its errors.

    Attributes:
        mean: The estimate.
        standard_error: Of the mean over all data like these, noise included; nan for a single sample.
        draw_error: Of the mean over these very samples: what another seed would change.
        count: Number of samples.
    """

    mean: float
    standard_error: float
    draw_error: float
    count: int

    @classmethod
    def of(cls, values: Float[Tensor, "n k"], elements: Float[Tensor, "n"] | None = None) -> "Estimate":
        """The estimate of a matrix of values, one row a sample, one column a repeat.

        Args:
            values: At least one row and two columns.
            elements: Number of elements of each sample: the mean is then per element.
        """
        count, repeats = values.shape
        mean = values.mean().item()
        if elements is not None:
            mean = values.mean(1).sum().item() / elements.sum().item()
            values = (values - mean * elements[:, None]) / elements.mean()
        spread = values.mean(1).std().item() if count > 1 else math.nan
        within = values.var(1).sum().item() / repeats
        return cls(mean, spread / math.sqrt(count), math.sqrt(within) / count, count)

    def scaled(self, factor: float) -> "Estimate":
        """The estimate in other units."""
        size = abs(factor)
        return Estimate(self.mean * factor, self.standard_error * size, self.draw_error * size, self.count)


@dataclass(frozen=True)
class LatentSignature:
    """What a latent adds to the quantity that is bounded.

    Attributes:
        name: Its name.
        dim: Width of z.
        level: Its level.
        head: The head with its kappa or sigma.
        free: Whether the head's concentration is learned.
        continuous: Whether z has a density, not probabilities.
        scored: False when z is only a condition (weight 0): the total then bounds -log p(x_0 | z).
        values: Digest of z over the data.
    """

    name: str
    dim: int
    level: str
    head: str
    free: bool
    continuous: bool
    scored: bool
    values: str = ""

    @classmethod
    def of(cls, latent: Latent, values: str = "") -> "LatentSignature":
        """The signature of a latent."""
        return cls(
            name=latent.name,
            dim=latent.dim,
            level=latent.level,
            head=repr(latent.head),
            free=_is_free(latent.head),
            continuous=not isinstance(latent.head, Categorical),
            scored=latent.weight != 0.0,
            values=values,
        )


@dataclass(frozen=True)
class Signature:
    """What makes two bounds comparable.

    Attributes:
        process: The forward process.
        latents: The latents, by name.
        data: Digest of x_0 over the data, in order.
    """

    process: str
    latents: tuple[LatentSignature, ...]
    data: str

    def check(self, other: "Signature") -> None:
        """Raises InputError, in one line, unless bounds of the two can be subtracted."""
        if self.process != other.process:
            raise InputError(
                f"bounds under {self.process} and {other.process} cannot be compared; evaluate both under one process"
            )
        ours, theirs = ({latent.name: latent for latent in signature.latents} for signature in (self, other))
        if set(ours) != set(theirs):
            raise InputError(
                f"bounds with the latents {_listed(ours)} and {_listed(theirs)} are not of the same quantity, so they "
                "cannot be compared; compare models with the same latents"
            )
        for name, mine in ours.items():
            yours = theirs[name]
            if mine.free or yours.free:
                head = mine.head if mine.free else yours.head
                raise InputError(
                    f"latent '{name}' has a head of free concentration ({head}), so its bound can fall without end and "
                    "cannot be compared; fix kappa or sigma"
                )
            if mine.head != yours.head:
                raise InputError(
                    f"latent '{name}' is scored by {mine.head} and {yours.head}, so the bounds cannot be compared; fix "
                    "one kappa or sigma for both"
                )
            if (mine.dim, mine.level, mine.scored) != (yours.dim, yours.level, yours.scored):
                raise InputError(
                    f"latent '{name}' is {_form(mine)} in one bound and {_form(yours)} in the other, so they cannot be "
                    "compared; compare models with the same latents"
                )
            if self.data == other.data and mine.values != yours.values:
                raise InputError(
                    f"latent '{name}' has other values on the same data, so the bounds cannot be compared; use one "
                    "encoder (and one seed of a random z) for both"
                )


@dataclass(frozen=True)
class Difference:
    """One bound minus another, in nats per sample.

    Attributes:
        nats: The difference.
        per_dim: The same in nats per dimension.
        paired: Whether the samples were the same, so that their own spread cancels.
        common_draws: Whether the random draws were the same, too.
    """

    nats: Estimate
    per_dim: Estimate
    paired: bool
    common_draws: bool

    @property
    def bits_per_dim(self) -> Estimate:
        """The difference in bits per dimension."""
        return self.per_dim.scaled(1.0 / math.log(2.0))

    def __str__(self) -> str:
        how = ("paired samples" if self.paired else "other samples") + (", common draws" if self.common_draws else "")
        errors = f"SE {_number(self.nats.standard_error)}, of the draws {_number(self.nats.draw_error)}"
        bits = f"{_number(self.bits_per_dim.mean)} (SE {_number(self.bits_per_dim.standard_error)}) bits per dimension"
        return f"{_number(self.nats.mean)} ({errors}) nats per sample, {bits}; {how}"


@dataclass(frozen=True, eq=False)
class BoundEstimate:
    """L_VB^z of a model on data (THEORY Prop. 1). `print` shows a table.

    Attributes:
        values: Every term, [samples, repeats], in nats: "prior", "denoising", "log_normaliser", "reconstruction" and
            "alignment/NAME". `log_normaliser` is log Z <= 0 and is subtracted; it is missing when several explicit
            latents were evaluated by one drawn set (THEORY D14), where "denoising" is KL(q || p~) - log Z.
        elements: Number of dimensions of each sample.
        signature: What makes it comparable.
        seed: Seed of all draws.
        times: Times per repeat and sample.
        left_out: What the training loss had and the bound has not, one phrase each.
    """

    values: Mapping[str, Float[Tensor, "n k"]]
    elements: Float[Tensor, "n"]
    signature: Signature
    seed: int
    times: int
    left_out: tuple[str, ...] = ()

    @property
    def totals(self) -> Float[Tensor, "n k"]:
        """The bound of each sample and repeat."""
        parts = [-value if name == "log_normaliser" else value for name, value in self.values.items()]
        return torch.stack(parts).sum(0)

    @property
    def terms(self) -> dict[str, Estimate]:
        """Every term, in nats per sample."""
        return {name: Estimate.of(value) for name, value in self.values.items()}

    @property
    def total(self) -> Estimate:
        """The bound, in nats per sample."""
        return Estimate.of(self.totals)

    @property
    def nats_per_dim(self) -> Estimate:
        """The bound over the number of dimensions of x_0 (z adds nats, but no dimensions)."""
        return Estimate.of(self.totals, self.elements)

    @property
    def bits_per_dim(self) -> Estimate:
        """`nats_per_dim` in bits."""
        return self.nats_per_dim.scaled(1.0 / math.log(2.0))

    def compare(self, other: "BoundEstimate") -> Difference:
        """This bound minus another: negative when this model is the better one.

        Paired when both saw the same samples in the same order, with common random numbers when seed, repeats and times
        agree, too; the errors are those of the difference.

        Raises:
            InputError: If the two do not bound the same quantity.
        """
        self.signature.check(other.signature)
        mine, yours = self.totals, other.totals
        paired = self.signature.data == other.signature.data and torch.equal(self.elements, other.elements)
        common = paired and (self.seed, self.times, mine.shape) == (other.seed, other.times, yours.shape)
        if common:
            change = mine - yours
            return Difference(Estimate.of(change), Estimate.of(change, self.elements), paired, common)
        nats = _apart(self.total, other.total)
        per_dim = _apart(self.nats_per_dim, other.nats_per_dim)
        if paired:
            change = (mine.mean(1) - yours.mean(1))[:, None].expand(-1, 2)
            nats = _with_error(nats, Estimate.of(change).standard_error)
            per_dim = _with_error(per_dim, Estimate.of(change, self.elements).standard_error)
        return Difference(nats, per_dim, paired, common)

    def table(self) -> str:
        """The terms, the total and what they mean, as text."""
        rows = [("", "nats/sample", "SE", "SE of draws")]
        for name, estimate in self.terms.items():
            if name == "log_normaliser":
                rows.append(_row("- log Z", estimate.scaled(-1.0)))
            elif name == "denoising" and "log_normaliser" not in self.values:
                rows.append(_row("denoising - log Z", estimate))
            else:
                rows.append(_row(name.replace(ALIGNMENT, "alignment of "), estimate))
        rows.append(_row("total", self.total))
        rows.append(_row("total, nats/dim", self.nats_per_dim))
        rows.append(_row("total, bits/dim", self.bits_per_dim))
        width = max(len(row[0]) for row in rows)
        lines = [f"{row[0]:<{width}}  {row[1]:>12}  {row[2]:>10}  {row[3]:>11}" for row in rows]
        repeats = self.totals.shape[1]
        lines.append(
            f"{len(self.elements)} samples, {repeats} independent repeats of {self.times} stratified times, seed "
            f"{self.seed}; {self.signature.process}"
        )
        lines += [f"latent {latent.name}: {latent.head}" for latent in self.signature.latents]
        lines += [f"left out: {phrase}" for phrase in self.left_out]
        if any(latent.continuous and latent.scored for latent in self.signature.latents):
            lines.append(_FOOTNOTE)
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()


def describe_process(process: Any) -> str:
    """A process as text, without what only training asks of it (which quantity is predicted, how times weigh)."""
    if isinstance(process, Mapping):
        return "{" + ", ".join(f"{key}: {describe_process(value)}" for key, value in sorted(process.items())) + "}"
    if not is_dataclass(process):
        return repr(process)
    inside = [
        f"{entry.name}={describe_process(getattr(process, entry.name))}"
        for entry in fields(process)
        if entry.name not in _TRAINING_ONLY
    ]
    return f"{type(process).__name__}({', '.join(inside)})"


def _is_free(head: Any) -> bool:
    """Whether a head learns its own concentration: it has parameters, or is a generator rather than a `Head`."""
    if not isinstance(head, Head) or (isinstance(head, nn.Module) and any(True for _ in head.parameters())):
        return True
    return any(isinstance(value, Tensor) for value in getattr(head, "__dict__", {}).values())


def _apart(mine: Estimate, yours: Estimate) -> Estimate:
    return Estimate(
        mine.mean - yours.mean,
        math.hypot(mine.standard_error, yours.standard_error),
        math.hypot(mine.draw_error, yours.draw_error),
        min(mine.count, yours.count),
    )


def _with_error(estimate: Estimate, standard_error: float) -> Estimate:
    return Estimate(estimate.mean, standard_error, estimate.draw_error, estimate.count)


def _row(label: str, estimate: Estimate) -> tuple[str, str, str, str]:
    return label, _number(estimate.mean), _number(estimate.standard_error), _number(estimate.draw_error)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value + 0.0:.4f}"  # -0 is 0


def _form(latent: LatentSignature) -> str:
    return f"{latent.level} of width {latent.dim}, {'scored' if latent.scored else 'only a condition'}"


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "(none)"
