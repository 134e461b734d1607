"""The command `evaluate`. Heavy imports stay inside the command, so that `--help` is quick."""

import json as plain
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from reed_core import console
from reed_core.cli_options import Device, Quiet, Threads
from reed_core.errors import InputError

if TYPE_CHECKING:
    from reed_image.metrics import Extractor
    from reed_image.metrics.pictures import Pictures

COMPARING, DRAWING, PROBING = "Comparing", "Drawing", "Hidden states"
DEFAULT_ENCODER = "inception"


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("evaluate")(evaluate)


def evaluate(
    samples: Annotated[
        str | None,
        typer.Argument(help="Pictures to judge: a folder, zip, parquet, prepared set, or ADM's .npz; or --weights."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Real pictures, of any of these kinds.", rich_help_panel=COMPARING)
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            help="inception (the default), mobilenet_v2, resnet20, layout, or a model of timm; NAME@SIDE reads another "
            "size, NAME=FILE other weights. Several may be given.",
            rich_help_panel=COMPARING,
        ),
    ] = None,
    pool: Annotated[
        Literal["mean", "class"],
        typer.Option(help="What is read of a transformer of timm: its tokens' mean, or its class token."),
    ] = "mean",
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Some of fd,kid,pr,dc,is. By default fd,kid,pr,dc; with --statistics fd.", rich_help_panel=COMPARING
        ),
    ] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(
            help="Mean and covariance in place of --reference: of --save-statistics, or ADM's .npz.",
            rich_help_panel=COMPARING,
        ),
    ] = None,
    save_statistics: Annotated[
        Path | None,
        typer.Option(
            help="Keeps those of the reference (.safetensors); SAMPLES may be left out.", rich_help_panel=COMPARING
        ),
    ] = None,
    floor: Annotated[
        bool, typer.Option("--floor", help="The same between two parts of the reference.", rich_help_panel=COMPARING)
    ] = False,
    size: Annotated[
        int | None,
        typer.Option(
            help="Crops every picture to this side; by default samples keep theirs, and set that of the others."
        ),
    ] = None,
    num: Annotated[
        int | None, typer.Option(help="Samples: taken evenly (by default all), or drawn (1000); pictures of --probe.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Pictures of the reference, taken evenly; by default all.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Draws the samples from these weights: RUN/weights, or cifar10.", rich_help_panel=DRAWING),
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of each.", rich_help_panel=DRAWING)] = 50,
    sampler: Annotated[
        Literal["euler", "heun", "sde"], typer.Option(help="euler, heun or sde.", rich_help_panel=DRAWING)
    ] = "heun",
    cfg: Annotated[float, typer.Option(help="Scale of guidance; 1 is none.", rich_help_panel=DRAWING)] = 1.0,
    autoencoder: Annotated[
        str | None,
        typer.Option(help="Where the model's autoencoder is, if not where it says.", rich_help_panel=DRAWING),
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(
            help="Prepared pictures: what the hidden states of --weights tell of their classes, and their alignment "
            "with each --encoder.",
            rich_help_panel=PROBING,
        ),
    ] = None,
    tap: Annotated[
        list[str] | None, typer.Option(help="Where: blocks.3; by default every block.", rich_help_panel=PROBING)
    ] = None,
    time: Annotated[
        list[float] | None, typer.Option(help="Diffusion times, 0 is data; by default 0.3.", rich_help_panel=PROBING)
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Writes everything to this file, too.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn, and of random parts.")] = 0,
    batch: Annotated[int, typer.Option(help="Pictures at once.")] = 64,
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Judges pictures against real ones, or looks at hidden states (--probe).

    FID, KID and IS are those of InceptionV3 (extra fid of reed-image). With any other encoder they are named
    fd[ENCODER] and so on: numbers of different encoders, sizes or counts of pictures do not compare.
    """
    if batch < 1:
        raise InputError(f"--batch {batch}: expected at least 1")
    if probe is not None:
        odd = {"SAMPLES": samples, "--reference": reference, "--statistics": statistics, "--metrics": metrics}
        given = [name for name, value in {**odd, "--save-statistics": save_statistics}.items() if value is not None]
        if weights is None or given or floor:
            raise InputError(
                f"--probe looks at hidden states of --weights, and goes without {', '.join(given or ['--floor'])}"
                if weights is not None
                else "--probe looks at hidden states; give --weights RUN/weights too"
            )
    else:
        _check_sides(samples, weights, reference, statistics, save_statistics, encoder, (tap, time))
    from functools import partial

    from reed_core.device import use_device

    place = use_device(device, threads)
    names = encoder or ([] if probe is not None else [DEFAULT_ENCODER])
    extractors = partial(_extractors, names, pool, place)
    if probe is not None:
        assert weights is not None
        found, text = _probe(weights, probe, extractors, tap, time, num, seed, batch, place, quiet)
    else:
        shown = None
        if weights is not None:
            shown = _drawn(weights, 1000 if num is None else num, seed, steps, sampler, cfg, autoencoder, place)
        found, text = _compare(
            samples if shown is None else shown,
            reference,
            extractors,
            metrics,
            (statistics, save_statistics),
            floor=floor,
            size=size,
            num=num,
            limit=limit,
            seed=seed,
            batch=batch,
            place=place,
            quiet=quiet,
        )
    if json is not None:
        from reed_core.files import write_text

        write_text(json, plain.dumps(found, indent=1) + "\n")
    typer.echo(text)


def _check_sides(
    samples: str | None,
    weights: str | None,
    reference: str | None,
    statistics: Path | None,
    save: Path | None,
    encoder: Sequence[str] | None,
    probing: tuple[Any, Any],
) -> None:
    """That there is one thing to judge, and one to compare it with."""
    if any(one is not None for one in probing):
        raise InputError("--tap and --time belong to --probe; leave them out, or give prepared pictures with --probe")
    if samples is not None and weights is not None:
        raise InputError("SAMPLES and --weights are two things to judge; give one")
    if (reference is None) == (statistics is None):
        raise InputError("expected something to compare with: either --reference or --statistics")
    if samples is None and weights is None and (save is None or reference is None):
        raise InputError("nothing to judge: give SAMPLES or --weights, or --reference with --save-statistics")
    if save is not None and (statistics is not None or len(encoder or [""]) != 1):
        raise InputError("--save-statistics keeps those of one --encoder and of --reference; give one of each")
    if save is not None and save.suffix != ".safetensors":
        raise InputError(f"--save-statistics {save}: expected a name that ends in .safetensors")


def _extractors(names: Sequence[str], pool: Literal["mean", "class"], place: str) -> list["Extractor"]:
    from reed_image.metrics.extractor import open_extractor

    found = [open_extractor(name, pool, place) for name in names]
    if len({one.name for one in found}) != len(found):
        raise InputError(f"--encoder {', '.join(names)}: two have one name; give each once")
    return found


def _drawn(
    weights: str, num: int, seed: int, steps: int, sampler: Any, cfg: float, autoencoder: str | None, place: str
) -> "Pictures":
    from reed_image.metrics.pictures import of_model
    from reed_image.model import load
    from reed_image.sample import Request, decoder_of

    model = load(weights, place)
    request = Request(num, seed=seed, steps=steps, sampler=sampler, scale=cfg)
    guided = "" if cfg == 1 else f", guidance {cfg:g}"
    name = f"{weights} ({sampler}, {steps} steps{guided}, seed {seed})"
    return of_model(model, decoder_of(model.config, autoencoder, place), request, name)


def _compare(
    samples: "str | Pictures | None",
    reference: str | None,
    load_extractors: Callable[[], list["Extractor"]],
    metrics: str | None,
    files: tuple[Path | None, Path | None],
    *,
    floor: bool,
    size: int | None,
    num: int | None,
    limit: int | None,
    seed: int,
    batch: int,
    place: str,
    quiet: bool,
) -> tuple[dict[str, Any], str]:
    """The report of pictures, as JSON and as text; statistics are kept on the way."""
    from functools import partial

    from rich.console import Console
    from rich.progress import Progress

    from reed_image.evaluation import collect, described, evaluate, metrics_of
    from reed_image.metrics import read_statistics, write_statistics
    from reed_image.metrics.pictures import Pictures, Squares, open_pictures

    known, save = files
    asked = metrics_of(metrics or ("fd" if known is not None else "fd,kid,pr,dc"), known is None)
    shown = open_pictures(samples, num, place) if isinstance(samples, str) else samples
    real = read_statistics(known) if known is not None else open_pictures(str(reference), limit, place)
    extractors = load_extractors()
    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
        tasks = [
            bar.add_task(name, total=getattr(one, "count", 0))
            for name, one in (("samples", shown), ("reference", real))
        ]
        of_shown, of_real = (partial(bar.advance, task) for task in tasks)
        if shown is None:
            assert isinstance(real, Pictures)
            squares = Squares(real, size, None if size is None else "adm")
            (found,) = collect(squares, extractors, batch, keep=False, progress=of_real)
            kept, result = [described(extractors[0], found.gaussian, squares)], None
        else:
            result, kept = evaluate(
                shown,
                real,
                extractors,
                asked,
                side=size,
                floor=floor,
                batch=batch,
                seed=seed,
                device=place if place.startswith("cuda") else "cpu",  # distances need float64
                progress=(of_shown, of_real),
            )
    if save is not None:
        write_statistics(save, kept[0])
        record = kept[0].record
        console.report(f"wrote statistics of {record.count} pictures of {record.side} pixels into {save}")
    if result is None:
        return kept[0].record.model_dump(), f"{kept[0].record.encoder}: {len(kept[0].gaussian.mean)} features"
    return result.as_json(), str(result)


def _probe(
    weights: str,
    data: str,
    load_extractors: Callable[[], list["Extractor"]],
    tap: Sequence[str] | None,
    time: Sequence[float] | None,
    num: int | None,
    seed: int,
    batch: int,
    place: str,
    quiet: bool,
) -> tuple[dict[str, Any], str]:
    """What hidden states tell, as JSON and as text."""
    from dataclasses import asdict
    from functools import partial

    from reed_core.diagnose import block_paths
    from rich.console import Console
    from rich.progress import Progress

    from reed_image.data import open_prepared
    from reed_image.evaluation import collect
    from reed_image.metrics.hidden import compare_hidden, hidden_states
    from reed_image.metrics.pictures import Squares, evenly, of_prepared
    from reed_image.metrics.report import aligned
    from reed_image.model import load

    model, prepared = load(weights, place), open_prepared(data)
    items = [which * prepared.copies for which in evenly(prepared.manifest.pictures, num, data)]
    extractors = load_extractors()
    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
        done = partial(bar.advance, bar.add_task("hidden states", total=len(items)))
        taps = tuple(tap or block_paths(model.network))
        states = hidden_states(model, prepared, items, taps, tuple(time or (0.3,)), seed, batch, done)
        features = {}
        if extractors:
            done = partial(bar.advance, bar.add_task("encoders", total=len(items)))
            found = collect(Squares(of_prepared(prepared, num, place)), extractors, batch, progress=done)
            features = {one.name: own.features for one, own in zip(extractors, found, strict=True)}
    rows = compare_hidden(states, prepared.labels_of(items), {n: z for n, z in features.items() if z is not None}, seed)
    names = list(features)
    table = [["", "t", "accuracy", "error", "chance", *(f"{kind}[{n}]" for n in names for kind in ("cknna", "cka"))]]
    for row in rows:
        read = ["", "", ""]
        if row.probe is not None:
            read = [f"{value:.4f}" for value in (row.probe.accuracy, row.probe.error, row.probe.chance)]
        near = [f"{value:.4f}" for name in names for value in (row.cknna[name], row.cka[name])]
        table.append([row.tap, f"{row.time:g}", *read, *near])
    tested = next((row.probe.tested for row in rows if row.probe is not None), None)
    said = "no classes are known" if tested is None else f"accuracy of a linear classifier on {tested} unseen pictures"
    text = "\n".join([f"hidden states of {weights} on {len(items)} pictures of {data}; {said}", *aligned(table)])
    plain_rows = [{**row._asdict(), "probe": None if row.probe is None else asdict(row.probe)} for row in rows]
    return {"weights": str(weights), "data": data, "pictures": len(items), "rows": plain_rows}, text
