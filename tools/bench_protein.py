"""How fast is inverse folding on one CPU thread, and how many steps does it take? Everything in one run.

    uv run tools/bench_protein.py                (about 40 minutes on one core; --quick: 3 minutes)
    uv run tools/bench_protein.py --only speed   (one of curve, speed, length)

curve    the 90 valid chains of REED_DATA against steps, random and confidence order, several seeds: median recovery,
         and what it does not show, how well the letters of a design suit each other (tools/protein_bench/curve.py);
         the smallest step counts within half a point of recovery, and within 0.01 nats of joint nll, of the largest
speed    CPU seconds per sequence at about 106, 320, 618 and 1,000 residues, 1 and 8 designs: the sampler of
         `Designer.design` at that and other step counts, without a score and with each kind, and a node by node
         autoregressive decoder of the same weights (tools/protein_bench/autoregressive.py says what it is and why it is
         fair). Every arm starts from a structure in memory, encodes it once for all its sequences, and decodes
length   CPU seconds per residue and peak memory from 500 to 5,000 residues, of a design and of the probability of each
         residue given all others, and the decoder evaluations that designing 10 of 500 residues takes

Arms of one size run in turn, round by round; a ratio is taken within a round, and its median, least and greatest are
shown. Structures are chains of REED_DATA's files; those of `length` are copies of one chain side by side.
"""

import os
import resource
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from reed_core.console import run
from reed_core.errors import InputError

if TYPE_CHECKING:
    from reed_protein.design import Designer
    from reed_protein.score import ScoreKind
    from reed_protein.structure import Structure
    from rich.progress import Progress

LENGTHS = (106, 320, 618, 1000)
LONG = (500, 2000, 5000)
STEPS = (1, 2, 3, 5, 10, 20, 50, 100)
HALF_A_POINT, A_HUNDREDTH_NAT = 0.005, 0.01
TEMPERATURE = 0.1
LONG_CHAIN = "6cf8_A.pdb"
Part = Literal["curve", "speed", "length"]


def data_folder() -> Path:
    """The folder of the real protein data."""
    folder = Path(os.environ.get("REED_DATA", Path(__file__).parents[2] / "shared" / "data")) / "protein"
    if not folder.is_dir():
        raise InputError(f"no real data at {folder}; set REED_DATA to the folder that holds protein/")
    return folder


def long_structure(length: int) -> "Structure":
    """A structure of `length` residues out of copies of one real chain."""
    from protein_bench.backbones import tiled
    from reed_protein.structure import read_structure

    return tiled(read_structure(data_folder() / "structures" / LONG_CHAIN), length)


def peak_of(length: int, steps: int) -> float:
    """Peak resident memory of one design, import and weights included, GiB; to be called in a fresh process."""
    import torch
    from reed_protein.design import load

    torch.set_num_threads(1)
    load().design(long_structure(length), steps=steps, temperature=TEMPERATURE)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def peaks(lengths: Sequence[int], steps: int, bar: "Progress") -> list[float]:
    """Peak memory at each length, GiB, each in a process of its own.

    A process inherits the peak of the one that starts it: to be called before anything large is imported.
    """
    task, found = bar.add_task("memory", total=len(lengths)), []
    for length in lengths:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found.append(pool.submit(peak_of, length, steps).result())
        bar.advance(task)
    return found


def show_curve(
    designer: "Designer", bar: "Progress", quick: bool, seeds: int, steps: Sequence[int], temperature: float
) -> int:
    """Prints quality against steps; the smallest step count of random order that recovery asks for."""
    from protein_bench.curve import Quality, curve, fewest, pair_table, shortest
    from reed_protein.dataset import ChainSet

    chains = ChainSet.read(data_folder() / "backbones_valid.npz")
    others = ChainSet.read(data_folder() / "backbones_train.npz")
    if quick:
        chains, others = shortest(chains, 30), shortest(others, 500)
    orders = ("random", "confidence")
    task = bar.add_task("curve", total=None)

    def tick(done: float) -> None:
        bar.update(task, total=1.0, completed=done)

    table = pair_table(others)
    found = curve(designer.network, chains, table, steps, orders, range(seeds), temperature, tick)
    print(f"\n{len(chains)} chains, temperature {temperature}, {seeds} seeds: mean (range)\n")
    print("| order | steps | median recovery, % | joint nll, nats | contacts, nats | runs, % | composition, % |")
    print("|" + "---|" * 7)
    scale = Quality(100, 1, 1, 100, 100)
    for (order, count), values in found.items():
        cells = []
        for column, factor in zip(zip(*values, strict=True), scale, strict=True):
            some = [factor * value for value in column]
            cells.append(f"{mean(some):.3f} ({min(some):.3f}-{max(some):.3f})")
        print(f"| {order} | {count or ''} | {' | '.join(cells)} |")
    recovery = {key: [value.recovery for value in values] for key, values in found.items()}
    likely = {key: [-value.joint_nll for value in values] for key, values in found.items()}
    for order in orders:
        enough = fewest(recovery, order, HALF_A_POINT), fewest(likely, order, A_HUNDREDTH_NAT)
        print(f"\n{order} order: recovery asks for {enough[0]} steps, joint nll for {enough[1]}")
    return fewest(recovery, "random", HALF_A_POINT)


