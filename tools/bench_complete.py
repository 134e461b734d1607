"""How good is `complete`: fragments of held-out molecules filled in, beside the same figures of the real molecules.

    uv run tools/bench_complete.py --data drugs.npz --weights drugs --out runs/complete.jsonl
    uv run tools/bench_complete.py --data drugs.npz --weights drugs --out runs/complete.jsonl --read

Molecules are taken evenly from the test split, the next one where one cannot be cut. A side chain or a linker of each
is removed (tools/molecule_bench/fragments.py), and completed with as many atoms as were removed (--free-size: as many
as in training). One line of the file for each molecule, so a stopped run goes on; the figures are printed from it.

    kept RMSD     of the kept atoms as they lie in the file, without superposition: the largest
    stereo kept   of the fragments with a centre that can be followed, those whose centres all kept their handedness
    attached      of the samples, those that are one molecule with the kept atoms
    valid         RDKit sanitises it; connected is one fragment; closed has no unpaired electron
    stable        from bonds, corrected convention: all atoms of a molecule
    PoseBusters   of the samples, those that are valid, connected and pass every check of mol_fast
Shares are with their 95 % interval. The real molecules went through the same cut, judged as if they had been drawn.
"""

import json
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer
from reed_core.console import run
from reed_core.errors import InputError

if TYPE_CHECKING:
    from reed_molecule.fragment import Fragment
    from reed_molecule.generate import Generator
    from reed_molecule.generated import Generated

Line = dict[str, Any]
KINDS = ("side chain", "linker")
SHARES = ("attached", "valid", "connected", "closed", "stable", "posebusters")


def judged_in(sample: "Generated", fragment: "Fragment", checks: bool) -> Line:
    """The figures of one completion, or of the real molecule."""
    from reed_molecule.build import Failure
    from reed_molecule.completion import kept_in
    from reed_molecule.metrics.geometry import posebusters, strain

    kept = kept_in(sample, fragment)
    found: Line = {name: getattr(sample, name) for name in ("valid", "connected", "closed", "stable")}
    found |= {"attached": kept is not None and kept.attached, "smiles": sample.identity}
    found |= {"rmsd": None if kept is None else kept.rmsd, "stereo": None if kept is None else kept.stereo}
    found |= {"posebusters": None if not checks else False, "strain": None}
    if sample.connected and not isinstance(sample.mol, Failure):
        found["strain"] = strain([sample.mol]).median
        if checks:
            found["posebusters"] = posebusters([sample.mol]).passed_all == 1
    return found


def line_of(generator: "Generator", number: int, mol: Any, cut: Any, asked: Line, checks: bool) -> Line:
    """Completes one molecule and judges what came of it.

    Args:
        generator: The model.
        number: The place of the molecule in its split.
        mol: It, as RDKit has it.
        cut: What is kept.
        asked: The settings of the run.
        checks: Whether PoseBusters is there.
    """
    from reed_core.noise import mix_seed
    from reed_molecule.completion import complete
    from reed_molecule.fragment import fragment_of
    from reed_molecule.generate import Request, Sizes
    from reed_molecule.generated import judged
    from reed_molecule.molecule import Molecule

    fragment = fragment_of(mol, cut.kept, f"molecule {number}")
    request = Request(
        asked["each"],
        asked["steps"],
        mix_seed(asked["seed"], number),
        resample=asked["resample"],
        temperature=asked["temperature"],
    )
    drawn = complete(generator, fragment, request, None if asked["free_size"] else Sizes({cut.removed: 1}))
    order = [*cut.kept, *(place for place in range(mol.GetNumAtoms()) if place not in set(cut.kept))]
    from rdkit import Chem

    real = judged(0, Molecule.from_rdkit(Chem.RenumberAtoms(mol, order)))
    return {
        "molecule": number, "kind": cut.kind, "kept": list(cut.kept), "removed": cut.removed,
        "samples": [judged_in(sample, fragment, checks) for sample in drawn.samples],
        "real": judged_in(real, fragment, checks),
    }  # fmt: skip


def read(out: Path) -> tuple[Line, list[Line]]:
    """Settings and lines of a file; a last line cut short by a crash is left out."""
    from reed_core.train.log import read_log

    lines = read_log(out) if out.is_file() else []
    if not lines or "settings" not in lines[0]:
        raise InputError(f"{out} holds no completions; run the tool without --read first")
    return lines[0]["settings"], lines[1:]


