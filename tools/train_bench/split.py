"""Where a training step spends its time: SiT, the protein network and the molecule network, each on its own data."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from reed_core.objective import Objective
from reed_core.train import DataSource, TrainConfig, Trainer
from reed_core.train.meter import Reading
from torch import nn

from train_bench import images


def sit(name: str, batch: int, steps: int, folder: Path) -> Trainer:
    """A guided SiT-`name`/2, its latents and its z in mapped files."""
    data = images.made(folder, batch * steps, batch, guided=True)
    return _trainer(images.network(name), images.objective(name, guided=True), data, batch * steps, steps, folder)


def protein(steps: int, folder: Path) -> Trainer:
    """The guided recipe of reed-protein, without its teacher, which is read from a cache of the run."""
    import reed_protein
    from reed_core.train.config import read_config
    from reed_protein.dataset import TrainingData
    from reed_protein.latents import make_latents, open_sources
    from reed_protein.recipe import Recipe, open_chains
    from reed_protein.training import build_objective, start

    path = Path(reed_protein.__file__).parent / "recipes" / "reed-protein-guided.toml"
    recipe = read_config(Recipe, path, ['without=["teacher"]'])
    chains = open_chains(recipe.train_set)
    sources = open_sources(recipe.active, chains, folder, recipe.network.neighbours, None)
    data = TrainingData(chains, 0, recipe.batch_residues, recipe.jitter, make_latents(sources))
    count = sum(map(len, data.plan(0)[:steps]))
    return _trainer(start(recipe).network, build_objective(recipe), data, count, steps, folder)


def molecule(steps: int, folder: Path) -> Trainer:
    """The small recipe of reed-molecule on drug-like molecules, without latents."""
    import reed_molecule
    from reed_core.train.config import read_config
    from reed_molecule.dataset import MoleculeSet, TrainingData
    from reed_molecule.model import MoleculeModel, new_config
    from reed_molecule.prepare import prepare
    from reed_molecule.process import molecule_process
    from reed_molecule.readers import open_source
    from reed_molecule.recipe import Recipe
    from reed_molecule.training import Told, build_objective
    from reed_molecule.vocabulary import DRUGS
    from reed_protein.recipe import data_path

    source = open_source(data_path("molecule/drugs_mmff.npz"), limit=1000)
    prepare([(source, None)], folder / "drugs.npz", DRUGS, workers=1, quiet=True)
    path = Path(reed_molecule.__file__).parent / "recipes" / "drugs-small.toml"
    recipe = read_config(Recipe, path)
    known = MoleculeSet.read(folder / "drugs.npz", "train")
    model = MoleculeModel(new_config(known.vocabulary, known.spread(), known.sizes.tolist(), recipe.network, "uniform"))
    data = Told(TrainingData(known, 0, recipe.batch_pairs, known.spread(), rotate=False))
    count = sum(map(len, data.plan(0)[:steps]))
    return _trainer(model, build_objective(recipe, molecule_process(known.vocabulary)), data, count, steps, folder)


def readings(sit_size: str, batch: int, steps: int, domains: bool) -> Iterator[tuple[str, Reading]]:
    """Trains each network for some steps and yields what the meter saw of the second half.

    Args:
        sit_size: "S", "B", "L" or "XL".
        batch: Images in a step of SiT.
        steps: Steps of SiT, an even number; the others, whose steps are shorter, take twice as many.
        domains: Whether to run the protein and the molecule network too; they read REED_DATA.
    """
    makers = {f"SiT-{sit_size}/2, {batch} images": lambda folder: sit(sit_size, batch, steps, folder)}
    if domains:
        makers |= {
            "protein, 1,500 residues": lambda folder: protein(2 * steps, folder),
            "molecule, drug-like": lambda folder: molecule(2 * steps, folder),
        }
    for name, make in makers.items():
        with tempfile.TemporaryDirectory() as folder:
            trainer = make(Path(folder))
            trainer.fit(progress=False)
            assert trainer.reading is not None
            yield name, trainer.reading


def _trainer(
    network: nn.Module, objective: Objective, data: DataSource, samples: int, steps: int, folder: Path
) -> Trainer:
    """A trainer whose last line of the log covers the second half of its steps."""
    config = TrainConfig(samples=samples, log_every=max(1, steps // 2), checkpoint_every=samples, precision="bf16")
    return Trainer(network, objective, data, config, folder / "run")
