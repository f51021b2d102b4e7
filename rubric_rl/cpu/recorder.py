"""How a run reports itself: metrics on disk, TensorBoard, a console line per step, progress bars (all stages)."""

import math
import sys
import time
from pathlib import Path

from tqdm import tqdm

from rubric_rl.cpu.run_directory import append_row, read_rows
from rubric_rl.jsonl import write_text
from rubric_rl.progress import bar_pace

# The line per step: heading, metric (see `pick`), format.
COLUMNS = [
    ("self-graded", "rollout/raw_reward", "{:.3f}"),
    ("true", "true_score", "{:.3f}"),
    ("grader acc", "grader_accuracy", "{:.3f}"),
    ("length", "rollout/response_len/mean", "{:.1f}"),
    ("truncated", "rollout/truncated_ratio", "{:.2f}"),
]
SECONDS = [
    ("rollout", "perf/generation_time"),
    ("grading", "perf/grading_time"),
    (
        "of it after the rollout",
        "perf/grading_tail_time",
    ),  # until then the engines answer and grade at once
    ("update", "perf/update_time"),
    ("sync", "perf/sync_time"),
]


class Recorder:
    """Writes metrics.jsonl (a row per step), eval.jsonl (a row per evaluation), TensorBoard events and the console."""

    def __init__(self, directory: Path, start: int, total: int, tensorboard: bool = True):
        self.directory = directory
        self.total = total
        self._stage = ""
        self._events = _Events(directory / "tensorboard", start) if tensorboard else None

    def step(self, step: int, metrics: dict) -> None:
        """Records one training step and prints its line."""
        self._record("metrics.jsonl", {"step": step, **metrics}, step)
        self.say(step_line(step, self.total, metrics))

    def evaluation(self, updates: int, metrics: dict) -> None:
        """Records an evaluation of the policy that was trained on `updates` rollouts."""
        self._record("eval.jsonl", {"step": updates, **metrics}, updates)
        self.say(eval_line(updates, metrics))

    def stage(self, step: int, name: str) -> None:
        """Writes `<step> <stage>` to the file `stage`, for whoever watches from outside."""
        if (text := f"{step} {name}\n") != self._stage:
            self._stage = text
            write_text(self.directory / "stage", text)

    def say(self, text: str) -> None:
        """Prints a line above the bars and adds it to train.log."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
        self.log(text)

    def log(self, text: str) -> None:
        """Adds a line to train.log alone."""
        with (self.directory / "train.log").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    def close(self) -> None:
        """Flushes the events."""
        if self._events:
            self._events.close()

    def _record(self, name: str, row: dict, step: int) -> None:
        row = {key: _finite(value) for key, value in row.items()}
        append_row(self.directory / name, row)
        if self._events:
            self._events.add(
                {key: value for key, value in row.items() if key != "step" and value is not None},
                step,
            )


class _Events:
    """TensorBoard events, written without torch, whose import would cost this process seconds and memory."""

    def __init__(self, directory: Path, start: int):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(directory))
        # Hides the events of steps after the last checkpoint: these steps are made again.
        restart = SessionLog(status=SessionLog.SessionStatus.START)
        self._writer.add_event(Event(wall_time=time.time(), step=start, session_log=restart))

    def add(self, values: dict, step: int) -> None:
        points = [
            self._summary.Value(tag=name, simple_value=value) for name, value in values.items()
        ]
        self._writer.add_event(
            self._event(wall_time=time.time(), step=step, summary=self._summary(value=points))
        )
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _finite(value):
    """The value, or None for NaN and infinity, which JSON lacks."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def pick(row: dict, name: str):
    """The value of `name`, or of the one key that ends in `/name`; None when it is absent or null."""
    if name in row:
        return row[name]
    return next((value for key, value in row.items() if key.endswith("/" + name)), None)


def step_line(step: int, total: int, metrics: dict) -> str:
    """The line of one step; columns that no hook filled are left out."""
    parts = [(heading, pick(metrics, name), form) for heading, name, form in COLUMNS]
    shown = [
        f"{heading} {form.format(value)}"
        for heading, value, form in parts
        if _finite(value) is not None
    ]
    times = [(heading, metrics.get(name)) for heading, name in SECONDS]
    shown.append(
        "seconds "
        + ", ".join(f"{heading} {value:.1f}" for heading, value in times if value is not None)
    )
    return f"step {step + 1}/{total} | " + " | ".join(shown)


def eval_sets(row: dict) -> list[str]:
    """Names of the data sets in an evaluation row."""
    return [key.split("/")[1] for key in row if key.startswith("eval/") and key.count("/") == 1]


def eval_value(row: dict, dataset: str, name: str):
    """A metric of one data set: `eval/<dataset>/.../<name>`, or `.../<name>` when there is only one data set."""
    own = {key: value for key, value in row.items() if key.startswith(f"eval/{dataset}/")}
    value = pick(own, name)
    if value is None and len(eval_sets(row)) == 1:
        value = pick({key: v for key, v in row.items() if not key.startswith("rollout/")}, name)
    return value


def eval_line(updates: int, metrics: dict) -> str:
    """The line of one evaluation."""
    shown = []
    for name in eval_sets(metrics):
        parts = [
            ("self-graded", metrics[f"eval/{name}"], "{:.3f}"),
            ("true", eval_value(metrics, name, "true_score"), "{:.3f}"),
            ("grader acc", eval_value(metrics, name, "grader_accuracy"), "{:.3f}"),
            ("length", metrics.get(f"eval/{name}/response_len/mean"), "{:.1f}"),
        ]
        shown.append(
            " ".join(
                [name] + [f"{h} {form.format(v)}" for h, v, form in parts if _finite(v) is not None]
            )
        )
    shown.append(f"seconds {metrics.get('perf/eval_time', 0):.1f}")
    return f"evaluation after {updates} steps | " + " | ".join(shown)


class Bar:
    """The progress bar of one long stage; a context manager."""

    def __init__(self, what: str, total: int | None, unit: str):
        self._bar = tqdm(
            total=total, desc=what, unit=unit, leave=False, dynamic_ncols=True, **bar_pace()
        )

    def at(self, count: int, total: int | None = None, note: str = "") -> None:
        """Moves the bar to `count`."""
        if total and total != self._bar.total:
            self._bar.total = total
        self._bar.update(count - self._bar.n)
        if note:
            self._bar.set_postfix_str(note, refresh=False)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()


def read_metrics(directory: Path) -> tuple[list[dict], list[dict]]:
    """The rows of the steps and of the evaluations of a run."""
    return read_rows(directory / "metrics.jsonl"), read_rows(directory / "eval.jsonl")
