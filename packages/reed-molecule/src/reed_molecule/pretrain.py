"""Pretraining of our encoders on the training split: what `reed-molecule pretrain` runs.

A conformer is disturbed a little and the encoder says what it was, by two processes of `reed_core` on one clock that
stops early, t uniform on (0, depth):
    coordinates   x_t = cos(pi t / 2) P x_0 + sin(pi t / 2) P eps, angstrom; the encoder moves each atom back, and the
                  loss is |x_0_hat - x_0|^2 / SPREAD^2 per dimension (denoising of coordinates, arXiv 2206.00133)
    elements      each atom is hidden with probability t; the loss is the cross-entropy of the hidden ones, over t
                  (attribute masking, arXiv 1905.12265)
The encoder is not told t: later it reads clean molecules. `e3nn` learns both, `bond_graph` the elements alone, given
bonds and charges. Held-out molecules are only measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from reed_core.hub import save_pretrained
from reed_core.noise import NoiseSource, mix_seed
from reed_core.objective import Objective
from reed_core.process import Masked, Product
from reed_core.train import Batch, Trainer, parallel
from reed_core.train.claim import claim_folder
from reed_core.train.config import TrainConfig
from torch import Tensor, nn

from reed_molecule.condition import Condition
from reed_molecule.dataset import MoleculeSet, TrainingData
from reed_molecule.encoders import BondGraphConfig, BondGraphEncoder, EquivariantConfig, EquivariantEncoder
from reed_molecule.encoders.bond_graph import BondGraphCondition
from reed_molecule.process import Centred
from reed_molecule.vocabulary import Vocabulary

Kind = Literal["e3nn", "bond_graph"]
SPREAD = 0.1  # angstrom: the error of the coordinates that weighs as much as one nat per element
VALIDATION_BATCHES = 16
_VALIDATION = 0x70726574


class PretrainRecipe(BaseModel):
    """Everything that makes a pretraining run.

    Attributes:
        kind: Which encoder.
        data: A prepared file; its split `train` is trained on, its split `valid` only measured.
        batch_pairs: Largest b n^2 of a batch of b molecules of up to n atoms.
        depth: The largest t: the noise reaches sin(pi depth / 2) angstrom, and hides a share of `depth` of the atoms.
        width: Width of the encoder.
        layers: Rounds of messages.
        train: The trainer's configuration; samples are molecules.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    data: str
    batch_pairs: int = Field(21_000, ge=1)
    depth: float = Field(0.15, gt=0.001, le=1)
    width: int = Field(64, ge=1)
    layers: int = Field(3, ge=1)
    train: TrainConfig


@dataclass(frozen=True)
class Shallow(Product):
    """A product of processes whose training times stop early.

    Attributes:
        depth: The largest time.
    """

    depth: float = 1.0

    def sample_time(self, noise: NoiseSource) -> Float[Tensor, "b"]:
        """Uniform times on [t_min, depth)."""
        return self.t_min + (self.depth - self.t_min) * noise.times()


@dataclass(frozen=True)
class Disturbed:
    """Training data of an encoder: the fields it is asked about, and what it is told beside them.

    Attributes:
        data: Molecules in angstrom.
        kind: Which encoder.
    """

    data: TrainingData
    kind: Kind

    def plan(self, epoch: int) -> Sequence[Sequence[int]]:
        """That of the data."""
        return self.data.plan(epoch)

    def batch(self, items: Sequence[int], noise: NoiseSource) -> Batch:
        """Coordinates and elements, or elements given the bond graph."""
        batch = self.data.batch(items, noise)
        x_0, mask = dict(batch.x_0), dict(batch.mask)
        chosen: tuple[str, ...] = ("types",)
        if self.kind == "e3nn":
            chosen = ("coords", "types")
            c: object = Condition(mask["types"])
        else:
            c = BondGraphCondition(mask["types"], x_0["charges"], x_0["bonds"])
        return Batch(x_0={name: x_0[name] for name in chosen}, c=c, mask={name: mask[name] for name in chosen})


