"""Every preset and its controls, trained on a 2-D mixture and on 8x8 digits: what helps, what does nothing.

    uv run tools/bench_presets.py --seeds 0,1,2 --out presets.json        (about 40 minutes on two cores)
    uv run tools/bench_presets.py --read presets.json                     (prints the tables again)

For a seed, every arm has the same data, initial network, order, times, noise and number of steps. Per task the table
gives, as mean and standard deviation over seeds:

    error     of the network told nothing (mixture: velocity against the exact one; digits: held-out denoising loss)
    steps     until this error is that of `none` at its end, in percent of the steps `none` had; - if never reached
    bound x   evaluate_bound of that network: nats, an upper bound on -log p(x), comparable across arms
    own       bound on -log p(x, z) of the arm's own latents: NOT comparable between arms of different latents or heads
    distance  energy distance of 1024 samples (64 steps of the arm's exact sampler) from held-out data, x 1000
    strays    mixture: share of samples more than three widths from every centre (1.1 % of the data)
Arms whose z is always shown (rcg) or diffuses beside x (joint) are no model of x alone: only their samples compare.
"""

import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer
from reed_core.console import run
from reed_core.errors import InputError
from seeds import spread, steps_to


def tables(results: list[dict[str, Any]]) -> str:
    """The tables, in Markdown."""
    lines = []
    for task in dict.fromkeys(result["task"] for result in results):
        mine = [result for result in results if result["task"] == task]
        plain = {result["seed"]: result for result in mine if result["arm"] == "none"}
        head = ["arm", "error x1000", "steps, % of none", "bound x, nats", "own bound, nats", "distance x1000"]
        head += ["strays, %"] if task == "mixture" else []
        lines += ["", f"**{task}**, seeds {', '.join(map(str, sorted(plain)))}", ""]
        lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for arm in dict.fromkeys(result["arm"] for result in mine):
            runs = sorted((result for result in mine if result["arm"] == arm), key=lambda result: result["seed"])
            known = bool(runs[0]["error"])
            reached = []
            for result in runs:
                goal = plain[result["seed"]]["error"][-1] if known else 0.0
                steps = steps_to(result["steps"], result["error"], goal) if known else None
                reached.append(None if steps is None else 100 * steps / result["steps"][-1])
            some = [value for value in reached if value is not None]
            taken = "" if not known else "-" if not some else spread(some, 0)
            if known and 0 < len(some) < len(runs):
                taken += f" ({len(some)} of {len(runs)})"
            row = [
                arm,
                spread([result["error"][-1] for result in runs], 1, 1000) if known else "",
                taken,
                spread([result["bound_x"][0] for result in runs], 2) if runs[0]["bound_x"] else "",
                spread([result["bound_joint"][0] for result in runs], 2) if runs[0]["bound_joint"] else "",
                spread([result["distance"] for result in runs], 1, 1000),
            ]
            row += [spread([result["strays"] for result in runs], 1, 100)] if task == "mixture" else []
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def main(
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    task: Annotated[list[str] | None, typer.Option(help="mixture or digits; repeat for both (the default).")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Arms to run; repeat for several. All by default.")] = None,
    scale: Annotated[float, typer.Option(help="Share of the steps to take (0.05 to try it out).", min=0.0)] = 1.0,
    jobs: Annotated[int, typer.Option(help="Runs at a time, one thread each.", min=1)] = 2,
    out: Annotated[Path | None, typer.Option(help="Write all results here, as JSON, after every run.")] = None,
    read: Annotated[Path | None, typer.Option(help="Print the tables of an earlier --out instead.")] = None,
) -> None:
    """Trains every arm and prints the tables."""
    if read is not None:
        typer.echo(tables(json.loads(read.read_text(encoding="utf-8"))))
        return
    from preset_bench.arms import arms
    from preset_bench.measure import run_arm
    from preset_bench.tasks import TASKS
    from reed_core.files import write_text
    from rich.console import Console
    from rich.progress import Progress

    names = task or list(TASKS)
    if set(names) - set(TASKS) or (arm and any(set(arm) - set(arms(name)) for name in names)):
        raise InputError(f"unknown task or arm; tasks are {', '.join(TASKS)}, arms {'; '.join(arms('mixture'))}")
    done: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8")) if out and out.exists() else []
    have = {(result["task"], result["arm"], result["seed"]) for result in done}
    wanted = [
        (name, one, seed)
        for name in names
        for seed in map(int, seeds.split(","))
        for one in (arm or arms(name))
        if (name, one, seed) not in have
    ]
    with (
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool,
        Progress(console=Console(stderr=True)) as bar,
    ):
        shown = bar.add_task("arms", total=len(wanted))
        for future in as_completed([pool.submit(run_arm, *one, scale) for one in wanted]):
            done.append(future.result().as_dict())
            bar.advance(shown)
            if out is not None:
                write_text(out, json.dumps(done, indent=1) + "\n")
    place = {(name, one): index for name in TASKS for index, one in enumerate(arms(name))}
    order = sorted(done, key=lambda result: (list(TASKS).index(result["task"]), place[result["task"], result["arm"]]))
    typer.echo(tables(order))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run(app)
