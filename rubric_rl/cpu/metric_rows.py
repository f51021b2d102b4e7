"""metrics.jsonl and eval.jsonl of a run: a row per rollout, a row per evaluation.

A rollout's row has its `rollout_id`, counted from 0. An evaluation's row has the `weight_version`
that was evaluated, which is the number of rollouts that it was trained on, and the `rollout_id`
after which that was done (0 also before the first).
"""

import os
from pathlib import Path
from typing import Any

from rubric_rl.common.jsonl import append_line, read_objects

METRICS = "metrics.jsonl"
EVALUATIONS = "eval.jsonl"


def append_row(path: Path, row: dict) -> None:
    """Appends one row and waits until it is on disk."""
    with path.open("a+b", buffering=0) as file:
        append_line(file, row)
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict]:
    """The rows of a JSONL log, without a last line that a kill cut short; [] without a file."""
    if not path.is_file():
        return []
    return list(read_objects(path))


def read_metrics(directory: Path) -> list[dict]:
    """The rows of a run's rollouts."""
    rows = []
    for row in read_rows(directory / METRICS):
        if "step" in row:  # the old form
            row = {"rollout_id": row.pop("step"), **row}
        rows.append(row)
    return rows


def read_evaluations(directory: Path) -> list[dict]:
    """The rows of a run's evaluations."""
    rows = []
    for row in read_rows(directory / EVALUATIONS):
        if "step" in row:  # the old form: rollouts trained on
            version = row.pop("step")
            row = {"rollout_id": max(version - 1, 0), "weight_version": version, **row}
        rows.append(row)
    return rows


def find_metric(row: dict, name: str) -> Any:
    """The value of `name`, or of the one key that ends in `/name`; None when absent or null."""
    if name in row:
        return row[name]
    for key, value in row.items():
        if key.endswith("/" + name):
            return value
    return None


def dataset_names(row: dict) -> list[str]:
    """The data sets of an evaluation row: those with a key `eval/<name>`."""
    names = []
    for key in row:
        prefix, _, name = key.partition("/")
        if prefix == "eval" and "/" not in name:
            names.append(name)
    return names


def find_eval_metric(row: dict, dataset: str, name: str) -> Any:
    """A metric of one data set: `eval/<dataset>/.../<name>`.

    Where there is only one data set, `.../<name>` is its as well.
    """
    only_one = len(dataset_names(row)) == 1
    of_the_set = {}
    of_any_set = {}
    for key, value in row.items():
        if key.startswith(f"eval/{dataset}/"):
            of_the_set[key] = value
        if not key.startswith("rollout/"):
            of_any_set[key] = value
    found = find_metric(of_the_set, name)
    if found is None and only_one:
        return find_metric(of_any_set, name)
    return found
