"""Training a small autoencoder: it learns, a killed run ends the same, and diffusers reads what it leaves."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from picture_files import write_folder
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_image.autoencoder import load_autoencoder
from reed_image.autoencoder import train as training
from reed_image.autoencoder.train import VaeConfig, train_vae, vae_loss, vae_network
from reed_image.data import Prepared, open_source, prepare

SMALL = VaeConfig(
    widths=(8, 8), latent=3, batch=4, samples=64, checkpoint_every=16, log_every=1, weight=1e-3, learning_rate=3e-3
)


@pytest.fixture
def data(tmp_path: Path) -> Prepared:
    source = open_source(write_folder(tmp_path / "pictures", each=5))
    return prepare(source, tmp_path / "data", load_autoencoder("pixels"), size=8, progress=False)


def test_the_loss_is_what_its_formula_says() -> None:
    network: Any = vae_network(SMALL)
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        found = vae_loss(network, x, NoiseSource(0, range(2)), 0.25)
        posterior = network.encode(x).latent_dist
        z = posterior.mean + posterior.std * NoiseSource(0, range(2)).normal(posterior.mean.shape[1:])
        distance = (network.decode(z).sample - x).abs().mean()
        normal = torch.distributions.Normal
        divergence = torch.distributions.kl_divergence(normal(posterior.mean, posterior.std), normal(0.0, 1.0))
    torch.testing.assert_close(found.distance, distance)
    torch.testing.assert_close(found.divergence, divergence.sum() / x.numel(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.total, distance + 0.25 * found.divergence)


def test_a_killed_run_ends_the_same_and_is_read_by_diffusers(
    tmp_path: Path, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_vae(data, SMALL, tmp_path / "whole", progress=False)
    plain = training.vae_loss
    calls = 0

    def killed(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 11:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(training, "vae_loss", killed)
    with pytest.raises(KeyboardInterrupt):
        train_vae(data, SMALL, tmp_path / "part", progress=False)
    part = train_vae(data, SMALL, tmp_path / "part", progress=False)
    assert calls == 11 + 8  # from 32 pictures of 64 on
    assert part.spec.weights == whole.spec.weights
    assert (part.shift, part.scale) == (whole.shift, whole.scale)
    z = whole.moments(data.pictures(range(10)))
    assert z.std is not None
    torch.testing.assert_close(z.mean.mean((0, 2, 3)), torch.zeros(3), atol=1e-3, rtol=0)
    spread = (z.mean.var((0, 2, 3), correction=0) + z.std.square().mean((0, 2, 3))).sqrt()
    torch.testing.assert_close(spread, torch.ones(3), atol=1e-3, rtol=0)
    network = diffusers.AutoencoderKL.from_pretrained(tmp_path / "whole" / "autoencoder")
    assert network.config.latents_std is not None


def test_it_learns(tmp_path: Path, data: Prepared) -> None:
    images = data.pictures(range(10))

    def error(samples: int) -> float:
        config = SMALL.model_copy(update={"samples": samples, "checkpoint_every": 10**6})
        found = train_vae(data, config, tmp_path / str(samples), progress=False)
        return float((found.decode(found.encode(images)) - images).abs().mean())

    assert error(800) < 0.6 * error(4)


def test_another_configuration_and_size_are_refused(tmp_path: Path, data: Prepared) -> None:
    train_vae(data, SMALL, tmp_path / "run", progress=False)
    (tmp_path / "run" / "autoencoder").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="another configuration"):
        train_vae(data, SMALL.model_copy(update={"weight": 0.5}), tmp_path / "run", progress=False)
    with pytest.raises(InputError, match="need a multiple of 16"):
        train_vae(data, SMALL.model_copy(update={"widths": (8,) * 5}), tmp_path / "new", progress=False)
    with pytest.raises(InputError, match="expected multiples of 8"):
        vae_network(SMALL.model_copy(update={"widths": (8, 12)}))