def arms(designer: "Designer", structure: "Structure", num: int, steps: Sequence[int]) -> dict[str, Callable[[], Any]]:
    """What is timed on one structure; a score costs the same at any number of steps, so it is timed at one."""
    from protein_bench.autoregressive import decode
    from reed_core.noise import NoiseSource

    def design(count: int, score: "ScoreKind") -> Callable[[], Any]:
        return lambda: designer.design(structure, num=num, steps=count, temperature=TEMPERATURE, score=score)

    noise = NoiseSource(0, range(num))
    return {
        "encoding": lambda: designer.encode(structure),
        **{f"{count} steps": design(count, "none") for count in steps},
        f"{steps[0]} steps, one-shot score": design(steps[0], "one-shot"),
        f"{steps[0]} steps, any-order score": design(steps[0], "any-order"),
        "autoregressive": lambda: decode(designer.network, designer.encode(structure), noise, TEMPERATURE),
    }


def show_speed(
    designer: "Designer", bar: "Progress", steps: Sequence[int], rounds: int, lengths: Sequence[int]
) -> None:
    """Prints seconds per sequence and ratios to the autoregressive decoder."""
    from protein_bench.backbones import nearest, real
    from protein_bench.clock import Spread, ratio, seconds

    structures = real(data_folder() / "structures")
    chosen = [nearest(structures, length) for length in lengths]
    task = bar.add_task("speed", total=len(chosen) * 2 * (len(steps) + 4) * (rounds + 1))
    print(f"\nCPU seconds per sequence, one thread, random order, {rounds} rounds: median (range)\n")
    print("| structure | residues | designs | what | s per sequence | autoregressive / this |\n|" + "---|" * 6)
    for structure in chosen:
        for num in (1, 8):
            found = seconds(arms(designer, structure, num, steps), rounds, lambda: bar.advance(task))
            for name, values in found.items():
                each = Spread.of([value / num for value in values]).text(3)
                against = "" if name == "encoding" else ratio(found["autoregressive"], values).text(2)
                print(f"| {structure.name} | {len(structure)} | {num} | {name} | {each} | {against} |", flush=True)


def show_length(
    designer: "Designer", bar: "Progress", steps: int, rounds: int, lengths: Sequence[int], memory: Sequence[float]
) -> None:
    """Prints time per residue, peak memory, and the evaluations of a small redesign."""
    from protein_bench.clock import Spread, ratio, seconds
    from protein_bench.evaluations import evaluations
    from reed_protein.given import native
    from reed_protein.probabilities import conditional_probabilities

    structures = {length: long_structure(length) for length in lengths}
    task = bar.add_task("length", total=2 * len(lengths) * (rounds + 1))
    designs = {
        str(length): lambda structure=structure: designer.design(structure, steps=steps, temperature=TEMPERATURE)
        for length, structure in structures.items()
    }
    given = {
        str(length): lambda structure=structure: conditional_probabilities(
            designer, designer.encode(structure), [native(structure)]
        )
        for length, structure in structures.items()
    }
    for what, timed in ((f"A design in {steps} steps with its any-order score", designs), ("Conditional", given)):
        found = seconds(timed, rounds, lambda: bar.advance(task))
        each = {length: [value / length for value in found[str(length)]] for length in lengths}
        print(f"\n{what}, {rounds} rounds: median (range); peak memory is that of a design\n")
        print(
            "| residues | seconds | ms per residue | against the shortest | peak memory, GiB |\n|---|---|---|---|---|"
        )
        for length, peak in zip(lengths, memory, strict=True):
            against = ratio(each[length], each[lengths[0]]).text(2)
            per_residue = Spread.of([1000 * value for value in each[length]]).text(2)
            print(
                f"| {length} | {median(found[str(length)]):.2f} | {per_residue} | {against} | {peak:.2f} |", flush=True
            )
    some = long_structure(500)
    ten = {"design": ",".join(some.residue_ids[7:500:50]), "temperature": TEMPERATURE, "steps": 100}
    sampled = evaluations(designer.network, lambda: designer.design(some, score="none", **ten))
    both = evaluations(designer.network, lambda: designer.design(some, **ten))
    assert sampled <= 10
    print(f"\nDesigning 10 of 500 residues in up to 100 steps: {sampled} decoder evaluations, {both} with the score")


def main(
    only: Annotated[Part | None, typer.Option(help="Only this part.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer chains, lengths and rounds.")] = False,
    seeds: Annotated[int, typer.Option(help="Seeds of the curve.", min=1)] = 3,
    rounds: Annotated[int, typer.Option(help="Rounds of timing.", min=1)] = 5,
    steps: Annotated[str, typer.Option(help="Step counts timed, separated by commas.")] = "1,2,3,5,20",
    curve_steps: Annotated[str, typer.Option(help="Step counts of the curve.")] = ",".join(map(str, STEPS)),
    temperature: Annotated[float, typer.Option(help="Of the curve.", min=0.0)] = TEMPERATURE,
) -> None:
    """Prints the tables."""
    from rich.console import Console
    from rich.progress import Progress

    counts = [int(count) for count in steps.split(",")]
    rounds = 2 if quick else rounds
    long = LONG[:2] if quick else LONG
    with Progress(console=Console(stderr=True), transient=True) as bar:
        memory = peaks(long, counts[-1], bar) if only in (None, "length") else []
        import torch
        from reed_protein.design import load

        torch.set_num_threads(1)
        designer = load()
        if only in (None, "curve"):
            of_curve = (1, 2, 5, 10, 20) if quick else [int(count) for count in curve_steps.split(",")]
            enough = show_curve(designer, bar, quick, 1 if quick else seeds, of_curve, temperature)
            counts = sorted({enough, *counts})
        if only in (None, "speed"):
            show_speed(designer, bar, counts, rounds, LENGTHS[:2] if quick else LENGTHS)
        if only in (None, "length"):
            show_length(designer, bar, counts[-1], rounds, long, memory)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run(app)
