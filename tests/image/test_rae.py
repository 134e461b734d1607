"""An encoder's own tokens as the data space: what is encoded, the decoder that is trained for it, and shifted times."""

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_files import write_folder
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant
from reed_core.sample import integrate
from reed_image.autoencoder import Autoencoder, load_autoencoder, load_recorded
from reed_image.autoencoder.rae import EncoderSpec, RaeCodec, RaeDecoder, RaeSpec
from reed_image.autoencoder.train_rae import RaeConfig, rae_codec, train_rae
from reed_image.data import Prepared, open_prepared, open_source, prepare
from reed_image.encoders import timm_encoder
from reed_image.latents import featurize
from reed_image.model import load
from reed_image.sample import decoder_of, pictures
from reed_image.shift import Shifted, shift_of, shifted
from reed_image.solve import solve
from torch import Tensor

SMALL = RaeConfig(
    encoder=EncoderSpec(model="test_vit", weights="random"),
    factor=8,
    width=16,
    depth=1,
    heads=2,
    samples=64,
    batch=8,
    learning_rate=3e-3,
    checkpoint_every=32,
    log_every=1,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("rae")
    source = open_source(write_folder(folder / "files", each=6))
    return prepare(source, folder / "pixels", load_autoencoder("pixels"), size=16, progress=False)


@pytest.fixture(scope="module")
def made(data: Prepared) -> Path:
    """The folder of a trained autoencoder."""
    train_rae(data, SMALL, data.folder.parent / "run", progress=False)
    return data.folder.parent / "run" / "autoencoder"


def test_latents_are_the_encoders_tokens_normalised(data: Prepared, made: Path) -> None:
    found = load_autoencoder(made)
    assert (found.codec.channels, found.codec.factor) == (64, 8)
    images = data.pictures(range(len(data)))
    tokens = timm_encoder("test_vit", grid=2, weights="random")(images).z
    latents = found.encode(images)
    raw = latents / torch.tensor(found.scale)[:, None, None] + torch.tensor(found.shift)[:, None, None]
    torch.testing.assert_close(raw.flatten(2).transpose(1, 2), tokens, rtol=1e-3, atol=1e-3)
    flat = latents.transpose(0, 1).flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(64), rtol=0, atol=1e-3)
    torch.testing.assert_close(flat.std(1, correction=0), torch.ones(64), rtol=0, atol=1e-3)


def test_a_token_is_decoded_to_the_pixels_of_its_patch() -> None:
    config = RaeSpec(
        encoder=SMALL.encoder, size=6, grid=3, channels=5, width=8, depth=1, heads=2, shift=(0.5,) * 5, scale=(2.0,) * 5
    )
    torch.manual_seed(0)
    decoder = RaeDecoder(config)
    for block in decoder.blocks:
        block.attention.out.weight.data.zero_()  # type: ignore[union-attr]
        block.attention.out.bias.data.zero_()  # type: ignore[union-attr]
    z = torch.randn(1, 5, 3, 3)
    other = z.clone()
    other[0, :, 1, 2] += 1.0
    with torch.no_grad():
        changed = (decoder(z) != decoder(other)).any(1)[0]
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[2:4, 4:6] = True
    assert torch.equal(changed, expected)


