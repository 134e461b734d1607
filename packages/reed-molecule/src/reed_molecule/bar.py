"""The progress bar of drawing, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def drawing(total: int | None, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told how many samples are done.

    Args:
        total: How many there will be; None where that is not known.
        quiet: Show nothing.
    """
    columns = (TextColumn("drawing molecules"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)
