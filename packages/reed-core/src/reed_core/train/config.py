"""The configuration of a run, and how it is read: a TOML or YAML file, then `--set a.b=c`. Cadences count samples."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reed_core.errors import InputError

Config = TypeVar("Config", bound=BaseModel)
Averaging = Annotated[float, Field(ge=0, lt=1)]

_REPORTS = ("checkpoint_every", "evaluate_every", "sample_every", "log_every", "logs")
_LENGTH = ("samples", "stop_metric", "stop_patience", "stop_lower", "max_bad_steps")
_COMPUTING = ("accumulate", "compile", "parallel", "prefetch")
MAY_CHANGE = frozenset((*_REPORTS, *_LENGTH, *_COMPUTING))
"""Settings of `TrainConfig` that a resumed run need not share with the run it goes on from."""


class TrainConfig(BaseModel):
    """How to train. Samples are what the data source counts: images, chains, molecules.

    Attributes:
        samples: Samples to train on.
        seed: Seeds weights, order, noise and dropout.
        learning_rate: Peak learning rate of AdamW.
        warmup: Samples of linear warm-up.
        decay: Share of `samples`, at the end, over which the rate falls linearly to 0; before, it is constant.
        weight_decay: Decoupled weight decay, on matrices only.
        betas: AdamW's averaging constants.
        clip: Largest gradient norm.
        ema: Decay of the averaged weights per step (ramped up as (1 + step) / (10 + step)).
        precision: "fp32"; "bf16" or "fp16": network and projectors under autocast, losses in float32, and for fp16 the
            loss scaled so that gradients stay within its range.
        accumulate: Pieces into which each process cuts its part of a batch, one after the other: less memory, the same
            result.
        compile: Compile the loss with torch.compile.
        parallel: What several processes share: "ddp", a copy of the weights on each, or "fsdp", shards of them.
        max_bad_steps: Steps in a row without a finite gradient after which the run ends; each is skipped.
        prefetch: Batches made ahead, by a thread; 0 makes each when it is needed.
        checkpoint_every: Samples between checkpoints.
        evaluate_every: Samples between evaluations of the averaged weights; 0 for only at the end.
        sample_every: Samples between calls of the run's sampler, if it has one; 0 for only at the end.
        stop_metric: Figure of the evaluation that must improve, or the run ends early; None never does.
        stop_patience: Evaluations in a row that may fail to improve on the best.
        stop_lower: Whether lower is better.
        log_every: Steps between lines of the log.
        logs: Where else the log goes: "tensorboard", "wandb".
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    samples: int = Field(ge=1)
    seed: int = 0
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: int = Field(default=0, ge=0)
    decay: float = Field(default=0.25, ge=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Averaging, Averaging] = (0.9, 0.99)
    clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: int = Field(default=1, ge=1)
    compile: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
    max_bad_steps: int = Field(default=50, ge=1)
    prefetch: int = Field(default=2, ge=0)
    checkpoint_every: int = Field(default=1000, ge=1)
    evaluate_every: int = Field(default=0, ge=0)
    sample_every: int = Field(default=0, ge=0)
    stop_metric: str | None = None
    stop_patience: int = Field(default=5, ge=1)
    stop_lower: bool = True
    log_every: int = Field(default=10, ge=1)
    logs: tuple[Literal["tensorboard", "wandb"], ...] = ()

    @model_validator(mode="after")
    def _checked(self) -> "TrainConfig":
        if self.stop_metric is not None and not self.evaluate_every:
            raise ValueError(f"stop_metric {self.stop_metric} needs evaluations; set evaluate_every")
        return self

    def shared(self) -> "TrainConfig":
        """The configuration without what may change when a run is resumed: its length, its reports, how it is computed.

        Cutting a batch in other ways, over other processes, changes rounding alone.
        """
        fixed = {name: getattr(self, name) for name in TrainConfig.model_fields if name not in MAY_CHANGE}
        return TrainConfig(samples=1, **fixed)

    def rate(self, n: float) -> float:
        """The learning rate after n samples: warm-up, constant, linear decay to 0."""
        factor = min(1.0, (n + 1) / self.warmup) if self.warmup else 1.0
        tail = self.samples * self.decay
        if tail > 0:
            factor = min(factor, max(0.0, (self.samples - n) / tail))
        return self.learning_rate * factor


def read_config(kind: type[Config], path: Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a configuration file and applies `a.b=c` overrides.

    Args:
        kind: The pydantic model to build.
        path: A .toml, .yaml, .yml or .json file.
        overrides: Assignments; the right side is read as JSON, else as text.

    Raises:
        InputError: If the file cannot be read, or a setting is unknown or out of range.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"cannot read configuration {path}: {reason}; give a TOML, YAML or JSON file") from error
    try:
        values: Any = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        kind_of_file, reason = path.suffix.lstrip(".").upper() or "YAML", " ".join(str(error).split())
        raise InputError(f"{path} is not valid {kind_of_file}: {reason}; correct the file") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no settings; expected a table of names and values")
    return make_config(kind, values, overrides, str(path))


def make_config(kind: type[Config], values: dict[str, Any], overrides: Sequence[str], source: str) -> Config:
    """Builds a configuration from values and `a.b=c` overrides.

    Args:
        kind: The pydantic model to build.
        values: The settings; the overrides are written into them.
        overrides: As in `read_config`.
        source: What to call the values in an error.

    Raises:
        InputError: If a setting is unknown or out of range.
    """
    assign(values, overrides)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'configuration'}: {item['msg']}" for item in error.errors()
        )
        raise InputError(f"{source} {' '.join(overrides)}: {problems}; correct the settings") from error


def assign(values: dict[str, Any], entries: Sequence[str], option: str = "--set") -> None:
    """Writes `a.b=c` into values, in place; the right side is read as JSON, else as text.

    Args:
        values: The settings.
        entries: The assignments.
        option: The option they were given by.

    Raises:
        InputError: If one is no assignment, or goes into what is no table.
    """
    for entry in entries:
        name, equals, value = entry.partition("=")
        names = name.split(".")
        if not equals or not all(names):
            raise InputError(f"{option} {entry}: expected NAME=VALUE or NAME.NAME=VALUE")
        _assign(values, names, value, option)


def _assign(values: dict[str, Any], names: list[str], text: str, option: str) -> None:
    for name in names[:-1]:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise InputError(f"{option} {'.'.join(names)}: {name} is a value, not a table")
    try:
        values[names[-1]] = json.loads(text)
    except json.JSONDecodeError:
        values[names[-1]] = text
