"""The `fold-invert` command: structure files in, FASTA out.

One structure goes to standard output or `out`, several to a file each in `out_dir`, whole or not at all. Of several,
one that fails is told in its line and the others are still done; the command then ends with exit code 2. A dry run
reads, settles what would be designed and says so; it loads no network.

Other files (`outputs`) are written before the FASTA file, which so says that a structure is finished. In `out_dir` they
carry the structure's name: `--threaded model.cif` becomes `NAME_model.cif`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

import numpy as np
from reed_core import console
from reed_core.errors import InputError
from reed_core.files import write_text
from rich.console import Console
from rich.progress import Progress

from reed_protein import dry_run
from reed_protein.controls import Controls, Plan
from reed_protein.fasta import FastaRecord, format_record, join_chains, safe_name
from reed_protein.inputs import Input, Inputs, find
from reed_protein.reader_notes import counted, listed
from reed_protein.structure import Structure, read_structure
from reed_protein.surroundings import NEAR_ANGSTROM, near

if TYPE_CHECKING:
    from reed_protein.design import Design, Designer
    from reed_protein.outputs import Outputs
    from reed_protein.score import ScoreKind

_BAR_FROM = 10  # sequences


@dataclass(frozen=True)
class Request:
    """What the command line asked for, besides the controls; the names are its options."""

    inputs: tuple[str, ...]
    controls: Controls
    chains: tuple[str, ...] | None = None
    model: int = 1
    separator: str = "/"
    score: "ScoreKind" = "any-order"
    out: Path | None = None
    out_dir: Path | None = None
    outputs: Mapping[str, Path | None] = field(default_factory=dict)
    skip_finished: bool = False
    dry_run: bool = False
    weights: Path | None = None
    device: str = "cpu"
    threads: int = 1


def run(request: Request, stream: TextIO) -> int:
    """Reads, designs and writes. What can be refused without the network is refused before it is loaded.

    Args:
        request: The command.
        stream: Where FASTA goes without `out` and `out_dir`, and the report of a dry run.

    Returns:
        The exit code: 0, or 2 if one of several structures failed.

    Raises:
        InputError: If anything given cannot be used. `out` is then left as it was.
    """
    _check(request)
    found = find(request.inputs)
    if found.problems and not found.files:
        raise InputError(found.problems[0])
    if len(found.files) > 1 and not request.dry_run and request.out_dir is None:
        raise InputError(
            f"{' '.join(request.inputs)}: these are {len(found.files)} structures; "
            "give --out-dir, a folder for a FASTA file of each"
        )
    if len(found.files) == 1 and not found.problems:
        _alone(request, found.files[0], stream)
        return 0
    return _several(request, found, stream)


def _alone(request: Request, item: Input, stream: TextIO) -> None:
    task = _read(request, item)
    if task is not None and request.dry_run:
        stream.write(dry_run.report(task.structure, request.controls, task.plan))
    elif task is not None:
        _design(request, task, _load(request, item), stream, alone=True)


def _several(request: Request, found: Inputs, stream: TextIO) -> int:
    designer = None if request.dry_run else _load(request, found.files[0])
    failed = len(found.problems)
    for problem in found.problems:
        console.report(f"error: {problem}")
    bar = _bar(shown=True)
    with bar:
        for item in bar.track(found.files, description="structures"):
            try:
                task = _read(request, item)
                if task is not None and designer is None:
                    stream.write(dry_run.report(task.structure, request.controls, task.plan))
                elif task is not None and designer is not None:
                    _design(request, task, designer, stream, alone=False)
            except InputError as error:
                failed += 1
                console.report(f"error: {item.path}: {' '.join(str(error).split())}")
    console.report(f"structures: {len(found.files) + len(found.problems) - failed} done, {failed} failed")
    return console.BAD_INPUT if failed else 0


class _Task(NamedTuple):
    """A structure that is to be designed: what is read, what it comes to, and where FASTA goes."""

    item: Input
    structure: Structure
    plan: Plan
    out: Path | None


def _read(request: Request, item: Input) -> _Task | None:
    """Reads a structure and settles what is designed; None if it is finished and to be passed over."""
    out = request.out if request.out_dir is None else request.out_dir / f"{item.name}.fa"
    if request.skip_finished and out is not None and out.is_file():
        console.report(f"{item.name}: {out} is there already, skipped")
        return None
    structure = read_structure(item.path, request.chains, request.model)
    return _Task(item, structure, request.controls.plan(structure), out)


def _design(request: Request, task: _Task, designer: "Designer", stream: TextIO, alone: bool) -> None:
    """Designs one structure and writes all that was asked for."""
    from reed_protein.outputs import write_outputs

    item, structure, plan, out = task
    before = "" if alone else f"{item.name}: "
    around = counted(near(structure, plan.designed))
    unseen = [f"within {NEAR_ANGSTROM:g} A of designed residues, not seen by this model: {around}"] if around else []
    for note in (*structure.notes, *plan.notes, *unseen):
        console.report(f"note: {before}{note}")
    others = _outputs(request, item)
    encoding = designer.encode(structure)
    score = designer.score_native(structure, plan.designed, encoding, request.score)
    native = _native_record(structure, request, plan, score)
    if out is None:
        stream.write(native)
        stream.flush()
    designs, written = [], [native]
    drawn = designer.designs(structure, request.controls, encoding=encoding, score=request.score)
    for design in _with_bar(drawn, request.controls, alone):
        designs.append(design)
        written.append(_record(structure, request, design))
        if out is None:
            stream.write(written[-1])
            stream.flush()
    made = [str(path) for path in write_outputs(others, designer, structure, designs, plan.designed, encoding, alone)]
    if out is not None:
        write_text(out, "".join(written))
        made.insert(0, str(out))
    designed = plan.designed
    sizes = ", ".join(
        f"{chain} ({designed[[of == chain for of in structure.chain_ids]].sum()} of {structure.chain_ids.count(chain)})"
        for chain in structure.chains
    )
    console.report(
        f"{structure.name}: designed {designed.sum()} of {len(structure)} residues, chains {sizes}; "
        f"sequences: {len(designs)}{f' -> {listed(made)}' if made else ''}"
    )


def _native_record(structure: Structure, request: Request, plan: Plan, score: float | None) -> str:
    fields = _score_fields(score, request) | {
        "chains": " ".join(structure.chains),
        "designed": int(np.sum(plan.designed)),
        "residues": len(structure),
    }
    letters = join_chains(structure.sequence, structure.chain_ids, request.separator)
    return format_record(FastaRecord(safe_name(structure.name), fields, letters))


def _score_fields(score: float | None, request: Request) -> dict[str, str | int | float]:
    """The score, and its column in the table of `reed-protein score`."""
    return {} if score is None else {"score": score, "score_kind": request.score.replace("-", "_")}


def _record(structure: Structure, request: Request, design: "Design") -> str:
    fields = _score_fields(design.score, request)
    if design.recovery is not None:
        fields["recovery"] = design.recovery
    fields |= {"temperature": f"{design.temperature:g}", "seed": design.seed, "sample": design.sample}
    letters = join_chains(design.sequence, structure.chain_ids, request.separator)
    return format_record(FastaRecord(safe_name(structure.name), fields, letters))


def _with_bar(designs: Iterator["Design"], controls: Controls, alone: bool) -> Iterator["Design"]:
    total = controls.num * len(controls.temperatures)
    bar = _bar(alone and total >= _BAR_FROM)
    with bar:
        yield from bar.track(designs, total=total, description="designing")


def _bar(shown: bool) -> Progress:
    """A progress bar on standard error; none where that is a file or a pipe."""
    errors = Console(stderr=True)
    return Progress(console=errors, transient=True, disable=not (shown and errors.is_terminal))


def _outputs(request: Request, item: Input) -> "Outputs":
    """The files asked for beside FASTA, where they go for one structure."""
    from reed_protein.outputs import Outputs

    paths = {name: path for name, path in request.outputs.items() if path is not None}
    if request.out_dir is not None:
        paths = {name: request.out_dir / f"{item.name}_{path.name}" for name, path in paths.items()}
    return Outputs(**paths)


def _check(request: Request) -> None:
    if not request.separator or any(letter.isalpha() or letter.isspace() for letter in request.separator):
        raise InputError(f"--separator {request.separator!r}: expected a mark such as / or :, not letters or spaces")
    if request.out is not None and request.out_dir is not None:
        raise InputError("--out and --out-dir were both given; use --out for one structure, --out-dir for several")
    if request.skip_finished and request.out_dir is None:
        raise InputError("--skip-finished looks for files in --out-dir; give that too")


def _load(request: Request, first: Input) -> "Designer":
    """The network, once the other outputs are known to be possible."""
    from reed_core.device import use_device

    from reed_protein.design import load

    if any(request.outputs.values()):
        _outputs(request, first).check([request.out])
    return load(request.weights, use_device(request.device, request.threads))
