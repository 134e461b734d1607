"""Weights on disk come back bit for bit, or one line says why not; a writer that is stopped loses nothing."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel, ConfigDict
from reed_core.errors import InputError
from reed_core.files import sha256
from reed_core.hub import Configured, from_pretrained, save_pretrained
from torch import nn

WEIGHTS, CONFIG = "model.safetensors", "config.json"


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = 3
    tied: bool = False


class Model(nn.Module):
    """Parameters, a buffer of each kind, and a weight that may be shared."""

    Config = Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Linear(config.width, config.width)
        self.second = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(0.5)
        if config.tied:
            self.second.weight = self.first.weight
        self.register_buffer("wide", torch.rand(4, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(2**40 + 1))
        self.register_buffer("turned", torch.rand(2, 5).T)


class OtherConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    depth: int


class Other(Model):
    Config = OtherConfig  # type: ignore[assignment]


class Deeper(Model):
    """Reads the same configuration, holds other weights."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.third = nn.Linear(3, 3)


def made(seed: int, config: Config | None = None) -> Model:
    torch.manual_seed(seed)
    return Model(config or Config())


def same(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return list(left) == list(right) and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_pretrained(made(0), tmp_path / "weights")
    return tmp_path / "weights"


@pytest.mark.parametrize("config", [Config(), Config(width=7), Config(tied=True)], ids=str)
def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path, config: Config) -> None:
    model = made(0, config)
    assert isinstance(model, Configured)
    model.first.weight.data[0, :3] = torch.tensor([torch.nan, -0.0, 1e-40])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_pretrained(model, tmp_path / "a" / "b")
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [CONFIG, WEIGHTS]
    loaded = from_pretrained(Model, tmp_path / "a" / "b")
    assert loaded.config == config
    assert not any(module.training for module in loaded.modules())
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    for state in (model.state_dict(), loaded.state_dict()):
        for name, value in state.items():
            assert value.dtype == before[name].dtype
            assert value.numpy().tobytes() == before[name].numpy().tobytes()
    assert (loaded.second.weight is loaded.first.weight) == config.tied


def test_half_precision_rounds_floats_alone(tmp_path: Path) -> None:
    model = made(0, Config(width=64))
    save_pretrained(model, tmp_path / "whole")
    save_pretrained(model, tmp_path / "half", half=True)
    assert (tmp_path / "half" / WEIGHTS).stat().st_size < 0.6 * (tmp_path / "whole" / WEIGHTS).stat().st_size
    loaded = from_pretrained(Model, tmp_path / "half")
    for name, value in model.state_dict().items():
        rounded = value.bfloat16().to(value.dtype) if value.is_floating_point() else value
        assert torch.equal(loaded.state_dict()[name], rounded)


def test_saving_is_repeatable_to_the_byte(tmp_path: Path, folder: Path) -> None:
    save_pretrained(made(1), tmp_path / "other")
    save_pretrained(made(0), tmp_path / "other")
    for name in (WEIGHTS, CONFIG):
        assert (tmp_path / "other" / name).read_bytes() == (folder / name).read_bytes()
    content = json.loads((folder / CONFIG).read_text())
    assert content == {"model": {"width": 3, "tied": False}, "sha256": sha256(folder / WEIGHTS)}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content)))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "no model.safetensors in"),
    "no configuration": (lambda folder: (folder / CONFIG).unlink(), "no config.json in"),
    "no folder": (shutil.rmtree, "no config.json in"),
    "weights are a folder": (lambda folder: ((folder / WEIGHTS).unlink(), (folder / WEIGHTS).mkdir()), "no model.safe"),
    "a flipped bit at the end": (lambda folder: flip(folder / WEIGHTS, -1), "damaged: its SHA-256"),
    "a flipped bit in the header": (lambda folder: flip(folder / WEIGHTS, 20), "damaged: its SHA-256"),
    "cut short": (lambda folder: os.truncate(folder / WEIGHTS, 100), "damaged: its SHA-256"),
    "empty": (lambda folder: os.truncate(folder / WEIGHTS, 0), "damaged: its SHA-256"),
    "no JSON": (lambda folder: (folder / CONFIG).write_text("{\n"), "config.json does not describe a Model"),
    "no text": (lambda folder: (folder / CONFIG).write_bytes(b"\xff\xfe\x00"), "config.json does not describe a Model"),
    "a list": (lambda folder: (folder / CONFIG).write_text("[1]"), "config.json does not describe a Model"),
    "nothing": (lambda folder: (folder / CONFIG).write_text("{}"), "config.json does not describe a Model"),
    "of another library": (
        lambda folder: (folder / CONFIG).write_text('{"_class_name": "UNet"}'),
        "config.json does not describe a Model",
    ),
    "unknown setting": (
        lambda folder: edit(folder / CONFIG, lambda held: {**held, "model": {"width": 3, "wdth": 3}}),
        "does not describe a Model .wdth: Extra",
    ),
    "wrong type": (
        lambda folder: edit(folder / CONFIG, lambda held: {**held, "model": {"width": "three"}}),
        "does not describe a Model .width: Input should be a valid integer",
    ),
    "another width": (
        lambda folder: edit(folder / CONFIG, lambda held: {**held, "model": {"width": 4}}),
        "does not fit a Model .*size mismatch for first.weight",
    ),
}


