"""Images a second and MFU of SiT at 256 tokens: eager and compiled, with and without guidance, from mapped files.

FLOPs are counted as peers count them: two for a multiplication and an addition, matrix products and attention, three
times the forward pass; MFU is of the peak that `reed_core.train.peak` names. The arithmetic of the projectors counts.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from reed_core.train import TrainConfig, Trainer
from reed_core.train.meter import Reading

from train_bench import images


class Setting(NamedTuple):
    """What is trained."""

    size: str
    guided: bool
    compiled: bool


def readings(
    sizes: Sequence[str], batch: int, steps: int, device: str, compiled: Sequence[bool]
) -> Iterator[tuple[Setting, Reading]]:
    """Trains each setting for some steps and yields what the meter saw of the second half.

    Args:
        sizes: Keys of `SIZES`.
        batch: Images in a step.
        steps: Steps, an even number.
        device: Where.
        compiled: Eager, compiled, or both.
    """
    for size in sizes:
        for fused in compiled:
            for guided in (False, True):
                with tempfile.TemporaryDirectory() as name:
                    folder = Path(name)
                    data = images.made(folder, batch * min(steps, 8), batch, guided)
                    config = TrainConfig(
                        samples=batch * steps,
                        log_every=steps // 2,
                        checkpoint_every=batch * steps,
                        precision="bf16",
                        compile=fused,
                    )
                    objective = images.objective(size, guided)
                    trainer = Trainer(images.network(size), objective, data, config, folder / "run", device=device)
                    trainer.fit(progress=False)
                    assert trainer.reading is not None
                    yield Setting(size, guided, fused), trainer.reading
