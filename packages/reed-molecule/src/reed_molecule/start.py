"""Where a run starts: a model of the training set, with random weights or those of another model.

Of another model's weights, those of equal name and shape are taken. What belongs to an element or a charge (its row in
an embedding and in the last layer, its column where a guess is read) goes by the element or charge, so that weights of
a smaller vocabulary serve for a larger one; what they do not know starts at random. Coordinates keep the scale of the
weights, because the network has learned distances in its units; so do properties, whose embeddings go by their names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from reed_core.errors import InputError
from reed_core.hub import from_pretrained
from reed_core.train.initial import Initial, settings_that_differ, take_over
from torch import Tensor

from reed_molecule.condition import Property
from reed_molecule.dataset import MoleculeSet
from reed_molecule.generate import weights_folder
from reed_molecule.model import ModelConfig, MoleculeModel, new_config
from reed_molecule.recipe import Recipe
from reed_molecule.splits import Split

_BY_ELEMENT = ("network.types.weight", "network.say_type.weight", "network.say_type.bias")
_BY_CHARGE = ("network.charges.weight", "network.say_charge.weight", "network.say_charge.bias")
_GUESS = "network.guess.node.weight"
_UNKNOWN, _VALUES = "network.told.unknown", "network.told.values."


@dataclass(frozen=True)
class Start:
    """A model before its first step.

    Attributes:
        model: The model.
        initial: What was taken over from other weights; None without.
        differ: Settings of the network that are others than those of the weights.
        elements: Elements of the data that the weights do not know.
        charges: Formal charges of the data that the weights do not know.
        molecules: Molecules of each split.
    """

    model: MoleculeModel
    initial: Initial | None = None
    differ: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()
    charges: tuple[int, ...] = ()
    molecules: Mapping[Split, int] | None = None


def config_of(recipe: Recipe, known: MoleculeSet) -> ModelConfig:
    """The configuration of the model that a recipe trains on some molecules.

    Raises:
        InputError: If the weights to start from cannot be read, or the molecules lack a property.
    """
    other = None if recipe.init is None else from_pretrained(MoleculeModel, weights_folder(recipe.init)).config
    scale = recipe.scale or (known.spread() if other is None else other.scale)
    learned = {} if other is None else {(one.name, one.unit): one for one in other.conditions}
    return new_config(
        known.vocabulary,
        scale,
        known.sizes.tolist(),
        recipe.network.model_copy(update={"parts": recipe.parts > 0}),
        recipe.discrete,
        [_in_units_of(known.property_of(name), learned) for name in recipe.conditions],
        recipe.alignment,
    )


def started(recipe: Recipe, config: ModelConfig) -> Start:
    """The model of a configuration, as a recipe says: random, or from other weights.

    Raises:
        InputError: If the weights cannot be read, or none of them fits.
    """
    torch.manual_seed(recipe.train.seed)
    model = MoleculeModel(config)
    if recipe.init is None:
        return Start(model)
    other = from_pretrained(MoleculeModel, weights_folder(recipe.init))
    own, given = model.state_dict(), other.state_dict()
    fitted = dict(given)
    types = _places(other.config.elements, config.elements)
    charges = _places(other.config.formal_charges, config.formal_charges)
    for name in (name for name in (*_BY_ELEMENT, *_BY_CHARGE) if given[name].shape[1:] == own[name].shape[1:]):
        places = types if name in _BY_ELEMENT else charges
        fitted[name] = _rows(own[name], given[name], places, last="say" not in name)
    if _GUESS in own and _GUESS in given and own[_GUESS].shape[0] == given[_GUESS].shape[0]:
        after = len(other.config.elements), len(config.elements)
        columns = [*types, *((there + after[0], here + after[1]) for there, here in charges)]
        fitted[_GUESS] = _rows(own[_GUESS].T, given[_GUESS].T, columns, last=False).T.contiguous()
    told = _places([one.name for one in other.config.conditions], [one.name for one in config.conditions])
    fitted = {name: value for name, value in fitted.items() if not name.startswith((_UNKNOWN, _VALUES))}
    if told and own[_UNKNOWN].shape[1] == given[_UNKNOWN].shape[1]:
        fitted[_UNKNOWN] = _rows(own[_UNKNOWN], given[_UNKNOWN], told, last=False)
        for there, here in told:
            old, new = f"{_VALUES}{there}.", f"{_VALUES}{here}."
            fitted |= {new + name.removeprefix(old): given[name] for name in given if name.startswith(old)}
    initial = take_over(model, fitted)
    blocks = {name: value.numel() for name, value in own.items() if name.startswith("network.blocks")}
    if 2 * sum(blocks.get(name, 0) for name in initial.taken) < sum(blocks.values()):
        raise InputError(
            f"most blocks of {recipe.init} do not fit this network; give `network` the sizes of the weights, "
            f"{other.config.network.model_dump()}"
        )
    return Start(
        model,
        initial,
        differ=tuple(settings_that_differ(other.config.network, config.network)),
        elements=tuple(one for one in config.elements if one not in other.config.elements),
        charges=tuple(one for one in config.formal_charges if one not in other.config.formal_charges),
    )


def start_of(recipe: Recipe) -> Start:
    """The start of a run on the data that its recipe names.

    Raises:
        InputError: If the data or the weights cannot be read.
    """
    known, held_out = (MoleculeSet.read(recipe.data, split) for split in ("train", "valid"))
    begin = started(recipe, config_of(recipe, known))
    used = _used(known)
    return Start(
        begin.model,
        begin.initial,
        begin.differ,
        tuple(one for one in begin.elements if one in used[0]),
        tuple(one for one in begin.charges if one in used[1]),
        {"train": len(known), "valid": len(held_out)},
    )


def describe(recipe: Recipe, begin: Start) -> list[str]:
    """What a run will do, in lines for a person."""
    config, counts = begin.model.config, begin.molecules or {}
    weights = sum(value.numel() for value in begin.model.parameters())
    lines = [
        f"{recipe.data}: {', '.join(f'{count} molecules to {split}' for split, count in counts.items())}".replace(
            "to valid", "held out"
        ),
        f"{weights} weights; elements {' '.join(config.elements)}; 1 unit is {config.scale:.4f} angstrom; "
        f"{recipe.train.samples} molecules to be seen",
    ]
    lines += [
        f"told {one.name}: {one.low:g} to {one.high:g} {one.unit}".rstrip()
        + f", mean {one.mean:g}, spread {one.spread:g}"
        for one in config.conditions
    ]
    if begin.initial is not None:
        unknown = [*begin.elements, *(f"charge {charge:+d}" for charge in begin.charges)]
        lines += begin.initial.lines(str(recipe.init), begin.differ, unknown)
    return lines


def _in_units_of(property_: Property, learned: Mapping[tuple[str, str], Property]) -> Property:
    """A property with the mean and spread that weights have learned it with, if they have."""
    before = learned.get((property_.name, property_.unit))
    return property_ if before is None else property_.model_copy(update={"mean": before.mean, "spread": before.spread})


def _places(there: Sequence[object], here: Sequence[object]) -> list[tuple[int, int]]:
    """Places of what both have, in the other and in this."""
    return [(there.index(one), place) for place, one in enumerate(here) if one in there]


def _rows(own: Tensor, given: Tensor, places: Sequence[tuple[int, int]], last: bool) -> Tensor:
    """Own rows with those replaced that are given; the last row (the mask token) goes to the last, if asked."""
    out = own.clone()
    for there, here in places:
        out[here] = given[there]
    if last:
        out[-1] = given[-1]
    return out


def _used(known: MoleculeSet) -> tuple[set[str], set[int]]:
    """Elements and charges that occur."""
    stored, vocabulary = known.stored, known.vocabulary
    numbers = {int(number) for number in set(stored.numbers.tolist())}
    return {vocabulary.symbols[vocabulary.type_of(number)] for number in numbers}, set(stored.charges.tolist())