@pytest.mark.parametrize("name", list(DAMAGE))
def test_damage_is_one_line(folder: Path, name: str) -> None:
    damage, said = DAMAGE[name]
    damage(folder)
    with pytest.raises(InputError, match=said) as raised:
        from_pretrained(Model, folder)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize(("kind", "said"), [(Other, "depth: Field required"), (Deeper, "Missing key.*third.weight")])
def test_weights_of_another_model_are_one_line(folder: Path, kind: type[Model], said: str) -> None:
    with pytest.raises(InputError, match=f"a {kind.__name__} .*{said}") as raised:
        from_pretrained(kind, folder)
    assert "\n" not in str(raised.value)


def test_weights_that_lie_about_their_digest_are_still_not_read_as_others(folder: Path) -> None:
    """Not safetensors at all, with a matching digest."""
    (folder / WEIGHTS).write_bytes(b"\x80\x04cos\nsystem\n" * 20)
    edit(folder / CONFIG, lambda held: {**held, "sha256": sha256(folder / WEIGHTS)})
    with pytest.raises(InputError, match="does not fit a Model"):
        from_pretrained(Model, folder)


# A writer that is stopped


@pytest.mark.parametrize("after", [Config(), Config(width=5)], ids=str)
@pytest.mark.parametrize("before", ["weights", "nothing", "something else"])
def test_whenever_a_writer_is_killed_the_folder_holds_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: Config
) -> None:
    """Every state of the folder that others could see: before and after each rename."""
    folder, old, new = tmp_path / "weights", made(0), made(1, after)
    if before == "weights":
        save_pretrained(old, folder)
    if before == "something else":
        folder.mkdir()
        (folder / CONFIG).write_text('{"_class_name": "UNet"}')
        (folder / WEIGHTS).write_bytes(b"junk")
    seen: list[Path] = []

    def look() -> None:
        if folder.exists():
            seen.append(tmp_path / f"seen{len(seen)}")
            shutil.copytree(folder, seen[-1])

    rename = Path.replace

    def watched(self: Path, target: Path) -> Path:
        look()
        done = rename(self, target)
        look()
        return done

    monkeypatch.setattr(Path, "replace", watched)
    save_pretrained(new, folder)
    monkeypatch.undo()
    assert len(seen) == 6
    assert same(from_pretrained(Model, folder), new)
    found = []
    for state in seen:
        try:
            loaded = from_pretrained(Model, state)
            found.append("new" if same(loaded, new) else "old" if same(loaded, old) else "neither")
        except InputError:
            found.append("nothing")
    first = "old" if before == "weights" else "nothing"
    assert found == [first] * 3 + ["new"] * 3
    for state in seen:  # and the next writer, after such a kill, can be killed too
        save_pretrained(made(2), state)
        assert same(from_pretrained(Model, state), made(2))


def test_a_second_kill_loses_nothing_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writers in a row die after describing their weights and before putting them there."""
    folder = tmp_path / "weights"
    save_pretrained(made(0), folder)
    rename = Path.replace

    class Killed(BaseException):
        pass

    def dies(self: Path, target: Path) -> Path:
        if Path(target).name == WEIGHTS:
            raise Killed
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", dies)
    for seed in (1, 2):
        with pytest.raises(Killed):
            save_pretrained(made(seed, Config(width=5)), folder)
        assert same(from_pretrained(Model, folder), made(0))


@pytest.mark.parametrize("write", range(3))
def test_a_full_disk_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path, write: int
) -> None:
    """The disk fills up while the weights are written, or the configuration, the first or the second time."""
    texts = [0]
    write_text = Path.write_text

    def full(self: Path, *args: object, **kwargs: object) -> int:
        texts[0] += 1
        if texts[0] == write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_text(self, *args, **kwargs)  # type: ignore[arg-type]

    def full_at_once(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    if write == 0:
        monkeypatch.setattr("reed_core.hub.save_file", full_at_once)
    with pytest.raises(InputError, match="No space left on device"):
        save_pretrained(made(1, Config(width=5)), folder)
    monkeypatch.undo()
    held = from_pretrained(Model, folder)
    assert same(held, made(1, Config(width=5)) if write == 2 else made(0))
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]
    del tmp_path
