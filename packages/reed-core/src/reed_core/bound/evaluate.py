"""The bound of a trained model on data: L_VB^z, term by term, with errors (THEORY Prop. 1, in continuous t).

    L = prior + int_{t_min}^{t_max} E[KL(q || p~_t) - log Z_t] dt + reconstruction - sum_l E_tau log p(z_l | x_tau, z_S)

Curricula, condition dropout, loss weights and regularisers belong to training and are left out. Noise is independent of
the data, even when training coupled the two by optimal transport (THEORY section 7). How each term is drawn is told in
`reed_core.bound.monte_carlo`, what the errors mean in `reed_core.bound.estimate`.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reed_core.bound.estimate import BoundEstimate, LatentSignature, Signature, describe_process
from reed_core.bound.monte_carlo import Terms
from reed_core.errors import InputError
from reed_core.latent import Latent, Representation, Representations
from reed_core.objective import Objective
from reed_core.process.base import BoundedProcess, expand_mask
from reed_core.state import State, any_tensor, batch_size, map_state


@runtime_checkable
class BoundBatch(Protocol):
    """Some samples: what `reed_core.train.data.Batch` holds."""

    @property
    def x_0(self) -> State:
        """Clean data."""

    @property
    def c(self) -> Any:
        """The condition."""

    @property
    def mask(self) -> State:
        """True where an element exists."""

    @property
    def z(self) -> Representations | Callable[[], Representations] | None:
        """Latents."""


def evaluate_bound(
    denoiser: Callable[..., State],
    objective: Objective,
    data: Iterable[BoundBatch],
    *,
    seed: int = 0,
    repeats: int = 4,
    times: int = 4,
    elements: Callable[[BoundBatch], Float[Tensor, "b"]] | None = None,
    progress: Callable[[int], None] | None = None,
    device: torch.device | str | None = None,
) -> BoundEstimate:
    """Evaluates L_VB^z, in nats per sample and per dimension; nothing is trained, and modes are restored.

    Costs repeats * times evaluations of the denoiser (twice as many with one explicit latent), as many again for each
    reveal density that a latent with a tap has, and `repeats` for the reconstruction.

    A continuous z that is a deterministic function of x_0 makes -log q(x_0, z) unbounded below: a bound on it may have
    any value, and only differences at the same, fixed heads mean something (`BoundEstimate.compare`).

    Args:
        denoiser: The network, called as in `Objective`.
        objective: The process, the latents, their readouts and coupling. Latents of weight 0 were never trained: an
            explicit one is then a condition, and the total bounds -log p(x_0 | z); an implicit one is left out.
        data: Batches. A sample is known by its place: the same order and seed give the same draws in any batches.
        seed: Seed of all draws.
        repeats: Independent repeats, at least 2: the errors come from them.
        times: Stratified times within a repeat, at least 1.
        elements: Number of dimensions of each sample of a batch; by default its unmasked numbers or tokens (3(N-1)
            for N atoms whose coordinates have a fixed centre of mass is for the caller to say).
        progress: Called after each batch with the number of samples done.
        device: Where to run; None takes the denoiser's own device. The denoiser and the objective are not moved.

    Raises:
        InputError: If the process has no bound, a latent has no value, there is no data, or a number is out of range.
    """
    if repeats < 2 or times < 1:
        raise InputError(
            f"got {repeats} repeats of {times} times; the errors need 2 repeats or more, of 1 time or more"
        )
    if not isinstance(objective.process, BoundedProcess):
        name = type(objective.process).__name__
        raise InputError(f"{name} has no bound: it lacks some of prior_nats, nats, hybrid_nats, reconstruction_nats")
    place = torch.device(device) if device is not None else _device_of(denoiser)
    terms = Terms(denoiser, objective, objective.process, seed, repeats, times)
    found: list[dict[str, Tensor]] = []
    counts: list[Tensor] = []
    digests: dict[str, Any] = {"": hashlib.sha256(), **{latent.name: hashlib.sha256() for latent in terms.used}}
    done = 0
    with _evaluating(denoiser, objective):
        for batch in data:
            x_0, c, mask = _to(batch.x_0, place), _to(batch.c, place), _to(batch.mask, place)
            z = _values(terms.used, batch.z, place)
            size = batch_size(x_0)
            found.append(terms.of(x_0, c, mask, z, range(done, done + size)))
            counts.append((_elements(x_0, mask) if elements is None else elements(batch)).cpu().double())
            _digest(digests, x_0, mask, z, terms.used)
            done += size
            if progress is not None:
                progress(done)
    if done == 0:
        raise InputError("there is no sample to evaluate; expected at least one batch")
    signature = Signature(
        process=describe_process(objective.process),
        latents=tuple(LatentSignature.of(latent, digests[latent.name].hexdigest()) for latent in terms.used),
        data=digests[""].hexdigest(),
    )
    values = {name: torch.cat([part[name] for part in found]) for name in found[0]}
    return BoundEstimate(values, torch.cat(counts), signature, seed, times, _left_out(objective, terms))


@contextmanager
def _evaluating(*parts: Any) -> Iterator[None]:
    """No gradients and evaluation mode; every module's own mode comes back."""
    modes = {module: module.training for part in parts if isinstance(part, nn.Module) for module in part.modules()}
    try:
        for module in modes:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _left_out(objective: Objective, terms: Terms) -> tuple[str, ...]:
    phrases = [f"regulariser '{regulariser.name}' (training only)" for regulariser in objective.regularisers]
    for latent in objective.latents:
        if latent in terms.scored:
            continue
        role = "is a condition: the total bounds -log p(x_0 | z)" if latent in terms.used else "does not enter"
        phrases.append(f"alignment of '{latent.name}' (weight 0); it {role}")
    if objective.condition_dropout is not None:
        phrases.append("condition dropout: the condition is always shown")
    return tuple(phrases)