def test_a_killed_run_ends_the_same(data: Prepared, made: Path, tmp_path: Path, monkeypatch: Any) -> None:
    import reed_image.autoencoder.train_rae as training

    plain, calls = training.F.l1_loss, 0

    def killed(*arguments: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        found: Tensor = plain(*arguments)
        return found

    monkeypatch.setattr(training.F, "l1_loss", killed)
    with pytest.raises(KeyboardInterrupt):
        train_rae(data, SMALL, tmp_path / "part", progress=False)
    again = train_rae(data, SMALL, tmp_path / "part", progress=False)
    assert calls == 6 + 4
    assert again.spec.weights == load_autoencoder(made).spec.weights


def test_training_brings_pictures_nearer(data: Prepared, made: Path) -> None:
    images = data.pictures(range(len(data)))
    torch.manual_seed(0)
    codec = rae_codec(data, SMALL)
    start = Autoencoder("start", codec, codec.config.shift, codec.config.scale)
    trained = load_autoencoder(made)
    before, after = ((one.decode(one.encode(images)) - images).abs().mean() for one in (start, trained))
    assert float(after) < float(before)


def test_another_encoder_or_size_is_refused(data: Prepared, made: Path) -> None:
    found = load_autoencoder(made)
    assert isinstance(found.codec, RaeCodec)
    assert load_recorded(found.spec).spec == found.spec
    with pytest.raises(InputError, match="takes 16 x 16"):
        found.encode(torch.zeros(1, 3, 24, 24))
    with pytest.raises(InputError, match="not the encoder"):
        found.codec.use(timm_encoder("test_vit", grid=2, weights="random", seed=1))
    blind = load_autoencoder(made)
    assert isinstance(blind.codec, RaeCodec)
    blind.codec.config = blind.codec.config.model_copy(update={"encoder": EncoderSpec(model="absent")})
    assert blind.decode(torch.zeros(1, 64, 2, 2)).shape == (1, 3, 16, 16)  # drawing needs no encoder
    with pytest.raises(InputError):
        blind.encode(data.pictures([0]))
    with pytest.raises(InputError, match="a factor of 5"):
        rae_codec(data, SMALL.model_copy(update={"factor": 5}))


def test_from_tokens_to_pictures_by_commands(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from reed_image.beside import plans_of
    from reed_image.cli import main
    from reed_image.recipe import Recipe
    from reed_image.training import run_recipe

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["reed-image", *map(str, arguments), "--device", "cpu", "--quiet"])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    sizes = ["width=16", "depth=1", "heads=2", "factor=8", "samples=16", "batch=8", 'encoder.weights="random"']
    options = [part for size in sizes for part in ("--set", size)]
    assert call("train-vae", data.folder, "--out", tmp_path / "run", "--encoder", "test_vit", *options) == 0
    made = tmp_path / "run" / "autoencoder"
    files = data.folder.parent / "files"
    assert call("prepare", files, "--out", tmp_path / "data", "--size", 16, "--autoencoder", made) == 0
    settings = Recipe.model_validate(
        {
            "data": str(tmp_path / "data"),
            "batch_size": 6,
            "time_shift": "auto",
            "network": {"patch": 1, "width": 32, "depth": 1, "heads": 2},
            "latents": [{"kind": "layout", "tap": "blocks.0", "hidden": 16}],
            "cache": str(tmp_path / "cache"),
            "sampling": {"num": 2, "steps": 1},
            "train": {"samples": 12},
        }
    )
    for plan, prepared in plans_of(settings):
        featurize(plan, prepared)
    run_recipe(settings, tmp_path / "model", progress=False)
    model = load(tmp_path / "model" / "weights")
    assert model.shape == (64, 2, 2)
    assert model.config.time_shift == shift_of((64, 2, 2)) == 0.25
    assert pictures(model, 2, steps=2).shape == (2, 3, 16, 16)
    assert decoder_of(model.config).autoencoder is not None
    assert open_prepared(settings.data).manifest.autoencoder.kind == "RaeCodec"
    assert call("train-vae", data.folder, "--out", tmp_path / "no", "--encoder", "test_vit", "--set", "latent=3") == 2
    assert "latent" in capsys.readouterr().err


def test_shifted_times() -> None:
    t = torch.linspace(0, 1, 33, dtype=torch.float64)
    for shift in (0.5, 1.0, 4.0):
        s = shifted(t, shift)
        assert bool((s.diff() > 0).all())
        assert (float(s[0]), float(s[-1])) == (0.0, 1.0)
        torch.testing.assert_close((s / (1 - s))[:-1], (shift * t / (1 - t))[:-1])  # noise over signal
    process = Shifted(shift=4.0)
    drawn = process.sample_time(NoiseSource(0, range(2000))).double()
    inner = (drawn - process.t_min) / (process.t_max - process.t_min)
    for quantile in (0.25, 0.5, 0.75):
        expected = float(shifted(torch.tensor(quantile, dtype=torch.float64), 4.0))
        assert abs(float(inner.quantile(quantile)) - expected) < 0.02
    times = process.grid(0.999, 0.001, 7)
    assert (times[0], times[-1], len(times)) == (0.999, 0.001, 8)
    assert all(after < before for before, after in pairwise(times))


def test_a_shift_changes_the_steps_and_not_the_answer() -> None:
    """N(0, 4): the exact denoiser ends at 2 x noise, whatever the grid."""

    def exact(x: Tensor, t: Tensor, c: Any = None) -> Tensor:
        t = t.reshape(-1, 1, 1, 1)
        variance = 4 * (1 - t) ** 2 + t**2
        return (t - 4 * (1 - t)) / variance * x

    noise = NoiseSource(0, range(4))
    x = noise.normal((1, 2, 2)).double()
    even = integrate(Interpolant(), exact, x, 100)
    later = solve(Shifted(shift=3.0), exact, x, None, noise, 100, "heun")
    torch.testing.assert_close(even, later, rtol=5e-3, atol=5e-3)
    few = solve(Shifted(shift=3.0), exact, x, None, noise, 3, "heun")
    assert float((few - integrate(Interpolant(), exact, x, 3)).abs().max()) > 1e-3
