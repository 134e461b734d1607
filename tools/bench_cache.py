"""How fast a cache of representations is read, beside `dd` on the same file, and what each format costs and loses.

    uv run tools/bench_cache.py --mib 512 --repeats 7

Writes one file per format and level of padding (256 tokens of 768, as of a ViT-B; and proteins of 60 to 400 residues,
padded), and then, repeat by repeat and side by side:

    dd        dd if=FILE of=/dev/null, in blocks as large as a batch; its own account of the seconds
    dd 4M     the same in blocks of 4 MB, which stay in the processor's caches as no batch does
    sweep     Cache.gather of one batch after the other through the file: z, padded and decoded, in new memory
    random    the same batches in a random order of items

warm with the file in the page cache, cold after posix_fadvise(POSIX_FADV_DONTNEED). Rates are of bytes in the file; a
ratio is taken within a repeat, and its median and range over repeats are printed. float16 and float32 should reach 0.8
of dd: they are copied once. int8 and pca-k are decoded into four and more times as many bytes as were read, so their
rate of the file is lower, and the rate of values (z/s) is the one to compare.

Figures of fidelity are of made z (a decaying spectrum, a few loud channels) and, with REED_DATA set, of the bundled
protein teacher; with it, a training step on teacher latents read from the cache is compared with one that runs the
teacher.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer
from reed_core.console import run

if TYPE_CHECKING:
    from reed_core.representation import Cache

FORMATS = ("float32", "float16", "int8", "pca-64")
DIM = 768


@dataclass(frozen=True)
class Made:
    """Numbered items; each is its own seed. `ragged`: 60 to 400 rows, else 256."""

    count: int
    ragged: bool
    fingerprint: str = "made"

    def __len__(self) -> int:
        return self.count

    def length(self, item: int) -> int:
        """Rows of an item."""
        return 60 + (item * 7919) % 341 if self.ragged else 256

    def batch(self, items: Sequence[int]) -> Any:
        """Normal numbers, padded."""
        import torch
        from reed_core.train.data import Batch

        lengths = [self.length(item) for item in items]
        x_0 = torch.zeros(len(items), max(lengths), DIM)
        mask = torch.zeros(x_0.shape[:2], dtype=torch.bool)
        for place, item in enumerate(items):
            generator = torch.Generator().manual_seed(item)
            x_0[place, : lengths[place]] = torch.randn(lengths[place], DIM, generator=generator)
            mask[place, : lengths[place]] = True
        return Batch(x_0, mask=mask)


class Spectrum:
    """An encoder whose z has a spectrum that falls as 1 / k, an offset, and three channels ten times as loud."""

    name, dim, fingerprint = "spectrum", DIM, "spectrum-1"
    level: Any = "token"

    def __init__(self) -> None:
        import torch

        generator = torch.Generator().manual_seed(0)
        turn = torch.linalg.qr(torch.randn(DIM, DIM, generator=generator)).Q
        self.mix = (20 / torch.arange(1, DIM + 1))[:, None] * turn
        self.loud = torch.ones(DIM)
        self.loud[[7, 100, 500]] = 10

    def __call__(self, x_0: Any, c: Any = None, mask: Any = None) -> Any:
        """Gives the numbers their spectrum."""
        from reed_core.latent import Representation

        return Representation((x_0 @ self.mix + 0.1) * self.loud, mask)


def drop(path: Path) -> None:
    """Puts a file out of the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def dd(path: Path, block: int) -> float:
    """Seconds that dd says it took."""
    done = subprocess.run(
        ["dd", f"if={path}", "of=/dev/null", f"bs={block}"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    found = re.search(r"copied, ([\d.e-]+) s", done.stderr)
    assert found is not None, done.stderr
    return float(found[1])


def gathered(cache: "Cache", order: Sequence[int], batch: int, length: int) -> float:
    """Seconds to gather all items, batch by batch."""
    started = time.perf_counter()
    for start in range(0, len(order), batch):
        cache.gather(order[start : start + batch], length)
    return time.perf_counter() - started


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def timed(path: Path, cold: bool, repeats: int, jobs: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Seconds of each job in each repeat, in turn; the first repeat warms up."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(repeats + 1):
        for name, job in jobs.items():
            if cold:
                drop(path)
            seconds = job()
            if repeat:
                times[name].append(seconds)
    return times


def read_rates(folder: Path, mib: int, repeats: int, batch: int, ragged: bool) -> None:
    """Writes the files of one kind and prints the table of rates."""
    import torch
    from reed_core.representation import build_cache, open_cache

    longest = 400 if ragged else 256
    count = max(batch, mib * 2**20 // (2 * DIM * (230 if ragged else 256)))
    items = Made(count, ragged)
    rows = sum(map(items.length, range(count)))
    shape = "ragged, padded to 400" if ragged else "256 each"
    print(f"\n{count} items, {rows} rows of {DIM}, {shape}; batches of {batch}")
    print("format        MB  pages  dd GB/s           sweep/dd        sweep/dd 4M          random/dd  sweep z/s")
    for form in FORMATS:
        place = folder / f"{form}-{ragged}"
        build_cache(place, Spectrum(), items, format=form, shard_items=count, batch_items=32)
        cache = open_cache(place, encoder=Spectrum.fingerprint, data=items.fingerprint)
        path = place / cache.manifest.shards[0].file
        jobs: dict[str, Callable[[], float]] = {
            "dd": partial(dd, path, -(-cache.bytes // -(-count // batch))),
            "4M": partial(dd, path, 4 << 20),
            "sweep": partial(gathered, cache, list(range(count)), batch, longest),
            "random": partial(gathered, cache, torch.randperm(count).tolist(), batch, longest),
        }
        for state in ("warm", "cold"):
            times = timed(path, state == "cold", repeats, jobs)
            sweep, small, random = (
                spread([theirs / ours for theirs, ours in zip(times[base], times[name], strict=True)])
                for name, base in (("sweep", "dd"), ("sweep", "4M"), ("random", "dd"))
            )
            rate, values = cache.bytes / median(times["dd"]) / 1e9, rows / median(times["sweep"])
            print(
                f"{form:8s} {cache.bytes / 1e6:7.1f}  {state:5s} {rate:8.2f} {sweep:>18s} {small:>18s} {random:>18s} "
                f"{values / 1e6:8.2f} M",
                flush=True,
            )
        print(f"         {cache.manifest.fidelity}")


def teacher_steps(folder: Path, repeats: int) -> None:
    """Fidelity of the protein teacher in each format, and a step on cached latents against one that runs it."""
    import torch
    from reed_core.noise import NoiseSource
    from reed_core.objective import Objective
    from reed_protein.dataset import TrainingData
    from reed_protein.latents import featurize, make_latents, open_sources, plan_of
    from reed_protein.latents.source import Live
    from reed_protein.recipe import Recipe, open_chains
    from reed_protein.training import build_objective, start

    chains = open_chains("protein/backbones_valid.npz")
    base = {"train_set": "protein/backbones_valid.npz", "train": {"samples": 10**6}, "cache": str(folder)}
    print(f"\nprotein teacher (bundled, decoder.2), {len(chains)} chains")
    kinds: dict[str, Any] = {}
    for form in FORMATS:
        latent = {"kind": "teacher", "tap": "decoder.2", "weight": 0.5, "format": form}
        recipe = Recipe.model_validate({**base, "latents": [latent]})
        (spec,) = recipe.active
        cache = featurize(plan_of(spec, chains, folder, recipe.network.neighbours), chains)  # type: ignore[arg-type]
        assert cache is not None
        print(f"{form:8s} {cache.bytes / 1e6:7.1f} MB  {cache.manifest.fidelity}")
        kinds[form] = open_sources(recipe.active, chains, folder, recipe.network.neighbours)
        kinds["online"] = {"teacher": Live(spec.encoder(0))}  # type: ignore[union-attr]
    plain = Recipe.model_validate(base)
    made: dict[str, tuple[Objective, Any, TrainingData]] = {}
    for name, sources in {"none": None, **kinds}.items():
        network, objective = start(plain).network.train(), build_objective(recipe if sources else plain)
        data = TrainingData(chains, 0, plain.batch_residues, plain.jitter, make_latents(sources) if sources else None)
        parameters = [*network.parameters(), *objective.parameters()]
        made[name] = (objective, (network, torch.optim.AdamW(parameters, fused=True)), data)
    seconds: dict[str, list[float]] = {name: [] for name in made}
    plan = made["none"][2].plan(0)
    for repeat in range(repeats + 1):
        items = plan[repeat % len(plan)]
        noise = NoiseSource(0, range(len(items)))
        for name, (objective, (network, optimizer), data) in made.items():
            started = time.perf_counter()
            batch = data.batch(items, noise)
            loss = objective(
                network, batch.x_0, noise, z=batch.z, c=batch.c, mask=batch.mask, weight=batch.weight, n=1.0
            )
            loss.total.backward()
            optimizer.step()
            optimizer.zero_grad()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    print("step time over that without latents, and over that with the encoder online:")
    for name in made:
        ratios = [
            spread([own / other for own, other in zip(seconds[name], seconds[base_name], strict=True)])
            for base_name in ("none", "online")
        ]
        print(f"  {name:8s} {ratios[0]:>18s}  {ratios[1]:>18s}")


def main(
    mib: Annotated[int, typer.Option(help="Size of the float16 files.")] = 512,
    repeats: Annotated[int, typer.Option(help="Timed repeats, interleaved.")] = 7,
    batch: Annotated[int, typer.Option(help="Items of a batch.")] = 64,
    folder: Annotated[Path | None, typer.Option(help="Where the files go, on the disk to be measured.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small files, one repeat: does it run?")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Prints rates, ratios and fidelity."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if quick:
        mib, repeats, batch = 2, 1, 4
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for ragged in (False, True):
            read_rates(Path(place), mib, repeats, batch, ragged)
    if os.environ.get("REED_DATA"):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            teacher_steps(Path(place), 2 if quick else repeats)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run(app)
