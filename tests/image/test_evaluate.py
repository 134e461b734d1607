"""From pictures to figures: where pictures come from, what is compared with what, and the command that prints it."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import timm
import torch
from picture_files import encoded, picture, write_folder, write_zip
from reed_core.errors import InputError
from reed_core.hub import save_pretrained
from reed_image.autoencoder import load_autoencoder
from reed_image.data import open_source, prepare
from reed_image.encoders.resnet20 import ResNet20
from reed_image.evaluation import collect, evaluate
from reed_image.metrics import inception
from reed_image.metrics.extractor import EncoderExtractor, open_extractor
from reed_image.metrics.hidden import compare_hidden, hidden_states
from reed_image.metrics.inception import open_inception
from reed_image.metrics.pictures import Pictures, Squares, evenly, open_pictures
from reed_image.model import ImageModel, ModelConfig
from reed_image.network import SiTConfig
from safetensors.torch import save_file
from torch import Tensor, nn

Call = Callable[..., int]
NETWORK = SiTConfig(size=16, channels=3, patch=4, width=32, depth=2, heads=2, classes=2)
CPU = ("--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Square pictures in a folder, prepared ones with and without their pixels, encoders of files, and a model."""
    folder = tmp_path_factory.mktemp("place")
    for number in range(24):
        name = ("ant", "bee")[number // 12]
        (folder / "real" / name).mkdir(parents=True, exist_ok=True)
        (folder / "real" / name / f"{number:02d}.png").write_bytes(encoded(picture(number, 16, 16)))
    write_folder(folder / "wide", each=3)
    (folder / "real" / "bee" / "broken.png").write_bytes(b"none")
    source, pixels = open_source(folder / "real"), load_autoencoder("pixels")
    for name, images in (("kept", True), ("latents", False)):
        settings: dict[str, Any] = {"size": 16, "flips": True, "dtype": "float32", "progress": False}
        prepare(source, folder / name, pixels, images=images, **settings)
    torch.manual_seed(0)
    save_file(ResNet20().state_dict(), folder / "resnet.safetensors")
    save_file(timm.create_model("test_vit").state_dict(), folder / "vit.safetensors")
    model = ImageModel(ModelConfig(network=NETWORK, class_names=("ant", "bee")))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    save_pretrained(model, folder / "weights")
    return folder


@pytest.fixture
def call(place: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the program in this process, and returns its exit code."""
    from reed_image.cli import main

    monkeypatch.chdir(place)

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["reed-image", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    return run


def pixels(pictures: Pictures, size: int = 7, **settings: Any) -> Tensor:
    return torch.cat(list(Squares(pictures, **settings).batches(size)))


def small(place: Path) -> EncoderExtractor:
    found = open_extractor(f"resnet20={place / 'resnet.safetensors'}")
    assert isinstance(found, EncoderExtractor)
    return found


def values(folder: Path, name: str = "found.json") -> dict[str, float]:
    found = json.loads((folder / name).read_text())
    return {one["name"]: one["value"] for one in found["figures"]}


def test_pictures_are_the_same_from_everywhere(place: Path, tmp_path: Path) -> None:
    from_files = pixels(open_pictures(str(place / "real")))
    assert from_files.shape == (24, 3, 16, 16)
    assert from_files.dtype == torch.uint8
    write_zip(tmp_path / "real.zip", place / "real")
    np.savez(tmp_path / "real.npz", arr_0=from_files.permute(0, 2, 3, 1).numpy())
    np.savez_compressed(tmp_path / "small.npz", from_files.permute(0, 2, 3, 1).numpy())
    for where in (tmp_path / "real.zip", tmp_path / "real.npz", tmp_path / "small.npz", place / "kept"):
        assert torch.equal(pixels(open_pictures(str(where)), 5), from_files)
    decoded = open_pictures(str(place / "latents"))
    assert "decoded" in decoded.description
    assert torch.equal(pixels(decoded, 24), from_files)


def test_a_part_is_taken_evenly(place: Path, tmp_path: Path) -> None:
    whole = pixels(open_pictures(str(place / "kept")))
    np.savez(tmp_path / "real.npz", arr_0=whole.permute(0, 2, 3, 1).numpy())
    for where in (place / "kept", tmp_path / "real.npz"):
        assert torch.equal(pixels(open_pictures(str(where), 6)), whole[::4])
    files = Squares(open_pictures(str(place / "real"), 25))
    assert sum(len(one) for one in files.batches(4)) == files.used == 24
    assert files.unusable == 1
    assert list(evenly(10, 3, "x")) == [0, 3, 6]
    for wrong in (0, 26):
        with pytest.raises(InputError, match="has 25"):
            open_pictures(str(place / "real"), wrong)


def test_sizes_are_kept_or_asked_for(place: Path, tmp_path: Path) -> None:
    wide = open_pictures(str(place / "wide"))
    with pytest.raises(InputError, match="40 x 32 pixels is not square"):
        pixels(wide)
    with pytest.raises(InputError, match="among such of 16"):
        pixels(wide, side=16)
    squares = Squares(wide, 16, "adm")
    assert {tuple(one.shape[1:]) for one in squares.batches(4)} == {(3, 16, 16)}
    assert (squares.changed, squares.enlarged) == (6, 0)
    larger = Squares(open_pictures(str(place / "kept")), 20, "adm")
    assert sum(map(len, larger.batches(9))) == larger.changed == larger.enlarged == 24
    for name, array in (("type", np.zeros((2, 4, 4, 3))), ("axes", np.zeros((4, 4, 3), np.uint8))):
        np.savez(tmp_path / f"{name}.npz", arr_0=array)
        with pytest.raises(InputError, match="expected pictures"):
            open_pictures(str(tmp_path / f"{name}.npz"))
    np.savez(tmp_path / "named.npz", other=np.zeros(3))
    with pytest.raises(InputError, match="no pictures under arr_0"):
        open_pictures(str(tmp_path / "named.npz"))
    nothing = Pictures("none", 2, lambda size: iter([[None, None]]))
    with pytest.raises(InputError, match="no picture of none can be used"):
        pixels(nothing)


def test_encoders_by_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    own = small(place)
    found = own(images)
    assert own.name == "resnet20"
    assert found.pooled.shape == (3, 64)
    assert torch.allclose(found.pooled, own.encoder(images.float() / 255).z)
    assert found.logits is not None
    assert torch.allclose(found.logits, own.encoder.module.linear(found.pooled))
    (place / "encoders").mkdir()
    shutil.copy(place / "resnet.safetensors", place / "encoders" / "resnet20_cifar10.safetensors")
    monkeypatch.setenv("REED_DATA", str(place))
    assert open_extractor("resnet20").fingerprint == own.fingerprint
    assert open_extractor("resnet20@64").name == "resnet20@64"
    assert open_extractor("resnet20@64").fingerprint != own.fingerprint
    vit = open_extractor(f"test_vit@160={place / 'vit.safetensors'}")
    named = open_extractor(f"test_vit@160={place / 'vit.safetensors'}", "class")
    assert (vit.name, named.name) == ("test_vit@160", "test_vit class@160")
    assert vit.fingerprint != named.fingerprint
    assert not torch.allclose(vit(images).pooled, named(images).pooled)
    assert open_extractor("test_vit@32=random").name == "test_vit random@32"
    assert open_extractor("layout")(images).pooled.shape == (3, 192)
    for wrong, said in (
        ("no_such_net", "no timm model"),
        ("test_vit@33=random", "multiples of 16"),
        ("resnet20@30", "multiples of 4"),
        ("resnet20=", "expected NAME"),
        ("layout@64", "its own size"),
        ("layout=x", "no weights"),
        ("mobilenet_v2=none", "no file none"),
    ):
        with pytest.raises(InputError, match=said):
            open_extractor(wrong)
    with pytest.raises(InputError, match="class token"):
        open_extractor("resnet20", "class")


def test_figures_do_not_depend_on_batches_and_a_set_is_itself(place: Path) -> None:
    extractor, real = small(place), open_pictures(str(place / "kept"))
    one, other = (collect(Squares(real), [extractor], size, logits=True)[0] for size in (5, 24))
    assert torch.allclose(one.gaussian.covariance, other.gaussian.covariance, rtol=1e-4, atol=1e-9)
    assert one.features is not None
    assert one.features.shape == (24, 64)
    sums = collect(Squares(real), [extractor], 24, keep=False)[0]
    assert torch.equal(sums.gaussian.mean, other.gaussian.mean)
    assert sums.features is None
    report, kept = evaluate(real, real, [extractor], ["fd", "kid", "pr", "dc", "is"], floor=True, batch=24)
    found = {figure.name: figure.value for figure in report.figures}
    assert found["fd[resnet20]"] < 1e-9 * float(kept[0].gaussian.covariance.trace())
    for name in ("precision", "recall", "density", "coverage"):
        assert found[f"{name}[resnet20]"] == pytest.approx(1)
    assert 1 <= found["is[resnet20]"] <= 10
    floor = {figure.name: figure for figure in report.floor}
    assert set(floor) == set(found)
    assert (floor["fd[resnet20]"].drawn, floor["fd[resnet20]"].real) == (12, 12)
    assert floor["fd[resnet20]"].value > found["fd[resnet20]"]
    assert any("rank 23" in warning for warning in report.warnings)
    assert "floor: 12 against 12" in str(report)


def test_hidden_states_belong_to_their_pictures(place: Path) -> None:
    from reed_image.data import open_prepared
    from reed_image.model import load

    model, prepared = load(place / "weights"), open_prepared(place / "kept")
    items = list(range(0, 48, 2))
    states = hidden_states(model, prepared, items, ["blocks.0", "blocks.1"], [0.2, 0.9], batch=24)
    assert {key: tuple(value.shape) for key, value in states.items()} == {
        (tap, time): (24, 32) for tap in ("blocks.0", "blocks.1") for time in (0.2, 0.9)
    }
    again = hidden_states(model, prepared, items[5:9], ["blocks.1"], [0.9], batch=3)
    assert torch.allclose(again["blocks.1", 0.9], states["blocks.1", 0.9][5:9], atol=1e-4)
    labels = prepared.labels_of(items)
    rows = compare_hidden(states, labels, {"itself": states["blocks.0", 0.2]})
    assert rows[0].cknna["itself"] == pytest.approx(1)
    assert rows[0].cka["itself"] == pytest.approx(1)
    assert rows[0].probe is not None
    assert rows[0].probe.tested == 4
    assert compare_hidden(states, torch.full_like(labels, -1), {})[0].probe is None
    for taps, times in ((["blocks.7"], [0.5]), (["blocks.0"], [1.5]), ([], [0.5])):
        with pytest.raises(InputError):
            hidden_states(model, prepared, items, taps, times)


def test_from_the_command_line(place: Path, call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = ("--encoder", "resnet20=resnet.safetensors")
    asked = ("--encoder", "test_vit@160=vit.safetensors", "--json", tmp_path / "found.json")
    assert call("evaluate", "wide", "--reference", "real", "--size", 16, *encoder, *asked, "--num", 6, *CPU) == 0
    said = capsys.readouterr().out
    assert "fd[resnet20]" in said
    assert "6 sample pictures were cropped to 16 pixels" in said
    assert "1 reference pictures cannot be used" in said
    found = json.loads((tmp_path / "found.json").read_text())
    assert {one["name"].partition("[")[0] for one in found["figures"]} == {
        *("fd", "kid", "precision", "recall", "density", "coverage")
    }
    assert [(one["name"], one["width"]) for one in found["encoders"]] == [("resnet20", 64), ("test_vit@160", 64)]
    assert {(one["drawn"], one["real"]) for one in found["figures"]} == {(6, 24)}


def test_statistics_stand_for_the_reference(
    place: Path, call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "real" / "ant", tmp_path / "half")
    judged = ("evaluate", tmp_path / "half", "--encoder", "resnet20=resnet.safetensors", *CPU)
    out = ("--json", tmp_path / "found.json")
    kept = tmp_path / "real.safetensors"
    assert call(*judged, "--reference", "kept", "--metrics", "fd", "--save-statistics", kept, *out) == 0
    direct = values(tmp_path)
    assert list(direct) == ["fd[resnet20]"]
    assert call(*judged, "--statistics", kept, *out) == 0
    assert values(tmp_path) == direct
    again = ("--save-statistics", tmp_path / "again.safetensors", "--reference", "latents")
    assert call("evaluate", *again, "--encoder", "resnet20=resnet.safetensors", *CPU) == 0
    assert call(*judged, "--statistics", tmp_path / "again.safetensors", *out) == 0
    assert values(tmp_path) == pytest.approx(direct, rel=1e-6)
    capsys.readouterr()
    for arguments, refused in (
        (("--encoder", "test_vit@160=vit.safetensors"), "of resnet20, the features of test_vit@160"),
        (("--encoder", "resnet20=resnet.safetensors", "--size", 32), "--size 32"),
        (("--encoder", "resnet20=resnet.safetensors", "--metrics", "kid"), "give --reference"),
        (("--encoder", "resnet20=resnet.safetensors", "--floor"), "give --reference"),
    ):
        assert call("evaluate", tmp_path / "half", "--statistics", kept, *arguments, *CPU) == 2
        assert refused in " ".join(capsys.readouterr().err.split())


def test_drawn_pictures_are_judged_as_their_files(
    place: Path, call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing = ("--weights", "weights", "--num", 12, "--steps", 2, "--seed", 5, "--cfg", 2, "--batch", 12)
    judging = ("--reference", "kept", "--encoder", "resnet20=resnet.safetensors", "--batch", 12, *CPU)
    asked = ("--metrics", "is,dc,pr,fd", "--floor", "--json", tmp_path / "found.json")
    assert call("evaluate", *drawing, *judging, *asked) == 0
    assert "weights (heun, 2 steps, guidance 2, seed 5)" in capsys.readouterr().out
    direct = values(tmp_path)
    assert call("sample", *drawing, "--out", tmp_path / "drawn", *CPU) == 0
    assert call("evaluate", tmp_path / "drawn", "--seed", 5, *judging, *asked) == 0
    assert values(tmp_path) == pytest.approx(direct, rel=1e-9)
    capsys.readouterr()


def test_hidden_states_from_the_command_line(
    place: Path, call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probing = ("evaluate", "--weights", "weights", "--probe", "latents", *CPU)
    asked = ("--encoder", "resnet20=resnet.safetensors", "--encoder", "layout", "--json", tmp_path / "found.json")
    assert call(*probing, *asked, "--time", 0.1, "--time", 0.5) == 0
    said = capsys.readouterr().out
    assert "cknna[layout]" in said
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [(row["tap"], row["time"]) for row in rows] == [
        (tap, time) for tap in ("blocks.0", "blocks.1") for time in (0.1, 0.5)
    ]
    assert set(rows[0]["cknna"]) == {"resnet20", "layout"}
    assert 0 <= rows[0]["probe"]["accuracy"] <= 1
    assert call(*probing, "--tap", "blocks.1", "--num", 12) == 0
    assert "12 pictures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "either --reference or --statistics"),
        (("real", "--reference", "kept", "--statistics", "x.npz"), "either --reference or --statistics"),
        (("--reference", "kept"), "nothing to judge"),
        (("real", "--weights", "weights", "--reference", "kept"), "give one"),
        (("real", "--reference", "kept", "--save-statistics", "x.npz"), ".safetensors"),
        (("none", "--reference", "kept"), "no file or folder none"),
        (("real", "--reference", "kept", "--metrics", "fid"), "expected some of fd,kid,pr,dc,is"),
        (("real", "--reference", "kept", "--encoder", "layout", "--metrics", "is"), "is needs a classifier"),
        (("real", "--reference", "none", "--encoder", "layout"), "no file or folder none"),
        (("none", "--reference", "kept", "--encoder", "layout"), "no file or folder none"),
        (("real", "--statistics", "none.npz", "--encoder", "layout"), "no file none.npz"),
        (("real", "--reference", "kept", "--encoder", "layout", "--encoder", "layout"), "two have one name"),
        (("real", "--reference", "kept", "--encoder", "layout", "--num", "0"), "0 pictures"),
        (("real", "--reference", "kept", "--tap", "blocks.0"), "belong to --probe"),
        (("--probe", "kept"), "give --weights"),
        (("--probe", "kept", "--weights", "weights", "--reference", "kept"), "goes without --reference"),
        (("--probe", "real", "--weights", "weights"), "no prepared pictures in real"),
        (("--probe", "kept", "--weights", "weights", "--tap", "blocks.9"), "no submodule 'blocks.9'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value)[:60],
)
def test_mistakes_end_with_one_line(
    call: Call, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert call("evaluate", *arguments, *CPU) == 2
    shown = capsys.readouterr()
    assert said in " ".join(shown.err.split())
    assert "Traceback" not in shown.err
    assert shown.out == ""


class Double(nn.Module):
    """What torch-fidelity's network is to us: made by name, features and file; 8-bit in, features out."""

    def __init__(self, name: str, features: list[str], weights: str | None) -> None:
        super().__init__()
        assert (name, features) == ("inception", ["2048", "logits_unbiased"])
        if weights is None:
            raise ConnectionError("https://somewhere.example")
        self.fc = nn.Linear(3, 10)
        self.load_state_dict(torch.load(weights, weights_only=True))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        assert x.dtype == torch.uint8
        pooled = x.float().mean((2, 3)) / 255
        return pooled, self.fc(pooled)


def test_without_torch_fidelity_there_is_no_fid(
    call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    assert call("evaluate", "real", "--reference", "kept", *CPU) == 2
    said = capsys.readouterr().err
    assert "pip install 'reed-image[fid]'" in said
    assert len(said.splitlines()) == 1


def test_inception_is_the_published_one(
    place: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    double = ModuleType("double")
    double.FeatureExtractorInceptionV3 = Double  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", double)
    with pytest.raises(InputError, match=r"cannot be fetched \(ConnectionError\)") as refused:
        open_inception()
    assert "somewhere" not in str(refused.value)
    torch.manual_seed(0)
    torch.save({"fc.weight": torch.randn(10, 3), "fc.bias": torch.zeros(10)}, tmp_path / "own.pth")
    with pytest.raises(InputError, match="FID means those weights"):
        open_inception(tmp_path / "own.pth")
    with pytest.raises(InputError, match="cannot be read"):
        open_inception(tmp_path / "none.pth")
    monkeypatch.setattr(inception, "DIGEST", "")
    (tmp_path / "torn.pth").write_bytes(b"none")
    with pytest.raises(InputError, match="is damaged"):
        open_inception(tmp_path / "torn.pth")
    real = pixels(open_pictures(str(place / "kept"))).double().mean((2, 3)) / 255
    np.savez(tmp_path / "adm.npz", mu=real.mean(0).numpy(), sigma=np.cov(real.numpy(), rowvar=False))
    judged = ("evaluate", "real", "--encoder", f"inception={tmp_path / 'own.pth'}", *CPU)
    out = ("--json", tmp_path / "found.json")
    assert call(*judged, "--statistics", tmp_path / "adm.npz", *out) == 0
    assert values(tmp_path)["fid"] == pytest.approx(0, abs=1e-6)
    assert call(*judged, "--reference", "kept", "--metrics", "fd,kid,pr,is", *out) == 0
    assert set(values(tmp_path)) == {"fid", "kid", "is", "precision[inception]", "recall[inception]"}
    capsys.readouterr()