def pretraining_process(kind: Kind, elements: int, depth: float) -> Shallow:
    """The process that disturbs molecules.

    Args:
        kind: Which encoder.
        elements: How many elements there are; the token after the last hides an atom.
        depth: The largest time.
    """
    hidden = Masked(elements, elements, "elbo")
    if kind == "bond_graph":
        return Shallow({"types": hidden}, depth=depth)
    moved = Centred(path="trig", prediction="x0")
    return Shallow({"coords": moved, "types": hidden}, weights={"coords": SPREAD**-2}, depth=depth)


def new_encoder(recipe: PretrainRecipe, vocabulary: Vocabulary) -> EquivariantEncoder | BondGraphEncoder:
    """The encoder of a recipe, with random weights.

    Raises:
        InputError: If its library is not installed.
    """
    torch.manual_seed(recipe.train.seed)
    symbols = vocabulary.symbols
    if recipe.kind == "e3nn":
        return EquivariantEncoder(EquivariantConfig(elements=symbols, width=recipe.width, layers=recipe.layers))
    sizes = BondGraphConfig(elements=symbols, charges=vocabulary.charges, width=recipe.width, layers=recipe.layers)
    return BondGraphEncoder(sizes)


@torch.no_grad()
def measured(encoder: nn.Module, process: Shallow, data: Disturbed, seed: int) -> dict[str, float]:
    """The mean loss of each field, unweighted, over the first batches of held-out molecules; the same seed asks alike.

    Returns:
        `valid_coords` (angstrom squared per dimension) and `valid_types` (nats per atom, over t); for coordinates also
        `valid_still`, the loss of an encoder that moves nothing.
    """
    device = next(encoder.parameters()).device
    totals: dict[str, float] = {}
    plan, count = data.plan(0), 0
    for items in islice(plan, 0, None, max(1, len(plan) // VALIDATION_BATCHES)):
        noise = NoiseSource(mix_seed(seed, _VALIDATION), items)
        batch = data.batch(items, noise)
        x_0, mask = ({name: value.to(device) for name, value in fields.items()} for fields in (batch.x_0, batch.mask))
        t = process.sample_time(noise).to(device)
        at = process.corrupt(x_0, t, noise, mask)
        said = dict(encoder(at.x_t, t, batch.c.to(device)))
        losses = {name: field.loss(said[name], at.parts[name]) for name, field in process.fields.items()}
        if "coords" in losses:
            losses["still"] = process.fields["coords"].loss(at.x_t["coords"], at.parts["coords"])
        for name, loss in losses.items():
            totals[name] = totals.get(name, 0.0) + float(loss.sum())
        count += len(items)
    return {f"valid_{name}": total / count for name, total in totals.items()}


def pretrain(
    recipe: PretrainRecipe, folder: Path, device: str = "cpu", progress: bool = True
) -> EquivariantEncoder | BondGraphEncoder:
    """Pretrains an encoder to the end, resuming what the folder holds; under torchrun, on all its processes.

    Args:
        recipe: The recipe.
        folder: The run: `config.json`, `log.jsonl`, `checkpoints/`, and at the end `weights/`.
        device: Where to train.
        progress: Show a progress bar.

    Returns:
        The encoder with averaged weights.

    Raises:
        InputError: If the data or a library is missing, or the folder holds a run of another recipe.
    """
    folder = Path(folder)
    known, held_out = (MoleculeSet.read(recipe.data, split) for split in ("train", "valid"))
    encoder = new_encoder(recipe, known.vocabulary)
    if parallel.is_main():
        claim_folder(folder, recipe)
    process = pretraining_process(recipe.kind, len(known.vocabulary.symbols), recipe.depth)
    data, valid = (  # neither encoder can tell how a molecule is turned
        Disturbed(TrainingData(molecules, recipe.train.seed, recipe.batch_pairs, rotate=False), recipe.kind)
        for molecules in (known, held_out)
    )

    def measure(network: nn.Module) -> dict[str, float]:
        return measured(network, process, valid, recipe.train.seed)

    Trainer(encoder, Objective(process), data, recipe.train, folder, measure, device).fit(progress)
    if parallel.is_main():
        save_pretrained(encoder, folder / "weights")
    return encoder
