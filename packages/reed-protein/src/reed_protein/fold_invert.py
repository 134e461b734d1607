"""The `fold-invert` command: a structure file in, FASTA out."""

from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from reed_core import console
from reed_core.errors import InputError
from reed_core.files import write_text
from reed_core.sample.masked import Order

from reed_protein.design import Designer, load
from reed_protein.fasta import FastaRecord, format_record
from reed_protein.structure import Structure, read_structure


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
    designer = load(request.weights, device)
    records = [_native(structure, designer, request)]
    for design in designer.designs(
        structure, request.num, request.temperature, request.steps, request.seed, request.order
    ):
        fields: dict[str, str | int | float] = {"score": f"{design.score:.4f}"}
        if design.recovery is not None:
            fields["recovery"] = f"{design.recovery:.4f}"
        fields |= {"temperature": f"{design.temperature:g}", "seed": design.seed, "sample": design.sample}
        records.append(FastaRecord(structure.name, fields, _joined(structure, design.sequence, request.separator)))
    text = "".join(format_record(record) for record in records)
    if request.out is None:
        stream.write(text)
        stream.flush()
    else:
        write_text(request.out, text)
    sizes = ", ".join(f"{chain} ({structure.chain_ids.count(chain)})" for chain in structure.chains)
    place = f" -> {request.out}" if request.out else ""
    console.report(
        f"{structure.name}: designed {len(structure.sequence)} residues, chains {sizes}; {request.num} sequences{place}"
    )


def _native(structure: Structure, designer: Designer, request: Request) -> FastaRecord:
    score = designer.score_native(structure)
    fields: dict[str, str | int | float] = {} if score is None else {"score": f"{score:.4f}"}
    fields |= {"chains": " ".join(structure.chains), "residues": len(structure.sequence)}
    return FastaRecord(structure.name, fields, _joined(structure, structure.sequence, request.separator))


def _joined(structure: Structure, sequence: str, separator: str) -> str:
    """The sequence with its chains apart, in file order."""
    parts = [
        "".join(r for r, of in zip(sequence, structure.chain_ids, strict=True) if of == c) for c in structure.chains
    ]
    return separator.join(parts)
