"""A pool of processes in which every job has a time limit, and a job that hangs or crashes costs that job alone.

RDKit's bond perception and embedding can run for hours on one unlucky molecule, inside C++ that no Python signal
reaches. So the parent watches the clock: a process past the limit is ended and replaced, its job is answered by
`Dropped`, and the other jobs go on. Answers come in the order of the jobs, whatever the number of processes.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, NamedTuple, TypeVar

from reed_core.errors import InputError

Payload = TypeVar("Payload")
Answer = TypeVar("Answer")

_START_LIMIT = 120.0  # seconds for a process to load its modules, on a busy machine
_AHEAD = 64  # answers that may wait for an earlier one, per process


class Dropped(NamedTuple):
    """Why a record is not used.

    Attributes:
        reason: A short kind, the same for all records of its kind: it is counted.
        detail: What was wrong with this one.
    """

    reason: str
    detail: str = ""


class UnusableError(InputError):
    """A record that cannot be used, with the kind of its reason."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.dropped = Dropped(reason, detail)

    def __reduce__(self) -> tuple[type["UnusableError"], tuple[str, str]]:
        return type(self), (self.dropped.reason, self.dropped.detail)


@dataclass
class _Worker(Generic[Payload, Answer]):
    process: BaseProcess
    pipe: Connection
    job: int | None
    deadline: float


class Pool(Generic[Payload, Answer]):
    """Processes that answer one function. Use it as a context; leaving it ends them.

    The processes are spawned, so a script that makes a pool keeps it under `if __name__ == "__main__"`.

    Args:
        function: Module-level function of one payload. `UnusableError`, and other `InputError`s, become `Dropped`.
        workers: Number of processes.
        timeout: Seconds for one job.
    """

    def __init__(self, function: Callable[[Payload], Answer], workers: int, timeout: float) -> None:
        if workers < 1 or timeout <= 0:
            raise InputError(f"workers {workers}, timeout {timeout}: expected at least one worker and a positive time")
        self._function, self._count, self._timeout = function, workers, timeout
        self._workers: list[_Worker[Payload, Answer]] = []

    def __enter__(self) -> "Pool[Payload, Answer]":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            _end(worker)
        self._workers.clear()

    def map(self, payloads: Sequence[Payload]) -> Iterator[Answer | Dropped]:
        """Answers in order. One call at a time; a call that is left half-way leaves the pool unusable.

        Raises:
            RuntimeError: If a process cannot be started, or the function has a bug.
        """
        answers: dict[int, Answer | Dropped] = {}
        sent = done = 0
        while len(self._workers) < min(self._count, len(payloads)):
            self._workers.append(self._start())
        while done < len(payloads):
            for worker in self._workers:
                if worker.job is None and sent < len(payloads) and sent - done < _AHEAD * self._count:
                    worker.pipe.send(payloads[sent])
                    worker.job, worker.deadline = sent, time.monotonic() + self._timeout
                    sent += 1
            busy = [worker for worker in self._workers if worker.job is not None]
            pause = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
            ready = wait([worker.pipe for worker in busy], timeout=pause)
            for worker in busy:
                assert worker.job is not None
                if worker.pipe in ready:
                    answers[worker.job] = self._received(worker)
                elif time.monotonic() >= worker.deadline:
                    answers[worker.job] = Dropped("time limit", f"no answer in {self._timeout:g} s")
                    self._replace(worker)
                else:
                    continue
                worker.job = None
            while done in answers:
                yield answers.pop(done)
                done += 1

    def _received(self, worker: _Worker[Payload, Answer]) -> Answer | Dropped:
        try:
            answer, bug = worker.pipe.recv()
        except (EOFError, ConnectionError):
            worker.process.join()
            code = worker.process.exitcode
            self._replace(worker)
            return Dropped("crash", f"the process ended with code {code}")
        if bug is not None:
            raise RuntimeError(f"a worker process failed: {bug}")
        return answer

    def _replace(self, worker: _Worker[Payload, Answer]) -> None:
        _end(worker)
        fresh = self._start()
        worker.process, worker.pipe = fresh.process, fresh.pipe

    def _start(self) -> _Worker[Payload, Answer]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._function), daemon=True)
        process.start()
        theirs.close()
        worker: _Worker[Payload, Answer] = _Worker(process, ours, None, 0.0)
        try:
            started = ours.poll(_START_LIMIT) and ours.recv() == "ready"
        except (EOFError, ConnectionError):
            started = False
        if not started:
            _end(worker)
            raise RuntimeError('a worker process did not start; a script needs `if __name__ == "__main__":` around it')
        return worker


def _end(worker: _Worker[Payload, Answer]) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _serve(pipe: Connection, function: Callable[[Payload], Answer]) -> None:
    """The life of a worker process: answers until its parent is gone."""
    pipe.send("ready")
    while True:
        try:
            payload = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        answer: Answer | Dropped | None = None
        bug = None
        try:
            answer = function(payload)
        except UnusableError as error:
            answer = error.dropped
        except InputError as error:
            answer = Dropped("not a molecule", str(error))
        except KeyboardInterrupt:
            return
        except Exception as error:
            bug = f"{type(error).__name__}: {error}"
        try:
            pipe.send((answer, bug))
        except (BrokenPipeError, ConnectionError):
            return
