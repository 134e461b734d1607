"""The loop of `plain_loop.py` as a LightningModule: the same losses, from Lightning's Trainer.

python examples/lightning_loop.py        (needs lightning: pip install reed-core[lightning])
"""

import tempfile

import lightning
import torch
from plain_loop import RATE, Step, batches
from torch import Tensor


class Training(lightning.LightningModule):
    """Network and objective in one LightningModule; keeps the loss of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.step = Step()
        self.losses: list[float] = []

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """The loss of a batch."""
        positions, x_0 = batch
        loss = self.step(positions, x_0)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the network and the objective's readouts."""
        return torch.optim.AdamW(self.step.parameters(), lr=RATE)


def run(steps: int, accelerator: str = "auto") -> list[float]:
    """Trains for one epoch; the loss of every step."""
    training = Training()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator=accelerator,
            devices=1,
            default_root_dir=folder,
            enable_model_summary=False,
            **quiet,
        )
        trainer.fit(training, batches(steps))
    return training.losses


if __name__ == "__main__":
    print(*(f"{loss:.4f}" for loss in run(10)))
