"""What every command line of REED shares: how it starts, how it reports and how it ends. Imports no torch.

what happened                                            standard error          exit code
the command returned, or raised `typer.Exit(code)`       nothing                 0, or the code
`InputError`                                             `error: ...`, one line  2
a wrong option or argument                               usage and what is wrong 2
no space left for the results                            `error: ...`, one line  2
Ctrl-C, or a question answered by Ctrl-C                 `interrupted`           130
the reader of the results left early (`| head -1`)       nothing                 1
anything else is a bug                                   its traceback           1
"""

import contextlib
import errno
import importlib.metadata
import os
import select
import sys
from typing import Any, NoReturn, cast

import typer

from reed_core.errors import InputError

READER_LEFT = 1
BAD_INPUT = 2
INTERRUPTED = 130

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# The class above every complaint about options. It is not public under one name in every typer: older ones take it
# from click, newer ones carry their own.
_USAGE = cast(
    "type[typer.BadParameter]", next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
)


def report(line: str) -> None:
    """Prints one line for the person, on standard error: standard output is for results alone.

    Of the processes that torchrun starts, only the first prints.
    """
    if os.environ.get("RANK", "0") == "0":
        _say(line)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        typer.echo(line, err=True)


def version_option(distribution: str) -> Any:
    """The `--version` option, eager: it prints `NAME VERSION` as installed and ends the program.

    Args:
        distribution: What was installed, such as "reed-protein".

    Returns:
        What typer wants to see: `version: Annotated[bool, version_option("reed-protein")] = False`.
    """

    def show(asked: bool) -> None:
        if asked:
            typer.echo(f"{distribution} {importlib.metadata.version(distribution)}")
            raise typer.Exit

    return typer.Option("--version", help="Show the version and exit.", callback=show, is_eager=True)


def run(app: typer.Typer) -> NoReturn:
    """Runs a typer application and ends the process as the table above says.

    Args:
        app: The application. A command that returns an integer ends with it as its exit code.

    Raises:
        SystemExit: Always, unless the application has a bug: then its own exception.
    """
    output = sys.stdout
    try:
        # Not `app()`: that installs an exception hook and ends the process by its own rules.
        status = typer.main.get_command(app)(standalone_mode=False)
        if output is not None:
            output.flush()
    except InputError as error:
        _end(BAD_INPUT, f"error: {' '.join(str(error).split())}")
    except (KeyboardInterrupt, typer.Abort) as error:
        if isinstance(error.__cause__, EOFError):  # typer takes an EOFError from anywhere for the end of the input
            raise error.__cause__ from None
        _end(INTERRUPTED, "interrupted")
    except SystemExit as end:
        # typer answers a broken pipe with `sys.exit(1)`, whichever pipe it was, and covers the output while doing so.
        if not isinstance(end.__context__, BrokenPipeError) or sys.stdout is output:
            raise
        _end_if_reader_left(end.__context__)
    except BrokenPipeError as error:
        _end_if_reader_left(error)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        place = error.filename or "the results"
        _end(BAD_INPUT, f"error: cannot write {place}: {error.strerror}; free some space or choose another place")
    except _USAGE as error:
        with contextlib.suppress(OSError):
            error.show()
        sys.exit(BAD_INPUT)
    if status == INTERRUPTED:  # what newer typers make of Ctrl-C
        _end(INTERRUPTED, "interrupted")
    sys.exit(status if isinstance(status, int) else 0)


def _end(code: int, line: str | None = None) -> NoReturn:
    """Ends the process; what standard output still holds and cannot be written is dropped, not complained about."""
    if line is not None:
        _say(line)
    for stream in filter(None, (sys.__stdout__, sys.__stderr__)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _end_if_reader_left(error: BrokenPipeError) -> NoReturn:
    """Ends quietly if nobody reads our output any more; a pipe broken elsewhere (a worker that died) is a bug."""
    for stream in filter(None, (sys.__stdout__, sys.__stderr__)):
        if _broken(stream.fileno()):
            _end(READER_LEFT)
    raise error


def _broken(descriptor: int) -> bool:
    if not hasattr(select, "poll"):  # Windows cannot tell
        return True
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
