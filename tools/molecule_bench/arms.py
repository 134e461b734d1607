"""What is compared: our denoiser and the EGNNs, on the same molecules, batches, process and loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from reed_core import presets
from reed_core.noise import NoiseSource
from reed_core.train import Batch, TrainConfig
from reed_core.train.config import read_config
from reed_core.train.ema import Ema
from reed_core.train.optimizer import make_optimizer
from reed_core.train.step import Guided
from reed_molecule.dataset import MoleculeSet, TrainingData
from reed_molecule.model import ModelConfig, MoleculeModel, new_config
from reed_molecule.network import NetworkConfig
from reed_molecule.recipe import Recipe, recipe_path
from reed_molecule.training import Told
from torch.nn.utils import clip_grad_norm_

from molecule_bench.egnn import EGNNConfig, EGNNModel, EGNNModelConfig

OURS, SMALL, LARGE, SPLIT = "ours", "EGNN nf 64, 6 layers", "EGNN nf 256, 9 layers", ", split"
SIZES = {SMALL: (64, 6), LARGE: (256, 9)}
EGNNS = tuple(name + form for name in SIZES for form in ("", SPLIT))


@dataclass(frozen=True)
class Asked:
    """A batch as trained on, with its streams."""

    batch: Batch
    positions: tuple[int, ...]

    def noise(self) -> NoiseSource:
        """The streams from their beginning, so that every arm is asked the same."""
        return NoiseSource(0, self.positions)


def our_network(self_condition: bool, quick: bool = False) -> NetworkConfig:
    """The network of the small recipes; a toy one for tests."""
    if quick:
        return NetworkConfig(width=16, vectors=4, pairs=8, blocks=2, heads=2, radial=6, self_condition=self_condition)
    small = read_config(Recipe, recipe_path("qm9-small")).network
    return small.model_copy(update={"self_condition": self_condition})


def config_of(known: MoleculeSet, network: NetworkConfig) -> ModelConfig:
    """The configuration of our model of some molecules."""
    return new_config(known.vocabulary, known.spread(), known.sizes.tolist(), network, "uniform")


def egnn_of(config: ModelConfig, name: str, quick: bool = False) -> EGNNModel:
    """An EGNN of the same vocabulary, scale, process and sizes; a toy one for tests.

    Args:
        config: Of our model.
        name: One of `EGNNS`.
        quick: Eight features and two layers.
    """
    features, layers = (8, 2) if quick else SIZES[name.removesuffix(SPLIT)]
    sizes = EGNNConfig(features=features, layers=layers, split=name.endswith(SPLIT))
    return EGNNModel(EGNNModelConfig(**dict(config), egnn=sizes))


def model_of(config: ModelConfig, name: str, quick: bool = False) -> MoleculeModel:
    """The model of an arm, the same at every call."""
    torch.manual_seed(0)
    return MoleculeModel(config) if name == OURS else egnn_of(config, name, quick)


def asked_of(known: MoleculeSet, scale: float, pairs: int, count: int) -> list[Asked]:
    """Batches of a training set, spread over an epoch so that all sizes occur."""
    data = Told(TrainingData(known, 0, pairs, scale, rotate=False))
    plan = sorted(data.plan(0), key=lambda items: int(known.sizes[items].max()))
    chosen = [plan[(2 * place + 1) * len(plan) // (2 * count)] for place in range(count)]
    return [Asked(data.batch(items, NoiseSource(0, items)), tuple(items)) for items in chosen]


def evaluation(model: MoleculeModel, asked: Sequence[Asked]) -> Callable[[], object]:
    """One evaluation of the network on each batch."""
    process, questions = model.process, []
    for one in asked:
        noise = one.noise()
        t = process.sample_time(noise)
        questions.append((process.corrupt(one.batch.x_0, t, noise, one.batch.mask).x_t, t, one.batch.c))

    @torch.no_grad()
    def run() -> None:
        model.eval()
        for x_t, t, c in questions:
            model(x_t, t, c)

    return run


def coin(heads: bool) -> int:
    """A seed after which torch.rand(()) < 0.5, or not: whether a self-conditioned network runs twice in this step."""
    return next(seed for seed in range(1000) if _below_half(seed) == heads)


def training(
    model: MoleculeModel, asked: Sequence[Asked], precision: str = "fp32", compiled: bool = False
) -> Callable[[], object]:
    """A training step on each batch: noise, loss, gradient, clipping, AdamW and averaged weights.

    Every second step of a self-conditioned network runs it twice, as half of them do in the mean.

    Args:
        model: The model, whose weights move.
        asked: The batches.
        precision: "fp32" or "bf16".
        compiled: Whether the loss is compiled.
    """
    config = TrainConfig(samples=10**9, learning_rate=1e-4)
    guided = Guided(model, presets.none(model.process), precision, compiled)
    optimizer = make_optimizer(dict(guided.named_parameters()), config)
    average, seeds = Ema(model, config.ema), (coin(True), coin(False))
    steps = 0

    def run() -> None:
        nonlocal steps
        guided.train()
        for one in asked:
            torch.manual_seed(seeds[steps % 2])
            total, _ = guided(one.batch, one.noise(), 0.0)
            total.backward()
            clip_grad_norm_(guided.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            steps += 1
            average.update(steps)

    return run


def _below_half(seed: int) -> bool:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return bool(torch.rand(()) < 0.5)
