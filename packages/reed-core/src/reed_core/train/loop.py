"""The training loop.

Every random number of step k is a function of (seed, samples seen): data order, corruption and dropout are keyed by
position, so a state needs no generator to be saved, and N steps equal k steps, a kill, a resume and N - k steps, to the
last bit on a CPU. For the same reason the number of processes is no part of a run (`reed_core.train.parallel`).
"""

import copy
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reed_core.errors import InputError
from reed_core.files import directory_written_aside
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.train import parallel
from reed_core.train.checkpoint import load_latest, save_checkpoint
from reed_core.train.claim import held
from reed_core.train.config import TrainConfig
from reed_core.train.data import Batch, DataSource
from reed_core.train.early_stop import EarlyStop
from reed_core.train.ema import Ema
from reed_core.train.log import RunLog, sinks
from reed_core.train.meter import Reading
from reed_core.train.optimizer import make_optimizer, optimizer_state, trial, what_reaches
from reed_core.train.prefetch import copied, pinned, prefetched
from reed_core.train.progress import ProgressLine
from reed_core.train.step import Guided, MadePiece, Stepper, Taken, Work, check_cuttable

Evaluate = Callable[[nn.Module], dict[str, float]]
Sample = Callable[[nn.Module, Path], object]

_COUNTERS = ("step", "samples", "epoch", "index", "bad_steps")
_LOGGED = frozenset(("samples", "step", "epoch", "total", "denoising", "learning_rate", "samples_per_second"))
_LOGGED |= {"data_wait_share", "mfu", "mfu_of_measured_peak"}


@dataclass(frozen=True)
class _Planned:
    """A step as the data's order foresees it; the next one begins at (epoch, index)."""

    work: Work
    epoch: int
    index: int


