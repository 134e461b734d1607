"""The progress line: what it says, at the widths of terminals, and that it says nothing when it should not."""

import io

import pytest
from reed_core.train.meter import Reading
from reed_core.train.peak import Peak
from reed_core.train.progress import ProgressLine
from rich.console import Console

LOSSES = {"loss": 1.888, "denoising": 1.772, "teacher": -0.266}


def drawn(width: int, peak: Peak | None, shown: bool = True) -> str:
    out = io.StringIO()
    split = {"data": 0.25, "other": 9.75}
    reading = Reading(samples=140, seconds=10.0, split=split, flops=None if peak is None else 4e12, peak=peak)
    with ProgressLine(
        12000, 3000, shown, Console(file=out, width=width, force_terminal=True, color_system=None)
    ) as line:
        line.moved(3551)
        line.told(LOSSES, reading)
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_everything_is_said(width: int) -> None:
    text = " ".join(drawn(width, Peak(1e12, True, "published")).split())
    for word in ("3551/12000", "14 samples/s", "loss 1.888", "denoising 1.772", "teacher -0.266", "data 2%", "MFU 40%"):
        assert word in text
    assert "measured" not in text


def test_a_measured_peak_is_named_so_and_an_unknown_one_is_left_out() -> None:
    assert "MFU 40% of measured peak" in " ".join(drawn(120, Peak(1e12, False, "measured")).split())
    assert "MFU" not in drawn(120, None)


def test_nothing_is_drawn_when_it_is_not_shown() -> None:
    assert drawn(80, None, shown=False) == ""


def test_the_bar_ends_at_the_end() -> None:
    out = io.StringIO()
    with ProgressLine(100, console=Console(file=out, width=80, force_terminal=True, color_system=None)) as line:
        line.moved(104)
    assert "100/100" in out.getvalue()
