"""What stands beside the pictures in a run: their texts, the field that diffuses with them, z that the network is told.

It is read from caches by the number of the item; `Caches` holds them, `Beside` makes conditions and states of them.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from reed_core.latent import Revealed
from reed_core.state import State
from reed_core.train.arrays import Gathers
from torch import Tensor

from reed_image.data import Prepared, open_prepared
from reed_image.encoders.reader import Tokens
from reed_image.latents import LatentSpec, Plan, open_latents, plan_of
from reed_image.latents.field import SAMPLE, FieldRows
from reed_image.latents.store import Blank, Encoded, Opened
from reed_image.latents.text import TextRows, open_text
from reed_image.model import ImageModel
from reed_image.network import Condition
from reed_image.prompts import Prompts
from reed_image.recipe import Recipe


@dataclass(frozen=True)
class Beside:
    """What stands beside pictures, by the number of the item.

    Attributes:
        text: Their texts, or None.
        second: Their second field, or None.
        told: z that they are told, by name.
    """

    text: TextRows | None = None
    second: FieldRows | None = None
    told: Mapping[str, Gathers] = field(default_factory=dict)

    @property
    def numbered(self) -> bool:
        """Whether the items of a training batch have to be known."""
        return self.text is not None or self.second is not None

    def condition(self, label: Int[Tensor, "b"] | None, items: Sequence[int]) -> Condition | None:
        """Class and text of some items; None if they have neither."""
        if self.text is None:
            return None if label is None else Condition(label)
        found = self.text.gather(items)
        return Condition(label, found.value, found.mask)

    def state(self, x: Float[Tensor, "b c h w"], items: Sequence[int]) -> State:
        """What diffuses: x, or both fields."""
        return x if self.second is None else {"x": x, "z": self.second.gather(items)}

    def revealed(self, items: Sequence[int], device: torch.device) -> dict[str, Revealed]:
        """What a model is told of some items."""
        found = {name: held.gather(items) for name, held in self.told.items()}
        return {
            name: Revealed(value.z.float().to(device), None if value.mask is None else value.mask.to(device))
            for name, value in found.items()
        }


@dataclass(frozen=True)
class Caches:
    """The caches of a recipe, open.

    Attributes:
        latents: Its latents.
        text: Its text, or None.
    """

    latents: Opened
    text: TextRows | None = None


def open_caches(recipe: Recipe, prepared: Prepared, shuffle: int | None = None, blanks: bool = False) -> Caches:
    """Opens what a recipe needs.

    Args:
        recipe: The recipe.
        prepared: The pictures.
        shuffle: Seed of the control in which every picture is taught the z of another one; None: its own.
        blanks: Put ones in the place of what is not there yet.

    Raises:
        InputError: If a cache is missing or of something else.
    """
    root, grid = Path(recipe.cache), recipe.network.of(prepared).grid
    text = None if recipe.text is None else open_text(recipe.text, prepared, root, blanks)
    return Caches(open_latents(recipe.active, prepared, root, grid, shuffle, blanks), text)


def needs_caches(recipe: Recipe) -> bool:
    """Whether what its model is depends on what caches hold."""
    return recipe.text is not None or bool(shown(recipe))


def shown(recipe: Recipe) -> tuple[LatentSpec, ...]:
    """The latents that the network sees, and that it cannot be asked without."""
    return tuple(spec for spec in recipe.active if spec.injection != "implicit")


def plans_of(recipe: Recipe) -> list[tuple[Plan, Prepared]]:
    """Every cache that training a recipe needs, and the pictures it is of.

    Raises:
        InputError: If pictures are missing.
    """
    prepared, root = open_prepared(recipe.data), Path(recipe.cache)
    grid = recipe.network.of(prepared).grid
    texts = () if recipe.text is None else (recipe.text,)
    wanted: list[tuple[Encoded, Prepared]] = [(spec, prepared) for spec in (*recipe.active, *texts)]
    beside: tuple[Encoded, ...] = (*shown(recipe), *texts)
    if recipe.valid is not None and beside:
        held_out = open_prepared(recipe.valid)
        wanted += [(spec, held_out) for spec in beside]
    return [(plan_of(spec, pictures, root, grid), pictures) for spec, pictures in wanted]


def fit_scales(recipe: Recipe, model: ImageModel, values: Mapping[str, Gathers], items: int) -> None:
    """Sets what a model keeps of the scale of z: the field's components, the generators' mean and deviation.

    Args:
        recipe: The recipe.
        model: The model.
        values: z by name.
        items: How many there are.
    """
    if recipe.joint is not None and not isinstance(values[recipe.joint.name], Blank):
        model.projection.fit(values[recipe.joint.name], items)
    count = min(items, SAMPLE)
    for spec in recipe.told:
        found = values[spec.name].gather([place * items // count for place in range(count)])
        flow: Any = model.generators[spec.name]
        flow.fit_scale(found.z.float(), found.mask)


def beside_pictures(recipe: Recipe, values: Mapping[str, Gathers], text: TextRows | None, model: ImageModel) -> Beside:
    """What stands beside the pictures of a run.

    Args:
        recipe: The recipe.
        values: z by name.
        text: Their texts, or None.
        model: The model, whose projection makes the field.
    """
    rows = None
    if recipe.joint is not None:
        own = copy.deepcopy(model.projection).to("cpu")  # batches are made on the CPU, by a thread of their own
        rows = FieldRows(values[recipe.joint.name], own)
    return Beside(text, rows, {spec.name: values[spec.name] for spec in recipe.told})


def prompts_of(text: TextRows, prepared: Prepared, num: int) -> Prompts:
    """Texts of pictures spread evenly over the data, with their classes: what a run draws where it is told no other.

    Args:
        text: The texts.
        prepared: The pictures.
        num: At most so many.
    """
    pictures = prepared.manifest.pictures
    count = min(num, pictures)
    items = [place * pictures // count * prepared.copies for place in range(count)]
    found: Tokens = text.gather(items)
    names = tuple(prepared.names[item // prepared.copies] for item in items)
    return Prompts(names, found, prepared.labels_of(items))