class Trainer:
    """Trains a denoiser under an objective, in a run folder that can be resumed.

    Started by torchrun, the processes share every batch (`TrainConfig.parallel`): build the same denoiser, objective
    and data in each. The main one's weights are the ones trained, and it alone writes.

    Args:
        denoiser: The network.
        objective: The objective; its readouts are trained too.
        data: The data.
        config: How to train.
        folder: The run folder; `checkpoints/`, `log.jsonl` and `samples/` go there.
        evaluate: Called with the denoiser in evaluation mode, carrying the averaged weights; its figures are logged.
            Every process calls it, and the main one's figures count.
        device: Where to train.
        sample: Called as `evaluate` is, with a folder to fill, every `sample_every` samples and at the end:
            `samples/<samples seen>`. Every process calls it, and the main one's files are kept.

    Raises:
        InputError: If a latent has the name of another figure of the log, a batch cannot be cut as the configuration
            asks, or the metric to stop on is never measured.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        objective: Objective,
        data: DataSource,
        config: TrainConfig,
        folder: Path,
        evaluate: Evaluate | None = None,
        device: torch.device | str = "cpu",
        sample: Sample | None = None,
    ) -> None:
        names = [latent.name for latent in objective.latents] + [one.name for one in objective.regularisers]
        for name in names:
            if name in _LOGGED:
                raise InputError(f"a latent cannot be named '{name}', as a figure of the log is; rename it")
        if config.stop_metric is not None and evaluate is None:
            raise InputError(f"stop_metric {config.stop_metric} is never measured; pass evaluate=, or set it to None")
        self.device = parallel.start(device)
        self.denoiser, self.objective = denoiser.to(self.device), objective.to(self.device)
        self.data, self.config, self.folder = data, config, Path(folder)
        self.evaluate, self.sample = evaluate, sample
        check_cuttable(objective, config.accumulate * parallel.world())
        self.sharded = parallel.world() > 1 and config.parallel == "fsdp"
        reached = None
        if objective.curriculum.scope == "learning_rate":
            reached = what_reaches(denoiser, objective, *self._few())
        # Shards are of copies: the modules that were given stay whole, to be evaluated, and saved at the end.
        trained = copy.deepcopy((denoiser, objective)) if self.sharded else (denoiser, objective)
        self.guided = Guided(*trained, config.precision, config.compile)
        module: nn.Module = self.guided
        if parallel.world() > 1:
            module = parallel.spread(module, config.parallel, self._units() if self.sharded else ())
        self.named = {name: value for name, value in self.guided.named_parameters() if value.requires_grad}
        self.optimizer = make_optimizer(self.named, config, reached)
        self.ema = Ema(self.guided.denoiser, config.ema)
        self.stepper = Stepper(self.guided, module, self.optimizer, self.ema, config, self.device)
        self.meter = self.stepper.meter
        self.reading: Reading | None = None  # of the last line of the log
        self.early_stop = EarlyStop(config)
        self.step = self.samples = self.epoch = self.index = self.bad_steps = 0

    def fit(self, progress: bool = True) -> nn.Module:
        """Trains to the end, from the latest checkpoint of the folder if there is one.

        Args:
            progress: Show a progress bar on standard error.

        Returns:
            The denoiser, in evaluation mode, with averaged weights.

        Raises:
            InputError: If another process trains in the folder, its checkpoint does not fit, the data has no batch
                where the run stands, the disk is full, or the gradient stays non-finite.
        """
        main, total = parallel.is_main(), self.config.samples
        with held(self.folder) if main else nullcontext():
            self._resume()
            with self._opened_log() as log, ProgressLine(total, self.samples, progress and main) as line:
                if self._more():
                    self._train(log, line)
                with self._averaged(kept=True) as denoiser:
                    self._report(log, denoiser)
                    self._draw(denoiser)
        return self.denoiser

    def _train(self, log: RunLog | None, line: ProgressLine) -> None:
        with prefetched(self._makers(), self.config.prefetch) as stream:
            for planned, seconds in stream:
                self.meter.waited(seconds)
                before = self.samples
                taken = self.stepper.take(planned.work, self.step + 1)
                self.step += 1
                self.samples += planned.work.count
                self.epoch, self.index = planned.epoch, planned.index
                self._guard(taken)
                if self.step % self.config.log_every == 0:
                    self._log(taken, log, line)
                line.moved(self.samples)
                evaluate = _crosses(before, self.samples, self.config.evaluate_every) and self._more()
                sample = _crosses(before, self.samples, self.config.sample_every) and self._more()
                if (evaluate and self.evaluate is not None) or (sample and self.sample is not None):
                    with self.meter.paused(), self._averaged() as denoiser:
                        if evaluate:
                            self.early_stop.saw(self._report(log, denoiser))
                        if sample:
                            self._draw(denoiser)
                if _crosses(before, self.samples, self.config.checkpoint_every) or not self._more():
                    with self.meter.paused():
                        save_checkpoint(self.folder / "checkpoints", self.samples, self._state())
                if not self._more():
                    return

    def _few(self) -> tuple[Batch, NoiseSource]:
        """A small batch, to see what a step does."""
        batch, noise = self._batch(self.data.plan(0)[0][:2], 0)
        return copied(batch, self.device), noise

    def _units(self) -> list[nn.Module]:
        """What FSDP shards by itself: blocks, what is called alone of them, the network, each readout."""
        denoiser, objective = self.guided.denoiser, self.guided.objective
        blocks = parallel.blocks(denoiser)
        alone = parallel.called_alone(blocks, lambda: trial(denoiser, objective, *self._few()))
        return [*alone, *blocks, denoiser, *objective.readouts.children()]

    def _more(self) -> bool:
        return self.samples < self.config.samples and not self.early_stop.ended

    def _makers(self) -> Iterator[Callable[[], _Planned]]:
        """What makes the data of each step to come, this process's part of it."""
        epoch, index, samples = self.epoch, self.index, self.samples
        plan = self.data.plan(epoch)
        while samples < self.config.samples:
            if index >= len(plan):
                raise InputError(
                    f"epoch {epoch} of the data has {len(plan)} batches and the run needs number "
                    f"{index + 1}; give more data, or the data the run began with"
                )
            items, start, index = plan[index], samples, index + 1
            samples += len(items)
            if index < len(plan):
                yield partial(self._made, items, start, epoch, index)
                continue
            epoch, index = epoch + 1, 0
            yield partial(self._made, items, start, epoch, index)
            if samples < self.config.samples:
                plan = self.data.plan(epoch)

    def _made(self, items: Sequence[int], samples: int, epoch: int, index: int) -> _Planned:
        pieces = parallel.pieces(items, self.config.accumulate, parallel.world(), parallel.rank())
        made = []
        for piece in pieces:
            batch, noise = self._batch(piece.items, samples + piece.start)
            if self.config.prefetch and callable(batch.z) and self.objective.needs_latents(float(samples)):
                with torch.no_grad():
                    batch = replace(batch, z=batch.z())
            made.append(MadePiece(piece, pinned(batch) if self.device.type == "cuda" else batch, noise))
        return _Planned(Work(samples, len(items), made), epoch, index)

    def _batch(self, items: Sequence[int], samples: int) -> tuple[Batch, NoiseSource]:
        noise = NoiseSource(self.config.seed, range(samples, samples + len(items)))
        return self.data.batch(items, noise), noise

    def _guard(self, taken: Taken) -> None:
        """Counts steps in a row that were skipped."""
        self.bad_steps = 0 if taken.finite else self.bad_steps + 1
        if self.bad_steps >= self.config.max_bad_steps:
            raise InputError(
                f"the gradient was not finite for {self.bad_steps} steps in a row at {self.samples} samples; "
                "lower the learning rate or look at the data"
            )

    def _opened_log(self) -> AbstractContextManager[RunLog | None]:
        if not parallel.is_main():
            return nullcontext()
        return RunLog(self.folder / "log.jsonl", self.samples, sinks(self.config.logs, self.folder, self.samples))

    def _log(self, taken: Taken, log: RunLog | None, line: ProgressLine) -> None:
        losses = taken.figures()
        self.reading = self.meter.read()
        if log is not None:
            counters = {"samples": self.samples, "step": self.step, "epoch": self.epoch}
            log.write({**counters, **losses, "learning_rate": taken.rate, **self.reading.line()})
            line.told(losses, self.reading)

    @contextmanager
    def _averaged(self, kept: bool = False) -> Iterator[nn.Module]:
        """The denoiser, whole, with averaged weights and in evaluation mode; of shards, the copy that was kept.

        Args:
            kept: It stays so, as do the readouts of the objective: the run has ended.
        """
        if self.sharded:
            self.ema.copy_to(self.denoiser.to(self.device))
            _copy(self.guided.denoiser.buffers(), self.denoiser.buffers())
            if kept:
                _copy(self.guided.objective.parameters(), self.objective.parameters())
                _copy(self.guided.objective.buffers(), self.objective.buffers())
        else:
            self.ema.swap()
        yield self.denoiser.eval()
        if self.sharded and not kept:
            self.denoiser.to("cpu")
        elif not kept:
            self.ema.swap()

    def _report(self, log: RunLog | None, denoiser: nn.Module) -> dict[str, float]:
        """Evaluates, and logs the figures."""
        if self.evaluate is None:
            return {}
        figures = parallel.agreed(self.evaluate(denoiser))
        if log is not None:
            log.write({"samples": self.samples, "step": self.step, **figures})
        return figures

    def _draw(self, denoiser: nn.Module) -> None:
        """Fills a folder with samples; one that is there was filled by the same weights."""
        folder = self.folder / "samples" / f"{self.samples:012d}"
        if self.sample is None or parallel.agreed(folder.exists()):
            return
        if not parallel.is_main():
            with tempfile.TemporaryDirectory() as dropped:
                self.sample(denoiser, Path(dropped))
            return
        with directory_written_aside(folder) as aside:
            self.sample(denoiser, aside)

    def _state(self) -> dict[str, Any]:
        """Everything that is a part of the run. Its tensors are the live ones: filling them restores it."""
        return {
            "denoiser": self.guided.denoiser.state_dict(),
            "objective": self.guided.objective.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": optimizer_state(self.optimizer, self.named),
            "scaler": self.stepper.scaler.state_dict(),
            "early_stop": self.early_stop.state_dict(),
            "counters": {name: getattr(self, name) for name in _COUNTERS},
            "seed": self.config.seed,
        }

    def _resume(self) -> None:
        state = load_latest(self.folder / "checkpoints", self._state())
        if state is None:
            return
        if state["seed"] != self.config.seed:
            raise InputError(
                f"{self.folder} holds a run of seed {state['seed']}, the configuration says {self.config.seed}; "
                "use the same seed or another folder"
            )
        if self.stepper.scaler.is_enabled() and state["scaler"]:
            self.stepper.scaler.load_state_dict(state["scaler"])
        self.early_stop.load_state_dict(state["early_stop"])
        for name in _COUNTERS:
            setattr(self, name, int(state["counters"][name]))


def _crosses(before: int, after: int, every: int) -> bool:
    return every > 0 and before // every != after // every


@torch.no_grad()
def _copy(shards: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    """Copies tensors that may be sharded; a collective if they are."""
    for shard, value in zip(shards, values, strict=True):
        value.copy_(parallel.whole(shard))
