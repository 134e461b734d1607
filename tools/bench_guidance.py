"""What guidance costs a training step, with z read from a cache, against its projectors' share of the arithmetic.

    uv run tools/bench_guidance.py --repeats 15

Trains a transformer of 10 million parameters (depth 12, width 256, 64 tokens) with three objectives in turn, step by
step in one process, so that they share whatever else the machine does:

    plain    Objective(process): no latents
    guided   two latents (token level at depth 4, global at depth 8), z gathered from a memory-mapped cache each step
    off      the same objective after its curriculum has ended: neither cache nor projector should run

and prints, for each of the two, the median over repeats of the time of a step over that of the plain step beside it,
with the middle half, and the share of floating-point operations that the projectors add (counted by torch, forward and
backward). Overhead beyond that share is what the objective itself costs. `--compiled` compiles `Objective.loss`.
"""

import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Annotated, Any

import typer
from reed_core.console import run

if TYPE_CHECKING:
    from torch import Tensor, nn

DEPTH, WIDTH, TOKENS, CHANNELS = 12, 256, 64, 16
Z_TOKEN, Z_GLOBAL = 384, 512


def make_network() -> "nn.Module":
    """The transformer; `blocks.k` are its hidden states."""
    import torch
    from torch import nn

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inlet = nn.Linear(CHANNELS, WIDTH)
            self.place = nn.Parameter(0.02 * torch.randn(TOKENS, WIDTH))
            self.clock = nn.Sequential(nn.Linear(1, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
            self.blocks = nn.ModuleList(
                nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
                for _ in range(DEPTH)
            )
            self.outlet = nn.Linear(WIDTH, CHANNELS)

        def forward(self, x_t: "Tensor", t: "Tensor", c: Any = None) -> "Tensor":
            hidden = self.inlet(x_t) + self.place + self.clock(t[:, None])[:, None]
            for block in self.blocks:
                hidden = block(hidden)
            return self.outlet(hidden)

    return Transformer()


class Bench:
    """The network, the cache and the three objectives, all on the same batch."""

    def __init__(self, folder: Path, batch: int, compiled: bool) -> None:
        import torch
        from reed_core import presets
        from reed_core.curriculum import Curriculum, Schedule
        from reed_core.latent import Latent
        from reed_core.objective import Objective
        from reed_core.process import Interpolant
        from reed_core.representation import ModuleEncoder, build_cache, open_cache
        from reed_core.train import Batch

        torch.manual_seed(0)
        self.network = make_network()
        self.x = torch.randn(8 * batch, TOKENS, CHANNELS)
        items = _Items(self.x, Batch)
        self.caches = {}
        for name, dim, level in (("token", Z_TOKEN, "token"), ("global", Z_GLOBAL, "global")):
            encoder = ModuleEncoder(name, torch.nn.Linear(CHANNELS, dim), dim=dim, level=level)
            build_cache(folder / name, encoder, items)
            self.caches[name] = open_cache(folder / name, encoder=encoder.fingerprint, data=items.fingerprint)
        latents = [
            Latent("token", "blocks.3", WIDTH, Z_TOKEN, hidden=WIDTH),
            Latent("global", "blocks.7", WIDTH, Z_GLOBAL, level="global", hidden=WIDTH),
        ]
        process = Interpolant()
        ended = Curriculum(alignment=Schedule(decay="stop", end=1.0))
        self.objectives: dict[str, Objective] = {
            "plain": presets.none(process),
            "guided": presets.reed(process, latents),
            "off": Objective(process, latents, ended),
        }
        self.losses = {
            name: torch.compile(objective.loss) if compiled else objective.loss
            for name, objective in self.objectives.items()
        }
        parameters = [*self.network.parameters()]
        for objective in self.objectives.values():
            parameters += list(objective.parameters())
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
        self.batch, self.taken, self.reads = batch, 0, 0

    def step(self, name: str, learn: bool = True) -> None:
        """One training step under an objective."""
        from reed_core.noise import NoiseSource

        start = self.taken % len(self.x)
        items = list(range(start, start + self.batch))

        def cached() -> dict[str, Any]:
            self.reads += 1
            return {key: cache.gather(items, length=TOKENS) for key, cache in self.caches.items()}

        noise = NoiseSource(0, range(self.taken, self.taken + self.batch))
        question = self.objectives[name].draw(self.x[items], noise, z=cached, n=float(self.taken + 2))
        self.losses[name](self.network, question).total.backward()
        if learn:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.taken += self.batch

    def timed(self, name: str) -> float:
        """Seconds of one step."""
        since = time.perf_counter()
        self.step(name)
        return time.perf_counter() - since

    def operations(self, name: str) -> int:
        """Floating-point operations of one step."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.step(name, learn=False)
        return counter.get_total_flops()


class _Items:
    """The data as the cache builder reads it."""

    fingerprint = "random"

    def __init__(self, x: "Tensor", batch: Any) -> None:
        self.x, self.make = x, batch

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, items: Any) -> Any:
        """Some samples."""
        return self.make(self.x[list(items)])


def main(
    repeats: Annotated[int, typer.Option(help="Timed steps of each objective.", min=3)] = 15,
    batch: Annotated[int, typer.Option(help="Samples in a step.", min=1)] = 8,
    threads: Annotated[int, typer.Option(help="Threads of torch.", min=1)] = 1,
    compiled: Annotated[bool, typer.Option(help="Compile Objective.loss.")] = False,
) -> None:
    """Measures the overhead of guidance beside the plain step."""
    import torch

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), batch, compiled)
        size = sum(parameter.numel() for parameter in bench.network.parameters())
        typer.echo(f"{size / 1e6:.1f} M parameters, {batch} x {TOKENS} tokens, {threads} thread(s), {repeats} repeats")
        if not compiled:
            plain = bench.operations("plain")
            share = {name: bench.operations(name) / plain - 1 for name in ("guided", "off")}
        for name in bench.objectives:
            bench.step(name)
        ratios: dict[str, list[float]] = {"guided": [], "off": []}
        for repeat in range(repeats):
            order = list(bench.objectives)
            order = order[repeat % 3 :] + order[: repeat % 3]  # nobody always follows the same neighbour
            took = {name: bench.timed(name) for name in order}
            for name, values in ratios.items():
                values.append(took[name] / took["plain"])
        before = bench.reads
        bench.step("off")
        typer.echo(f"cache reads of a step that is off: {bench.reads - before}")
        for name, values in ratios.items():
            low, _, high = quantiles(values, n=4)
            line = f"{name:7s} time {100 * (median(values) - 1):+6.2f} % (middle half {100 * (low - 1):+.2f} .. "
            line += f"{100 * (high - 1):+.2f})"
            if not compiled:
                extra = 100 * (median(values) - 1 - share[name])
                line += f"   operations {100 * share[name]:+.2f} %   beyond them {extra:+.2f} points"
            typer.echo(line)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run(app)
