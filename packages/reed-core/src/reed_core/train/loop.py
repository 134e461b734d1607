"""The training loop.

Every random number of step k is a function of (seed, samples seen): data order, corruption and dropout are keyed by
position, so a state needs no generator to be saved, and N steps equal k steps, a kill, a resume and N - k steps, to the
last bit on a CPU.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from reed_core.errors import InputError
from reed_core.noise import NoiseSource, mix_seed
from reed_core.objective import Loss, Objective
from reed_core.train.checkpoint import load_latest, save_checkpoint
from reed_core.train.config import TrainConfig
from reed_core.train.data import Batch, DataSource
from reed_core.train.ema import Ema
from reed_core.train.log import RunLog

Evaluate = Callable[[nn.Module], dict[str, float]]

MAX_BAD_STEPS = 50
_COUNTERS = ("step", "samples", "epoch", "index", "bad_steps")
_LOGGED = frozenset(("samples", "step", "epoch", "total", "denoising", "learning_rate", "samples_per_second"))


class Trainer:
    """Trains a denoiser under an objective, in a run folder that can be resumed.

    Args:
        denoiser: The network.
        objective: The objective; its readouts are trained too.
        data: The data.
        config: How to train.
        folder: The run folder; `checkpoints/` and `log.jsonl` go there.
        evaluate: Called with the denoiser in evaluation mode, carrying the averaged weights; its figures are logged.
        device: Where to train.

    Raises:
        InputError: If a latent has the name of another figure of the log.
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
    ) -> None:
        names = [latent.name for latent in objective.latents] + [one.name for one in objective.regularisers]
        for name in names:
            if name in _LOGGED:
                raise InputError(f"a latent cannot be named '{name}', as a figure of the log is; rename it")
        self.denoiser, self.objective = denoiser.to(device), objective.to(device)
        self.data, self.config, self.folder, self.evaluate = data, config, Path(folder), evaluate
        self.device = torch.device(device)
        parameters = [*denoiser.parameters(), *objective.parameters()]
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        matrices = [parameter for parameter in self.parameters if parameter.ndim >= 2]
        vectors = [parameter for parameter in self.parameters if parameter.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=config.betas,
            fused=True,
        )
        self.ema = Ema(denoiser, config.ema)
        self.step = self.samples = self.epoch = self.index = self.bad_steps = 0

    def fit(self, progress: bool = True) -> nn.Module:
        """Trains to the end, from the latest checkpoint of the folder if there is one.

        Args:
            progress: Show a progress bar on standard error.

        Returns:
            The denoiser, in evaluation mode, with averaged weights.

        Raises:
            InputError: If the folder's checkpoint does not fit, the data has no batch where the run stands, the disk is
                full, or the gradient stays non-finite.
        """
        self._resume()
        log = RunLog(self.folder / "log.jsonl", self.samples)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
            plan: Sequence[Sequence[int]]
            task = bar.add_task("training", total=self.config.samples, completed=self.samples)
            since, seen = time.perf_counter(), self.samples
            planned, plan = -1, []
            while self._more():
                if planned != self.epoch:
                    planned, plan = self.epoch, self.data.plan(self.epoch)
                    if self.index >= len(plan):
                        raise InputError(
                            f"epoch {self.epoch} of the data has {len(plan)} batches and the run needs number "
                            f"{self.index + 1}; give more data, or the data the run began with"
                        )
                before = self.samples
                loss = self._train_step(plan[self.index])
                if self.index == len(plan):
                    self.epoch, self.index = self.epoch + 1, 0
                if self.step % self.config.log_every == 0:
                    now = time.perf_counter()
                    line = {**self._describe(loss), "samples_per_second": (self.samples - seen) / (now - since)}
                    log.write(line)
                    since, seen = now, self.samples
                    bar.update(task, description=f"loss {line['denoising']:.3f}")
                bar.update(task, completed=min(self.samples, self.config.samples))
                if _crosses(before, self.samples, self.config.evaluate_every) and self._more():
                    log.write({"samples": self.samples, "step": self.step, **self._evaluate()})
                if _crosses(before, self.samples, self.config.checkpoint_every) or not self._more():
                    self._save()
        self.ema.swap()
        self.denoiser.eval()
        if self.evaluate is not None:
            log.write({"samples": self.samples, "step": self.step, **self.evaluate(self.denoiser)})
        return self.denoiser

    def _more(self) -> bool:
        return self.samples < self.config.samples

    def _train_step(self, items: Sequence[int]) -> Loss:
        torch.manual_seed(mix_seed(self.config.seed, self.samples))
        self.denoiser.train()
        noise = NoiseSource(self.config.seed, range(self.samples, self.samples + len(items)))
        batch = to_device(self.data.batch(items, noise), self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(float(self.samples))
        loss = self._loss(batch, noise)
        loss.total.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        self.step += 1
        self.index += 1
        self.samples += len(items)
        if torch.isfinite(norm):
            self.optimizer.step()
            self.ema.update(self.step)
            self.bad_steps = 0
        else:
            self.bad_steps += 1
            if self.bad_steps >= MAX_BAD_STEPS:
                raise InputError(
                    f"the gradient was not finite for {MAX_BAD_STEPS} steps in a row at {self.samples} samples; "
                    "lower the learning rate or look at the data"
                )
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def _loss(self, batch: Batch, noise: NoiseSource) -> Loss:
        bf16 = self.config.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext():
            return self.objective(
                self.denoiser,
                batch.x_0,
                noise,
                z=batch.z,
                c=batch.c,
                mask=batch.mask,
                weight=batch.weight,
                n=float(self.samples),
            )

    def _evaluate(self) -> dict[str, float]:
        if self.evaluate is None:
            return {}
        self.ema.swap()
        self.denoiser.eval()
        figures = self.evaluate(self.denoiser)
        self.ema.swap()
        return figures

    def _describe(self, loss: Loss) -> dict[str, float]:
        parts = {name: value.mean().item() for name, value in (loss.alignment | loss.regularisation).items()}
        return {
            "samples": self.samples,
            "step": self.step,
            "epoch": self.epoch,
            "total": loss.total.item(),
            "denoising": loss.denoising.mean().item(),
            **parts,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }

    def _save(self) -> None:
        state = {
            "denoiser": self.denoiser.state_dict(),
            "objective": self.objective.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "counters": {name: getattr(self, name) for name in _COUNTERS},
            "seed": self.config.seed,
        }
        save_checkpoint(self.folder / "checkpoints", self.samples, state)

    def _resume(self) -> None:
        state = load_latest(self.folder / "checkpoints")
        if state is None:
            return
        try:
            if state["seed"] != self.config.seed:
                raise InputError(
                    f"{self.folder} holds a run of seed {state['seed']}, the configuration says {self.config.seed}; "
                    "use the same seed or another folder"
                )
            self.denoiser.load_state_dict(state["denoiser"])
            self.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ema.load_state_dict(state["ema"])
            for name in _COUNTERS:
                setattr(self, name, int(state["counters"][name]))
        except InputError:
            raise
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self.folder} holds a run of another model ({reason}); use another folder") from error


def _crosses(before: int, after: int, every: int) -> bool:
    return every > 0 and before // every != after // every


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Moves the tensors of a batch (and a condition that knows `.to`) to a device."""

    def move(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: move(part) for name, part in value.items()}
        return value.to(device) if hasattr(value, "to") else value

    return Batch(move(batch.x_0), move(batch.c), move(batch.mask), batch.z, move(batch.weight))
