"""FASTA records whose header is a name and `key=value` fields on one line, the way inverse folding tools write them.

    >5L33, score=1.5874, global_score=1.5874, designed_chains=['A'], seed=37
    HMPEEEKAARLFIEALEKGDPELMRKVISPDTRMEDNGREFTGDEVVEYVKEIQKRGEQWHLRRYTKEGNSWRFEVQVDNNGQTEQWEVQIEVRNGRIKRVTITHV
    >T=0.1, sample=1, score=0.8221, seq_recovery=0.5094

Fields are parted by commas, values in brackets may hold some; everything before the last run of fields is the name, so
a plain FASTA header is a name without fields. Chains of a complex stand in one record, joined by a separator (`/`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import MappingProxyType

from reed_core.errors import InputError
from reed_core.files import write_text

from reed_protein.text_file import read_text

Value = str | int | float
SEPARATOR = "/"

_FIELD = re.compile(r"(?P<key>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)", re.DOTALL)
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_FLOAT = re.compile(r"-?[0-9]+\.[0-9]*([eE][-+]?[0-9]+)?|-?[0-9]+[eE][-+]?[0-9]+|nan|-?inf")
# What stands between two commas; a value in brackets may hold commas of its own.
_PART = re.compile(r"(?:=\[[^\]]*\]|=\([^)]*\)|=\{[^}]*\}|[^,])+")


@dataclass(frozen=True)
class FastaRecord:
    """One entry of a FASTA file.

    Attributes:
        name: What the header says before its fields; may be empty.
        fields: The fields, in order. A text that looks like a number reads back as one.
        sequence: The letters, chains joined by a separator.
    """

    name: str
    fields: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    sequence: str = ""


def format_record(record: FastaRecord) -> str:
    """A record as two lines. Numbers keep six decimals, or six digits below 0.001.

    Raises:
        InputError: If the header would not read back: a line break, a comma outside brackets, a key that is no word.
    """
    parts = [f"{key}={_written(value)}" for key, value in record.fields.items()]
    header = ", ".join([record.name, *parts] if record.name or not parts else parts)
    if "\n" in header or "\r" in header or _header(header)[0] != record.name.strip():
        raise InputError(f"'{record.name}' with fields {dict(record.fields)} does not fit a FASTA header; rename it")
    if list(_header(header)[1]) != list(record.fields):
        raise InputError(f"fields {dict(record.fields)} do not fit a FASTA header; leave commas out of values")
    if not re.fullmatch(r"[^\s>]+", record.sequence):
        raise InputError(
            f"'{record.sequence[:40]}' is not the sequence of one FASTA record; give letters without spaces"
        )
    return f">{header}\n{record.sequence}\n"


def safe_name(text: str) -> str:
    """A text as a name that every header can carry and every tool reads whole: no white space, comma, `=` or `>`."""
    return re.sub(r"[\s,=>]+", "_", text.strip())


def parse(text: str, name: str = "the text") -> list[FastaRecord]:
    """The records of a FASTA text: letters in upper case, without white space and without a stop (`*`) at the end.

    Args:
        text: The text. Lines before the first header that are blank or start with `;` are passed over.
        name: What to call it in messages.

    Raises:
        InputError: If it has no header, or a record has no sequence.
    """
    headers: list[str] = []
    lines: list[list[str]] = []
    for line in text.split("\n"):
        if line.startswith(">"):
            headers.append(line[1:].strip())
            lines.append([])
        elif lines:
            lines[-1].append(line)
        elif line.strip() and not line.startswith(";"):
            raise InputError(f"{name} starts with '{line.strip()[:40]}'; a FASTA file starts with a line '>name'")
    if not headers:
        raise InputError(f"{name} has no FASTA record; give a line '>name' and below it a sequence")
    records = []
    for header, body in zip(headers, lines, strict=True):
        sequence = "".join("".join(body).split()).upper().removesuffix("*")
        if not sequence:
            raise InputError(f"record '{header[:60]}' of {name} has no sequence; give one below its header")
        before, fields = _header(header)
        records.append(FastaRecord(before, fields, sequence))
    return records


def read_fasta(path: str | Path) -> list[FastaRecord]:
    """The records of a FASTA file, plain or gzipped.

    Raises:
        InputError: If it cannot be read or is no FASTA file.
    """
    return parse(read_text(Path(path), "a FASTA file (.fa, .fasta), plain or gzipped"), str(path))


def write_fasta(path: str | Path, records: Iterable[FastaRecord]) -> None:
    """Writes records, whole or not at all.

    Raises:
        InputError: If a header does not fit, or the file cannot be written.
    """
    write_text(Path(path), "".join(map(format_record, records)))


def join_chains(sequence: str, chain_ids: Sequence[str], separator: str = SEPARATOR) -> str:
    """The letters of several chains as one text, a separator where the chain changes.

    Args:
        sequence: A letter per residue.
        chain_ids: The chain of each residue.
        separator: What stands between chains: `/` for ProteinMPNN and its kin, `:` for ColabFold.
    """
    pairs = zip(sequence, chain_ids, strict=True)
    return separator.join("".join(letter for letter, _ in run) for _, run in groupby(pairs, key=lambda pair: pair[1]))


def split_chains(sequence: str) -> list[str]:
    """The chains of a joined sequence, whichever of `/` and `:` joins them."""
    return re.split("[/:]", sequence)


def _header(header: str) -> tuple[str, Mapping[str, Value]]:
    """The name and the fields of a header."""
    fields: dict[str, Value] = {}
    end = len(header)
    for part in reversed(list(_PART.finditer(header))):
        match = _FIELD.fullmatch(part.group().strip())
        if match is None or match["key"] in fields:
            break
        fields[match["key"]] = _read(match["value"])
        end = part.start()
    name = header[:end].strip()
    return name.removesuffix(",") if fields else name, MappingProxyType(dict(reversed(fields.items())))


def _read(text: str) -> Value:
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _written(value: Value) -> str:
    if not isinstance(value, float):
        return str(value)
    if value and abs(value) < 1e-3:
        return f"{value:.6g}"
    text = f"{value:.6f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text
