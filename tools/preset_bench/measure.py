"""Training an arm and measuring it: learning curve, bound, samples."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from preset_bench.arms import Arm, arms, representations
from preset_bench.tasks import PROCESS, TASKS, Rings, Task
from reed_core.bound.evaluate import evaluate_bound
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.sample.ancestral import ancestral
from reed_core.sample.latents import ReadoutSource
from reed_core.sample.reveal_ancestral import reveal_ancestral
from reed_core.train.data import Batch
from reed_core.train.ema import Ema
from torch import Tensor, nn

MARKS, SAMPLES, SAMPLER_STEPS, BOUNDED = 20, 1024, 64, 256


@dataclass(frozen=True)
class Result:
    """What one run gave.

    Attributes:
        task: The task.
        arm: The arm.
        seed: The seed.
        steps: Training steps at which `error` was measured.
        error: Quality of the network that is told nothing; empty when it is no model of x alone.
        bound_x: Bound on -log p(x) of that network, nats a sample, and its standard error; None likewise.
        bound_joint: Bound on -log p(x, z) of the arm's own latents, and its standard error; None without latents.
        distance: Energy distance of samples from held-out data.
        strays: Share of samples away from every component (mixture), else None.
        seconds: Time of training.
    """

    task: str
    arm: str
    seed: int
    steps: list[int]
    error: list[float]
    bound_x: tuple[float, float] | None
    bound_joint: tuple[float, float] | None
    distance: float
    strays: float | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def run_arm(task_name: str, arm_name: str, seed: int, scale: float = 1.0) -> Result:
    """Trains and measures; the seed decides data (mixture), weights, order, times and noise, the same for every arm.

    Args:
        task_name: A key of TASKS.
        arm_name: A key of `arms(task_name)`.
        seed: The seed.
        scale: Share of the task's steps to take.
    """
    torch.set_num_threads(1)
    task, arm = TASKS[task_name](seed), arms(task_name)[arm_name]
    torch.manual_seed(seed)
    network, objective = arm.make(task)
    values = arm.values(task, seed)
    since = time.perf_counter()
    steps, errors, shadow = train(task, arm, network, objective, values, seed, scale)
    seconds = time.perf_counter() - since
    shadow.swap()
    network.eval()
    held_out = arm.values(task, seed, held_out=True)
    samples = draw(task, network, objective, seed)
    clean = task.held_out[:SAMPLES]
    return Result(
        task=task_name,
        arm=arm_name,
        seed=seed,
        steps=steps,
        error=errors,
        bound_x=_bound(network, Objective(PROCESS), task.held_out, {}) if arm.plain else None,
        bound_joint=_joint_bound(task, network, objective, held_out),
        distance=energy_distance(samples.flatten(1), clean.flatten(1)),
        strays=_strays(samples) if task_name == "mixture" else None,
        seconds=seconds,
    )


def train(
    task: Task, arm: Arm, network: nn.Module, objective: Objective, values: dict[str, Tensor], seed: int, scale: float
) -> tuple[list[int], list[float], Ema]:
    """Adam at a constant rate; the averaged weights are measured at equal distances."""
    objective.fit_scale(representations(values, torch.arange(len(task.train))))
    parameters = [*network.parameters(), *objective.parameters()]
    optimizer = torch.optim.AdamW([p for p in parameters if p.requires_grad], lr=task.rate, weight_decay=0.0)
    shadow = Ema(network, 0.99)
    order = torch.Generator().manual_seed(3000 + seed)
    total = max(MARKS, round(task.steps * scale))
    marks = {round(total * (k + 1) / MARKS) for k in range(MARKS)}
    steps, errors = [], []
    for step in range(1, total + 1):
        items = torch.randint(len(task.train), (task.batch,), generator=order)
        seen = task.batch * (step - 1)
        x_0: Any = task.train[items]
        if "z" in getattr(objective.process, "fields", {}):
            x_0 = {"x": x_0, "z": task.seen["code"][items]}
        noise = NoiseSource(seed, range(seen, seen + task.batch))
        loss = objective(network, x_0, noise, z=representations(values, items), n=float(seen))
        optimizer.zero_grad()
        loss.total.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        shadow.update(step)
        if step in marks and arm.plain:
            shadow.swap()
            network.eval()
            with torch.no_grad():
                steps.append(step)
                errors.append(task.quality(network))
            network.train()
            shadow.swap()
    return steps, errors, shadow


@torch.no_grad()
def draw(task: Task, network: nn.Module, objective: Objective, seed: int) -> Tensor:
    """Samples by the sampler that is exact for the arm, all with the same number of steps."""
    noise = NoiseSource(4000 + seed, range(SAMPLES))
    like: Any = torch.zeros(SAMPLES, *task.train.shape[1:])
    if "z" in getattr(objective.process, "fields", {}):
        like = {"x": like, "z": torch.zeros(SAMPLES, task.seen["code"].shape[1])}
    start = objective.process.prior(like, noise)
    if objective.explicit:
        source = ReadoutSource(objective, network)
        drawn = reveal_ancestral(
            objective.process,
            network,
            source,
            objective.latents,
            start,
            SAMPLER_STEPS,
            noise,
            coupling=objective.coupling,
        )
        return drawn.x
    samples = ancestral(objective.process, network, start, SAMPLER_STEPS, noise)
    return samples["x"] if isinstance(samples, dict) else samples


def energy_distance(a: Tensor, b: Tensor) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'| >= 0, 0 for equal distributions; unbiased, so it may be slightly negative."""

    def within(x: Tensor) -> float:
        return float(torch.cdist(x, x).sum() / (len(x) * (len(x) - 1)))

    return 2.0 * float(torch.cdist(a, b).mean()) - within(a) - within(b)


def _strays(samples: Tensor) -> float:
    rings = Rings()
    return float((torch.cdist(samples, rings.centres).amin(1) > 3 * rings.WIDTH).float().mean())


def _bound(network: nn.Module, objective: Objective, x: Tensor, values: dict[str, Tensor]) -> tuple[float, float]:
    def batches() -> Iterator[Batch]:
        for start in range(0, min(BOUNDED, len(x)), 64):
            items = torch.arange(start, min(start + 64, len(x), BOUNDED))
            yield Batch(x[items], None, None, representations(values, items))

    total = evaluate_bound(network, objective, batches(), seed=1, repeats=4, times=4).total
    return total.mean, total.standard_error


def _joint_bound(
    task: Task, network: nn.Module, objective: Objective, values: dict[str, Tensor]
) -> tuple[float, float] | None:
    return _bound(network, objective, task.held_out, values) if objective.latents else None
