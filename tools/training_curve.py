"""Prints a run's curve of validation figures against steps and time: `uv run tools/training_curve.py runs/NAME`."""

import argparse
from pathlib import Path

from reed_core.train.log import read_log

COLUMNS = ("median_recovery", "mean_recovery", "pooled_recovery", "perplexity_any_order", "perplexity_one_shot")


def curve(lines: list[dict[str, float]]) -> list[dict[str, float]]:
    """The evaluations of a log, each with the hours of training and evaluation before it."""
    hours, seen, found = 0.0, 0.0, []
    for line in lines:
        if "samples_per_second" in line:
            hours += (line["samples"] - seen) / line["samples_per_second"] / 3600
            seen = line["samples"]
        if "median_recovery" in line:
            found.append({**line, "hours": hours})
    return found


def main() -> None:
    """Reads the log and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder, with log.jsonl")
    run = parser.parse_args().run
    print("| steps | chains seen | hours | " + " | ".join(name.replace("_", " ") for name in COLUMNS) + " |")
    print("|" + "---|" * (3 + len(COLUMNS)))
    for line in curve(read_log(run / "log.jsonl")):
        figures = " | ".join(f"{line[name]:.3f}" for name in COLUMNS)
        print(f"| {line['step']:,} | {line['samples']:,} | {line['hours']:.2f} | {figures} |")


if __name__ == "__main__":
    main()