def _values(latents: Sequence[Latent], z: Any, device: torch.device) -> dict[str, Representation]:
    values: Representations = {} if not latents else (z() if callable(z) else z or {})
    missing = [latent.name for latent in latents if latent.name not in values]
    if missing:
        raise InputError(f"no representation for latent {', '.join(missing)}; the bound needs the z of every batch")
    return {
        latent.name: Representation(_to(values[latent.name].z, device), _to(values[latent.name].mask, device))
        for latent in latents
    }


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return {name: _to(part, device) for name, part in value.items()}
    return value.to(device) if hasattr(value, "to") else value


def _device_of(denoiser: Any) -> torch.device:
    first = next(denoiser.parameters(), None) if isinstance(denoiser, nn.Module) else None
    return torch.device("cpu") if first is None else first.device


def _fields(x_0: State, mask: State) -> list[tuple[Tensor, Tensor | None]]:
    """The fields of a state with their masks; one mask serves the fields whose leading axes it has."""
    if isinstance(x_0, Mapping) and isinstance(mask, Tensor):
        mask = dict.fromkeys(x_0, mask)
    pairs = map_state(lambda x, kept: (x, kept), x_0, mask)
    return [pairs[name] for name in sorted(pairs)] if isinstance(x_0, Mapping) else [pairs]


def _elements(x_0: State, mask: State) -> Float[Tensor, "b"]:
    """Unmasked numbers or tokens of each sample."""
    total = torch.zeros(batch_size(x_0), dtype=torch.float64)
    for x, kept in _fields(x_0, mask):
        size = torch.ones(x.shape, dtype=torch.bool)
        if kept is not None:
            size = size & expand_mask(kept.cpu(), size)
        total = total + size.reshape(x.shape[0], -1).sum(1)
    return total


def _digest(digests: dict[str, Any], x_0: State, mask: State, z: Representations, latents: Sequence[Latent]) -> None:
    """Adds each sample's own elements to the digests of x_0 and of every z, whatever the padding."""
    parts = [("", *field) for field in _fields(x_0, mask)]
    for latent in latents:
        value, first = z[latent.name], None if mask is None else any_tensor(mask)
        known = first if value.mask is None and latent.level != "global" else value.mask
        parts.append((latent.name, value.z, known))
    parts = [(name, x.detach().cpu(), None if kept is None else kept.cpu()) for name, x, kept in parts]
    for row in range(batch_size(x_0)):
        for name, x, kept in parts:
            own = (x[row] if kept is None else x[row][kept[row]]).contiguous()
            digests[name].update(f"{own.dtype}{own.numel()} ".encode())
            digests[name].update(own.reshape(-1).view(torch.uint8).numpy().tobytes())