def table(lines: list[Line]) -> list[str]:
    """The figures of completions and of real molecules, by kind of cut, in Markdown."""
    from molecule_bench.judge import percent

    groups = {kind: [line for line in lines if kind in ("all", line["kind"])] for kind in ("all", *KINDS)}
    heads = ("cut", "molecules", "of", "kept RMSD, A", "stereo kept, %", *(f"{name}, %" for name in SHARES))
    rows = [f"| {' | '.join(heads)} | strain, kcal/mol |", "|" + "---|" * (len(heads) + 1)]
    for kind, some in groups.items():
        completed, real = [one for line in some for one in line["samples"]], [line["real"] for line in some]
        for name, found in (("completed", completed), ("real", real)):
            if not found:
                continue
            moved = max((one["rmsd"] for one in found if one["rmsd"] is not None), default=0.0)
            stereo = [one["stereo"] for one in found if one["stereo"] is not None]
            strains = [one["strain"] for one in found if one["strain"] is not None]
            cells = [f"{moved:.4f}", f"{percent(sum(stereo), len(stereo))} of {len(stereo)}"]
            for share in SHARES:
                values = [one[share] for one in found if one[share] is not None]
                cells.append(percent(sum(values), len(values)))
            cells.append(f"{median(strains):.1f}" if strains else "-")
            rows.append(f"| {kind} | {len(some)} | {name} | {' | '.join(cells)} |")
    return rows


def there(checks: bool) -> bool:
    """Whether PoseBusters can be used, if it is asked for."""
    from reed_molecule.metrics.geometry import posebusters

    if checks:
        try:
            posebusters([])
        except InputError as error:
            typer.echo(f"without PoseBusters: {error}", err=True)
            return False
    return checks


def main(
    out: Annotated[Path, typer.Option(help="File of the completions, .jsonl.")],
    data: Annotated[Path, typer.Option(help="Prepared set of molecules.")] = Path("drugs.npz"),
    weights: Annotated[str, typer.Option(help="Folder of weights, or the name of bundled ones.")] = "drugs",
    molecules: Annotated[int, typer.Option(help="Held-out molecules.", min=1)] = 100,
    each: Annotated[int, typer.Option(help="Completions of each.", min=1)] = 1,
    steps: Annotated[int, typer.Option(help="Steps of each completion.", min=1)] = 100,
    resample: Annotated[int, typer.Option(help="How often each step is taken.", min=1)] = 1,
    temperature: Annotated[float, typer.Option(help="Divides the logits of elements, charges and bonds.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    split: Annotated[str, typer.Option(help="Split that the molecules are of.")] = "test",
    free_size: Annotated[bool, typer.Option("--free-size", help="Numbers of atoms as in training.")] = False,
    no_checks: Annotated[bool, typer.Option("--no-posebusters", help="Leave PoseBusters out.")] = False,
    threads: Annotated[int, typer.Option(help="Threads of torch.", min=1)] = 1,
    only_read: Annotated[bool, typer.Option("--read", help="Complete nothing; print what is there.")] = False,
) -> None:
    """Completes the molecules that are not in the file yet, and prints the figures of all of them."""
    if not only_read:
        import torch
        from molecule_bench.fragments import cut_of
        from reed_core.files import write_text
        from reed_molecule.dataset import MoleculeSet
        from reed_molecule.generate import load

        torch.set_num_threads(threads)
        generator = load(weights)
        known = MoleculeSet.read(data, split)  # type: ignore[arg-type]
        asked: Line = {"weights": weights, "data": data.name, "set": known.fingerprint, "split": split, "seed": seed,
                       "steps": steps, "each": each, "resample": resample, "free_size": free_size,
                       "temperature": temperature}  # fmt: skip
        if not out.is_file():
            write_text(out, json.dumps({"settings": asked}) + "\n")
        settings, lines = read(out)
        if settings != asked:
            raise InputError(f"{out} holds completions of other settings, {settings}; give another --out")
        # What a crash cut short is written again.
        write_text(out, "".join(json.dumps(line) + "\n" for line in [{"settings": settings}, *lines]))
        done, checks = {line["turn"] for line in lines}, there(not no_checks)
        ends = [place * len(known) // molecules for place in range(molecules + 1)]
        with typer.progressbar(range(molecules), label="molecules") as bar:
            for turn in bar:
                if turn in done:
                    continue
                mols = ((number, known[number].to_rdkit()) for number in range(ends[turn], ends[turn + 1]))
                cuts = ((number, mol, cut_of(mol, turn % 2 == 1)) for number, mol in mols)
                found = next((each for each in cuts if each[2] is not None), None)
                if found is None:
                    typer.echo(f"none of molecules {ends[turn]} to {ends[turn + 1] - 1} can be cut", err=True)
                    continue
                line = {"turn": turn, **line_of(generator, *found, asked, checks)}
                with out.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(line) + "\n")
    settings, lines = read(out)
    typer.echo(", ".join(f"{name} {value}" for name, value in settings.items() if name != "set") + "\n")
    typer.echo("\n".join(table(lines)))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run(app)
