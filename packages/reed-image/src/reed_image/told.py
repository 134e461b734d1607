"""Latents that a model is told: adapters that let z in, and generators that draw it (explicit injection, THEORY D14).

    training    z of the picture scales and shifts the output of a module; a flow learns p(z | h), h the mean hidden
                state of the network at t = 1, where h knows class and text alone (A = 1: THEORY D10, D13)
    sampling    z ~ p(z | h), then x ~ p(x | z) with z shown at every step: generation in two stages (RCG)
Of several such latents each generator sees those before it. All of it is in the weights of the model.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from reed_core.errors import InputError
from reed_core.generator import Flow, LatentFlow
from reed_core.inject import AdaLN, Injected
from reed_core.latent import Latent, Representation, Revealed
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Process
from reed_core.reveal import PointMass
from reed_core.sample.batch import at_time
from reed_core.state import State
from torch import Tensor, nn

from reed_image.network import SiT, SiTConfig


class ToldSpec(BaseModel):
    """A latent that a model is told.

    Attributes:
        name: Its name.
        dim: Width of z.
        into: The module whose output it scales and shifts.
        tap: What its generator reads, at t = 1; nothing in a network that is told neither class nor text.
        hidden: Width of the generator.
        layers: Blocks of the generator.
        weight: Weight of the generator's loss.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    dim: int = Field(ge=1)
    into: str
    tap: str
    hidden: int = Field(ge=1)
    layers: int = Field(ge=1)
    weight: float = 0.5


def told_latents(specs: Sequence[ToldSpec], network: SiTConfig) -> list[Latent]:
    """The latents as an objective takes them.

    Args:
        specs: The latents, in the order in which they are drawn.
        network: The network that is told.
    """
    conditional = bool(network.classes or network.text_dim)
    return [
        Latent(
            spec.name,
            spec.tap if conditional else None,
            network.width if conditional else 0,
            spec.dim,
            Flow(spec.hidden, spec.layers),
            "global",
            spec.weight,
            PointMass(1.0),
            injection="explicit",
            given=tuple(other.name for other in specs[:place]),
        )
        for place, spec in enumerate(specs)
    ]


def injected(network: SiT, specs: Sequence[ToldSpec]) -> Injected:
    """The network with an adapter for each latent.

    Raises:
        InputError: If a latent enters where there is no module.
    """
    return Injected(network, [AdaLN(spec.name, spec.dim, spec.into, network.config.width) for spec in specs])


def generators(specs: Sequence[ToldSpec], network: SiTConfig) -> nn.ModuleDict:
    """A generator for each latent, by name."""
    made = nn.ModuleDict()
    for spec, latent in zip(specs, told_latents(specs, network), strict=True):
        given = latent.tap_dim + sum(other.dim + 1 for other in specs if other.name in latent.given)
        made[spec.name] = LatentFlow(spec.dim, given, spec.hidden, spec.layers)
    return made


def share(objective: Objective, made: nn.ModuleDict) -> Objective:
    """Lets the objective train the generators of a model, in place of ones of its own; returns it."""
    for name, flow in made.items():
        readout: Any = objective.readout(name)
        readout.flow = flow
    return objective


@torch.no_grad()
def draw_told(
    model: Any, x: State, c: Any, noise: NoiseSource, given: Mapping[str, Float[Tensor, "b d"]]
) -> dict[str, Representation]:
    """Z of a batch: what is given, and draws of the model's own generators for the others.

    Args:
        model: An `ImageModel`.
        x: Noise, at t = 1.
        c: The condition.
        noise: One stream per sample.
        given: z by name.

    Raises:
        InputError: If the model is not told such a latent, or z has another width.
    """
    specs = model.config.told
    check_given(specs, given)
    latents = told_latents(specs, model.config.network)
    process: Process = model.process
    objective = share(Objective(process, latents), model.generators)
    t, told = at_time(x, process.t_max), dict[str, Revealed]()
    # As in training, the states that are read have seen no z.
    states = objective.hidden(model, [latent.name for latent in latents if latent.name not in given], x, t, c)
    for latent in latents:
        if latent.name in given:
            z = given[latent.name].to(t.device)
        else:
            z = objective.readout(latent.name).sample(states[latent.name], noise, None, told)
        told[latent.name] = Revealed(z)
    return {name: Representation(value.z) for name, value in told.items()}


def check_given(specs: Sequence[ToldSpec], given: Mapping[str, Float[Tensor, "_ d"]]) -> None:
    """Checks values of latents against those that a model is told.

    Raises:
        InputError: If there is no such latent, or its width is another.
    """
    widths = {spec.name: spec.dim for spec in specs}
    for name, z in given.items():
        if name not in widths:
            raise InputError(f"the model is told no latent '{name}'; it is told {', '.join(widths) or 'none'}")
        if z.shape[-1] != widths[name]:
            raise InputError(f"z of '{name}' has the width {z.shape[-1]}, the model is told {widths[name]}")
