"""The `fold-invert` command: a structure file in, FASTA out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from reed_core import console
from reed_core.errors import InputError
from reed_core.files import write_text
from reed_core.sample.masked import Order
from rich.console import Console
from rich.progress import Progress

from reed_protein.design import Designer, load
from reed_protein.fasta import FastaRecord, format_record, join_chains, safe_name
from reed_protein.selection import designed_residues, letter_bias
from reed_protein.structure import Structure, read_structure

_BAR_FROM = 10  # sequences


@dataclass(frozen=True)
class Request:
    """What the command line asked for; the names are its options."""

    file: Path
    num: int
    temperature: float
    steps: int
    order: Order
    seed: int
    chains: tuple[str, ...] | None
    design: str | None
    fix: str | None
    omit: str
    bias: str
    separator: str
    out: Path | None
    weights: Path | None


def run(request: Request, device: str, stream: TextIO) -> None:
    """Reads, designs and writes.

    Args:
        request: The command.
        device: Where to run the network.
        stream: Where FASTA goes without `out`.

    Raises:
        InputError: If anything given cannot be used. `out` is then left as it was.
    """
    if not request.separator or any(letter.isalpha() or letter.isspace() for letter in request.separator):
        raise InputError(f"--separator {request.separator!r}: expected a mark such as / or :, not letters or spaces")
    structure = read_structure(request.file, request.chains)
    for note in structure.notes:
        console.report(f"note: {note}")
    designed = designed_residues(structure, request.design, request.fix)
    bias = letter_bias(request.omit, request.bias)
    designer = load(request.weights, device)
    written: list[str] = []
    for text in _records(structure, designer, request, designed, bias):
        if request.out is None:
            stream.write(text)
            stream.flush()
        written.append(text)
    if request.out is not None:
        write_text(request.out, "".join(written))
    sizes = ", ".join(
        f"{chain} ({designed[[of == chain for of in structure.chain_ids]].sum()} of {structure.chain_ids.count(chain)})"
        for chain in structure.chains
    )
    place = f" -> {request.out}" if request.out else ""
    console.report(
        f"{structure.name}: designed {designed.sum()} of {len(structure)} residues, chains {sizes}; "
        f"sequences: {request.num}{place}"
    )


def _records(
    structure: Structure, designer: Designer, request: Request, designed: np.ndarray, bias: np.ndarray
) -> Iterator[str]:
    """FASTA, a record at a time: the native, then the designs."""
    designs = designer.designs(
        structure, request.num, request.temperature, request.steps, request.seed, request.order, designed, bias
    )
    name, chains = safe_name(structure.name), structure.chain_ids
    score = designer.score_native(structure, designed)
    fields: dict[str, str | int | float] = {} if score is None else {"score": score}
    fields |= {"chains": " ".join(structure.chains), "designed": int(designed.sum()), "residues": len(structure)}
    yield format_record(FastaRecord(name, fields, join_chains(structure.sequence, chains, request.separator)))
    bar = Progress(console=Console(stderr=True), transient=True, disable=request.num < _BAR_FROM)
    with bar:
        for design in bar.track(designs, total=request.num, description="designing"):
            fields = {"score": design.score}
            if design.recovery is not None:
                fields["recovery"] = design.recovery
            fields |= {"temperature": f"{design.temperature:g}", "seed": design.seed, "sample": design.sample}
            yield format_record(FastaRecord(name, fields, join_chains(design.sequence, chains, request.separator)))
