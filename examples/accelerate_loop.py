"""The loop of `plain_loop.py` in Hugging Face accelerate: the same losses, and ready for several devices.

python examples/accelerate_loop.py        (needs accelerate: pip install reed-core[accelerate])
"""

from collections.abc import Iterator

import torch
from accelerate import Accelerator
from plain_loop import RATE, Step, batches


def run(steps: int, cpu: bool = False) -> Iterator[float]:
    """Trains; yields the loss of every step, that of this process."""
    accelerator = Accelerator(cpu=cpu)
    step = Step()
    optimizer = torch.optim.AdamW(step.parameters(), lr=RATE)
    step, optimizer, loader = accelerator.prepare(step, optimizer, batches(steps))
    for positions, x_0 in loader:
        loss = step(positions, x_0)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        yield loss.item()


if __name__ == "__main__":
    print(*(f"{loss:.4f}" for loss in run(10)))
