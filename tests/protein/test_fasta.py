"""FASTA headers and records: written, read back, and read from other tools."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reed_core.errors import InputError
from reed_protein.fasta import (
    FastaRecord,
    Value,
    format_record,
    join_chains,
    parse,
    read_fasta,
    safe_name,
    split_chains,
    write_fasta,
)

PROTEIN_MPNN = """>5L33, score=1.5874, global_score=1.5874, fixed_chains=[], designed_chains=['A', 'B'], seed=37
HMPEEEKAA/LFIEALEKG
>T=0.1, sample=1, score=0.8221, global_score=0.8221, seq_recovery=0.5094
SMSEEERAA/LFIEALKTG
"""


def test_the_header_of_protein_mpnn_is_read() -> None:
    native, sample = parse(PROTEIN_MPNN)
    assert native.name == "5L33"
    assert native.fields["designed_chains"] == "['A', 'B']"
    assert native.fields["seed"] == 37
    assert sample.name == ""
    assert dict(sample.fields) == {
        "T": 0.1,
        "sample": 1,
        "score": 0.8221,
        "global_score": 0.8221,
        "seq_recovery": 0.5094,
    }
    assert split_chains(sample.sequence) == ["SMSEEERAA", "LFIEALKTG"]
    assert "".join(map(format_record, (native, sample))) == PROTEIN_MPNN


@pytest.mark.parametrize(
    "header",
    [
        "sp|P12345|NAME_HUMAN Some protein, putative OS=Homo sapiens OX=9606",
        "7abc_1|Chains A, B|a protein [fragment|Homo sapiens",
        "5' end (unclosed",
        "",
    ],
)
def test_a_plain_header_is_a_name(header: str) -> None:
    (record,) = parse(f">{header}\nAC\nDE*\n\n")
    assert record == FastaRecord(header, {}, "ACDE")


words = st.text(st.characters(codec="ascii", exclude_characters=",=>\r\n", exclude_categories=("Cc",)), max_size=12)
values: st.SearchStrategy[Value] = st.one_of(
    st.integers(-(10**9), 10**9),
    st.integers(-(10**8), 10**8).map(lambda n: n / 10**4),
    st.sampled_from([float("inf"), 1e-7, 2.5e-4, 1.0]),
    st.sampled_from(["v_48_020", "[]", "['A', 'B']", "(1, 2)", "{'a': 1, 'b': [2]}", "a b", "007", "-", "1_0"]),
)
keys = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


@given(words.map(str.strip), st.dictionaries(keys, values, max_size=4), st.text("ACDEFGHIKLMNPQRSTVWYX/:", min_size=1))
def test_round_trip(name: str, fields: dict[str, Value], sequence: str) -> None:
    record = FastaRecord(name, fields, sequence)
    (again,) = parse(format_record(record))
    assert again == record
    assert list(again.fields) == list(fields)
    assert {key: type(value) for key, value in again.fields.items()} == {k: type(v) for k, v in fields.items()}


@given(st.text())
def test_safe_names_fit_any_header(text: str) -> None:
    name = safe_name(text)
    (again,) = parse(format_record(FastaRecord(name, {"score": 1.5}, "ACD")))
    assert (again.name, dict(again.fields)) == (name, {"score": 1.5})


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        records = parse(text)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert all(record.sequence for record in records)


def test_a_score_keeps_six_decimals_and_no_more_zeros_than_it_needs() -> None:
    fields: dict[str, Value] = {"score": 1.23456789, "temperature": 0.1, "recovery": 1.0, "small": 0.000123456789}
    text = format_record(FastaRecord("a", fields, "AC"))
    assert text == ">a, score=1.234568, temperature=0.1, recovery=1.0, small=0.000123457\nAC\n"


@pytest.mark.parametrize(
    "record",
    [
        FastaRecord("two\nlines", {}, "A"),
        FastaRecord("a", {"key": "x, y"}, "A"),
        FastaRecord("a", {"no key": 1}, "A"),
        FastaRecord("a, b=1", {}, "A"),
        FastaRecord("a", {}, ""),
        FastaRecord("a", {}, "AC D"),
    ],
)
def test_what_would_not_read_back_is_refused(record: FastaRecord) -> None:
    with pytest.raises(InputError):
        format_record(record)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no FASTA record"),
        ("ACDE\n", "starts with 'ACDE'"),
        (">a\n>b\nAC\n", "record 'a' of the text has no sequence"),
    ],
)
def test_what_is_no_fasta_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse(text)


def test_files(tmp_path: Path) -> None:
    records = [FastaRecord("x", {"T": 0.1}, "ACD/EF"), FastaRecord("y", {}, "GH")]
    path = tmp_path / "out" / "x.fa"
    write_fasta(path, records)
    assert read_fasta(path) == records
    (tmp_path / "x.fa.gz").write_bytes(gzip.compress(path.read_bytes().replace(b"\n", b"\r\n")))
    assert read_fasta(tmp_path / "x.fa.gz") == records
    with pytest.raises(InputError, match="there is no file"):
        read_fasta(tmp_path / "absent.fa")
    with pytest.raises(InputError, match="does not fit"):
        write_fasta(path, [records[0], FastaRecord("a\n", {}, "A")])
    assert read_fasta(path) == records


def test_chains_are_joined_and_split() -> None:
    assert join_chains("ACDEF", ["B", "B", "A", "A", "A"]) == "AC/DEF"
    assert join_chains("ACDEF", ["B", "B", "A", "A", "C"], ":") == "AC:DE:F"
    assert split_chains("AC:DE:F") == ["AC", "DE", "F"]
    assert split_chains(join_chains("AC", ["A", "A"])) == ["AC"]
