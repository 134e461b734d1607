"""What is trained: every preset of reed_core, and its controls, on a task. An arm is a network, an objective and z.

A control has the same code, cost and number of parameters as its preset, and a z that says nothing (shuffled: the z of
another sample) or that knows nothing (random: an encoder of the same kind, untrained).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from preset_bench.tasks import PROCESS, WIDTH, Task
from reed_core import presets
from reed_core.generator import Flow
from reed_core.head import Categorical
from reed_core.inject import AdaLN, Injected
from reed_core.latent import Latent, Representation
from reed_core.objective import Objective
from reed_core.process import Interpolant
from torch import Tensor, nn


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        make: The network and the objective, for a task; parameters are drawn here.
        sees: For each latent, which of the task's representations it is.
        shuffled: Whether z is that of another sample.
        plain: Whether the network without z is a model of x alone, whose error and bound can be told.
    """

    make: Callable[[Task], tuple[nn.Module, Objective]]
    sees: dict[str, str] = field(default_factory=dict)
    shuffled: bool = False
    plain: bool = True

    def values(self, task: Task, seed: int, held_out: bool = False) -> dict[str, Tensor]:
        """Z of every sample of a split."""
        seen = task.seen_held_out if held_out else task.seen
        values = {latent: seen[name] for latent, name in self.sees.items()}
        if self.shuffled:
            generator = torch.Generator().manual_seed(2000 + seed)
            values = {name: z[torch.randperm(len(z), generator=generator)] for name, z in values.items()}
        return values


def representations(values: dict[str, Tensor], items: Tensor) -> dict[str, Representation]:
    """Z of some samples, as an objective takes it."""
    return {name: Representation(z[items]) for name, z in values.items()}


def features(task: Task) -> Latent:
    """A cosine latent at the second block."""
    weight = 5.0 if task.level == "global" else 1.5  # the best of 0.2, 0.5, 1.5, 5 on seed 10, which no table uses
    return Latent("features", "blocks.1", WIDTH, 32, level=task.level, weight=weight, hidden=WIDTH, layers=2)  # type: ignore[arg-type]


def coarse(task: Task, tap: str = "blocks.1", weight: float = 0.2) -> Latent:
    """A class, asked of a block."""
    return Latent("coarse", tap, WIDTH, task.classes[0], Categorical(), "global", weight, hidden=WIDTH, layers=2)


def fine(task: Task) -> Latent:
    """The rest: a class, or a vector that a flow generates."""
    if task.classes[1]:
        return Latent("fine", "blocks.1", WIDTH, task.classes[1], Categorical(), "global", 0.2, hidden=WIDTH, layers=2)
    return Latent("fine", "blocks.1", WIDTH, 8, Flow(hidden=128, layers=3), "global", 1.0)


def told(task: Task, latents: list[Latent]) -> Injected:
    """The task's network, told of latents after its second block."""
    adapters = [
        AdaLN(
            latent.name, latent.dim, at="blocks.1", width=WIDTH, num_classes=latent.dim if _is_class(latent) else None
        )
        for latent in latents
    ]
    return Injected(task.network(), adapters)


def _is_class(latent: Latent) -> bool:
    return isinstance(latent.head, Categorical)


def _plain(build: Callable[[Task], Objective]) -> Callable[[Task], tuple[nn.Module, Objective]]:
    return lambda task: (task.network(), build(task))


def _rcg(task: Task) -> tuple[nn.Module, Objective]:
    latent = fine(task) if not task.classes[1] else coarse(task)
    return told(task, [latent]), presets.rcg(PROCESS, latent)


def _rcg_hierarchy(task: Task) -> tuple[nn.Module, Objective]:
    latents = [coarse(task), fine(task)]
    return told(task, latents), presets.rcg_hierarchy(PROCESS, latents)


def _beta_told(task: Task) -> tuple[nn.Module, Objective]:
    from dataclasses import replace

    latent = replace(coarse(task, tap="blocks.0"), injection="explicit")
    return told(task, [latent]), presets.beta(PROCESS, latent, 2.0, 1.0)


def _joint(task: Task) -> tuple[nn.Module, Objective]:
    return task.joint(), presets.joint({"x": PROCESS, "z": Interpolant()})


def _samples(task: Task) -> int:
    return task.steps * task.batch


RCG_SEES = {"mixture": {"coarse": "coarse"}, "digits": {"fine": "fine"}}


def arms(task: str) -> dict[str, Arm]:
    """Every arm of a task, the plain one first."""
    guided = {"features": "features"}
    reed = {"features": "features", "coarse": "coarse"}
    repa = _plain(lambda task: presets.repa(PROCESS, features(task)))
    probe = _plain(lambda task: presets.label_probe(PROCESS, coarse(task)))
    return {
        "none": Arm(_plain(lambda task: presets.none(PROCESS))),
        "repa": Arm(repa, guided),
        "repa, shuffled z": Arm(repa, guided, shuffled=True),
        "repa, random encoder": Arm(repa, {"features": "random"}),
        "haste (half)": Arm(_plain(lambda task: presets.haste(PROCESS, features(task), _samples(task) / 2)), guided),
        "cutoff (0.3, 0.8)": Arm(_plain(lambda task: presets.cutoff(PROCESS, features(task), 0.3, 0.8)), guided),
        "beta (2, 1)": Arm(_plain(lambda task: presets.beta(PROCESS, features(task), 2.0, 1.0)), guided),
        "reed": Arm(
            _plain(
                lambda task: presets.reed(
                    PROCESS,
                    [features(task), coarse(task, "blocks.2")],
                    denoising_warmup=0.05 * _samples(task),
                    alignment_end=_samples(task),
                )
            ),
            reed,
        ),
        "label_probe": Arm(probe, {"coarse": "coarse"}),
        "label_probe, shuffled z": Arm(probe, {"coarse": "coarse"}, shuffled=True),
        "dispersive": Arm(_plain(lambda task: presets.dispersive(PROCESS, "blocks.1"))),
        "layer_sync": Arm(_plain(lambda task: presets.layer_sync(PROCESS, "blocks.1", "blocks.3"))),
        "perceptual": Arm(_plain(lambda task: presets.perceptual(PROCESS, task.perceive))),
        "beta (2, 1), told": Arm(_beta_told, {"coarse": "coarse"}),
        "beta (2, 1), told, shuffled z": Arm(_beta_told, {"coarse": "coarse"}, shuffled=True),
        "rcg": Arm(_rcg, RCG_SEES[task], plain=False),
        "rcg, shuffled z": Arm(_rcg, RCG_SEES[task], shuffled=True, plain=False),
        "rcg_hierarchy": Arm(_rcg_hierarchy, {"coarse": "coarse", "fine": "fine"}, plain=False),
        "joint": Arm(_joint, plain=False),
    }
