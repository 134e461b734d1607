"""The progress of a run, on standard error: how far, how fast, how long; and below, the losses and where time goes.

training ━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 3551/12000 14.0 samples/s 10:02
loss 1.888  denoising 1.772  teacher -0.266  data 1%  MFU 38%
"""

from collections.abc import Iterable, Mapping
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from reed_core.train.meter import Reading

_SECONDS_OF_ESTIMATE, _REFRESHES_PER_SECOND = 300.0, 4.0


class ProgressLine:
    """Two lines that are drawn anew as a run goes on; where standard error is no terminal, only the last state.

    Args:
        total: Samples to train on.
        completed: Samples seen before.
        shown: False draws nothing.
        console: Where to; standard error if None.
    """

    def __init__(self, total: int, completed: int = 0, shown: bool = True, console: Console | None = None) -> None:
        self._total = total
        self._bar = _Bar(
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True),
            console=console or Console(stderr=True),
            disable=not shown,
            speed_estimate_period=_SECONDS_OF_ESTIMATE,
            refresh_per_second=_REFRESHES_PER_SECOND,
            expand=True,
        )
        self._task = self._bar.add_task("training", total=total, completed=completed, speed="")

    def __enter__(self) -> "ProgressLine":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def moved(self, samples: int) -> None:
        """Moves the bar.

        Args:
            samples: Samples seen.
        """
        self._bar.update(self._task, completed=min(samples, self._total))

    def told(self, losses: Mapping[str, float], reading: Reading | None = None) -> None:
        """Shows figures until the next ones.

        Args:
            losses: The loss and its parts, by name, in the order shown.
            reading: Speed and use of the device.
        """
        figures = [f"{name} {value:.3f}" for name, value in losses.items()]
        if reading is not None:
            self._bar.update(self._task, speed=f"{reading.samples_per_second:.3g} samples/s")
            figures.append(f"data {reading.data_wait_share:.0%}")
            if reading.mfu is not None and reading.peak is not None:
                figures.append(f"MFU {reading.mfu:.0%}{'' if reading.peak.published else ' of measured peak'}")
        self._bar.figures = "  ".join(figures)


class _Bar(Progress):
    """A progress bar with a line of figures below."""

    figures = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.figures:
            yield Text(self.figures, style="dim")
