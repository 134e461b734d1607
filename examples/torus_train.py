"""Two angles of a von Mises mixture, learned by a small network with the process of `torus.py`, from reed-core alone.

Prints the largest distance between circular moments E exp(i k x), |k| <= 2, of samples and of fresh data, beside what
fresh data of the same number has, and the bound of held-out data in nats beside the entropy of the mixture.

    python examples/torus_train.py --picture torus.png        (the picture needs matplotlib)
"""

import argparse
import itertools
from pathlib import Path

import torch
from jaxtyping import Float
from reed_core.files import write_with
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.sample import ancestral
from torch import Tensor, nn
from torch.distributions import VonMises
from torus import Torus, wrap

CENTRES = torch.tensor([[-2.9, -1.5], [0.0, 3.0], [1.6, 0.4]])  # two of them across the cut at pi
KAPPA, SAMPLES = 8.0, 4096


class Net(nn.Module):
    """A periodic function of two angles, and a function of t."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(10, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 2),
        )

    def forward(self, x_t: Tensor, t: Tensor, c: None = None) -> Tensor:
        """The score times sigma."""
        x, t = torch.cat([x_t, 2 * x_t], -1), t[:, None]
        return self.body(torch.cat([x.sin(), x.cos(), t, t.log()], -1))


def draw(count: int, seed: int) -> Float[Tensor, "n 2"]:
    """Draws of the mixture."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return wrap(VonMises(CENTRES[torch.randint(len(CENTRES), (count,))], KAPPA).sample())


def log_density(x: Float[Tensor, "n 2"]) -> Float[Tensor, "n"]:
    """Log q of the mixture."""
    parts = VonMises(CENTRES, KAPPA).log_prob(x[:, None]).sum(-1)
    return parts.logsumexp(-1) - torch.tensor(float(len(CENTRES))).log()


def moments(x: Float[Tensor, "n 2"]) -> Tensor:
    """E exp(i k x) for k in {-2..2}^2."""
    modes = torch.tensor(list(itertools.product(range(-2, 3), repeat=2))).float()
    return torch.polar(torch.ones(()), x @ modes.T).mean(0)


def train(process: Torus, steps: int, batch: int = 256) -> Net:
    """Trains a network."""
    torch.manual_seed(0)
    net, objective = Net(), Objective(process)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        noise = NoiseSource(0, range(step * batch, (step + 1) * batch))
        loss = objective(net, draw(batch, step), noise)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        schedule.step()
    return net


@torch.no_grad()
def bound(process: Torus, net: Net, x_0: Float[Tensor, "n 2"]) -> float:
    """The bound on -log p, nats per sample: one time and one corruption for each."""
    noise = NoiseSource(3, range(len(x_0)))
    middle = process.corrupt(x_0, process.sample_time(noise), noise)
    start = process.corrupt(x_0, torch.full((len(x_0),), process.t_min), noise)
    nats = (process.t_max - process.t_min) * process.nats(net(middle.x_t, middle.t), middle)
    last = process.reconstruction_nats(net(start.x_t, start.t), start)
    return float((process.prior_nats(x_0) + nats + last).mean())


def main() -> None:
    """Trains, samples, prints, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="training steps")
    parser.add_argument("--picture", type=Path, help="a PNG file of data and samples")
    options = parser.parse_args()
    process = Torus()
    net = train(process, options.steps)
    data, other = draw(SAMPLES, 10**6), draw(SAMPLES, 10**6 + 1)
    start = process.prior(data, NoiseSource(1, range(SAMPLES)))
    samples = ancestral(process, net, start, 100, NoiseSource(2, range(SAMPLES)))
    for name, x in {"samples": samples, "other data": other}.items():
        print(f"moments   {name:10}  {float((moments(x) - moments(data)).abs().max()):.3f}")
    print(f"bound     {bound(process, net, data):.3f} nats, entropy {-float(log_density(data).mean()):.3f}")
    if options.picture:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4.4), layout="constrained")
        for axes, (name, x) in zip(figure.subplots(1, 2), {"data": data, "samples": samples}.items(), strict=True):
            axes.scatter(*x.T, s=2, alpha=0.4, linewidths=0)
            axes.set(title=name, xlabel="first angle, rad", ylabel="second angle, rad", aspect="equal")
            axes.set(xlim=(-3.15, 3.15), ylim=(-3.15, 3.15))
        write_with(options.picture, lambda aside: figure.savefig(aside, dpi=100))


if __name__ == "__main__":
    main()
