"""Pictures a second of each sampler, with and without classifier-free guidance, all in one run."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from protein_bench import clock
from reed_image.model import ImageModel, ModelConfig
from reed_image.network import SiTConfig
from reed_image.sample import Request, Sampler, draw

from image_bench.steps import LOW, Precision

SAMPLERS: tuple[Sampler, ...] = ("euler", "heun", "sde")


class Drawing(NamedTuple):
    """What is drawn: by which sampler, with what scale of guidance (1 is none), and seconds, a value for each round."""

    sampler: str
    scale: float
    evaluations: int
    seconds: list[float]


def timed(
    config: SiTConfig,
    batch: int,
    steps: int,
    scale: float,
    rounds: int,
    precision: Precision,
    device: str,
    tick: Callable[[], None],
) -> list[Drawing]:
    """Seconds in which a batch is drawn, to latents.

    Args:
        config: The network.
        batch: Pictures at once.
        steps: Steps of each.
        scale: Scale of guidance, where there is some.
        rounds: Rounds; one more warms up.
        precision: Of the network.
        device: Where.
        tick: Called after each batch.
    """
    torch.manual_seed(0)
    model = ImageModel(ModelConfig(network=config)).to(device).eval()
    seen = [0]
    model.register_forward_pre_hook(lambda *_: seen.__setitem__(0, seen[0] + 1))

    def arm(request: Request) -> Callable[[], None]:
        def once() -> None:
            low = LOW[precision]
            with torch.autocast(device, low, enabled=low is not None):
                for drawn in draw(model, request, batch=batch):
                    drawn.x.sum().item()

        return once

    asked = {
        f"{sampler} {by:g}": Request(batch, steps=steps, sampler=sampler, scale=by)
        for sampler in SAMPLERS
        for by in (1.0, scale)
    }
    evaluations = {}
    for name, request in asked.items():
        seen[0] = 0
        arm(request)()
        evaluations[name] = seen[0]
    found = clock.seconds({name: arm(request) for name, request in asked.items()}, rounds, tick)
    return [Drawing(request.sampler, request.scale, evaluations[name], found[name]) for name, request in asked.items()]
