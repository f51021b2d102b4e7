"""How a run reports itself: rows on disk, TensorBoard, a console line per rollout."""

import math
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rubric_rl.common.jsonl import write_text
from rubric_rl.cpu.metric_rows import (
    EVALUATIONS,
    METRICS,
    append_row,
    dataset_names,
    find_eval_metric,
    find_metric,
)

# The line of a rollout: heading, metric and digits.
FIGURES = {
    "self-graded": ("rollout/raw_reward", 3),
    "true": ("true_score", 3),
    "grader acc": ("grader_accuracy", 3),
    "length": ("rollout/response_len/mean", 1),
    "truncated": ("rollout/truncated_ratio", 2),
}
# Of an evaluation's line: heading and figure, where an anchor grades too.
OF_ANCHOR = {
    "anchor": "score",
    "gap": "gap",
    "exploitation": "exploitation",
}
SECONDS = {
    "rollout": "perf/generation_time",
    "grading": "perf/grading_time",
    # Until the last answer, engines answer and grade at once.
    "of it after the rollout": "perf/grading_tail_time",
    "update": "perf/update_time",
    "sync": "perf/sync_time",
}


class Recorder:
    """Writes metrics.jsonl, eval.jsonl, TensorBoard events, the stage file and the console.

    TensorBoard's step is the rollout_id, as slime's is for what belongs to a rollout.
    """

    def __init__(self, directory: Path, start: int, total: int, tensorboard: bool = True):
        self.directory = directory
        self.total = total  # rollouts
        self._stage = ""
        self._events: _Events | None = None
        if tensorboard:
            folder = directory / "tensorboard"
            self._events = _Events(folder, start)

    def rollout(self, rollout_id: int, metrics: dict) -> None:
        """Records one rollout and its update, and prints its line."""
        key = {"rollout_id": rollout_id}
        self._record(METRICS, key, metrics)
        line = rollout_line(rollout_id, self.total, metrics)
        self.say(line)

    def evaluation(self, rollout_id: int, weight_version: int, metrics: dict) -> None:
        """Records an evaluation of the weights `weight_version`, made after a rollout."""
        key = {"rollout_id": rollout_id, "weight_version": weight_version}
        self._record(EVALUATIONS, key, metrics)
        line = eval_line(weight_version, metrics)
        self.say(line)

    def stage(self, rollout_id: int, name: str) -> None:
        """Writes `<rollout_id> <name>` to the file `stage`, for whoever watches from outside."""
        text = f"{rollout_id} {name}\n"
        if text != self._stage:
            self._stage = text
            path = self.directory / "stage"
            write_text(path, text)

    def say(self, text: str) -> None:
        """Prints a line above the bars and adds it to train.log."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
        self.log(text)

    def log(self, text: str) -> None:
        """Adds a line to train.log alone."""
        now = time.strftime("%H:%M:%S")
        path = self.directory / "train.log"
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{now} {text}\n")

    def close(self) -> None:
        """Flushes the events."""
        if self._events:
            self._events.close()

    def _record(self, file: str, key: dict[str, int], metrics: dict) -> None:
        values = {}
        for name, value in metrics.items():
            values[name] = _finite(value)
        path = self.directory / file
        append_row(path, key | values)
        if self._events:
            self._events.add(values, key["rollout_id"])


class _Events:
    """TensorBoard events, written without torch.

    Its import would cost this process seconds and memory.
    """

    def __init__(self, directory: Path, start: int):
        # pyright does not see the names that protobuf's modules make when they are imported.
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event: Any = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
        self._summary: Any = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]
        session_log: Any = event_pb2.SessionLog  # pyright: ignore[reportAttributeAccessIssue]
        self._writer = EventFileWriter(str(directory))
        # Hides the events of rollouts after the last checkpoint: they are made again.
        restart = session_log(status=session_log.SessionStatus.START)
        now = time.time()
        event = self._event(wall_time=now, step=start, session_log=restart)
        self._writer.add_event(event)

    def add(self, values: dict[str, float | None], step: int) -> None:
        points = []
        for name, value in values.items():
            if value is not None:
                point = self._summary.Value(tag=name, simple_value=value)
                points.append(point)
        summary = self._summary(value=points)
        now = time.time()
        event = self._event(wall_time=now, step=step, summary=summary)
        self._writer.add_event(event)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _finite(value):
    """The value, or None for NaN and infinity, which JSON lacks."""
    is_float = isinstance(value, float)
    if is_float and not math.isfinite(value):
        return None
    return value


def rollout_line(rollout_id: int, total: int, metrics: dict) -> str:
    """The line of one rollout; figures that no hook gave are left out."""
    number = rollout_id + 1
    parts = [f"rollout {rollout_id} ({number} of {total})"]
    for heading, (name, digits) in FIGURES.items():
        value = find_metric(metrics, name)
        parts.append(_figure(heading, value, digits))
    seconds = []
    for heading, name in SECONDS.items():
        value = metrics.get(name)
        seconds.append(_figure(heading, value, digits=1))
    times = _joined(", ", seconds)
    parts.append(f"seconds {times}")
    return _joined(" | ", parts)


def eval_line(weight_version: int, metrics: dict) -> str:
    """The line of one evaluation."""
    parts = [f"evaluation of weight version {weight_version}"]
    for name in dataset_names(metrics):
        prefix = f"eval/{name}"
        true_score = find_eval_metric(metrics, name, "true_score")
        accuracy = find_eval_metric(metrics, name, "grader_accuracy")
        length = metrics.get(prefix + "/response_len/mean")
        figures = [
            name,
            _figure("self-graded", metrics[prefix]),
            _figure("true", true_score),
            _figure("grader acc", accuracy),
            _figure("length", length, digits=1),
        ]
        for heading, figure in OF_ANCHOR.items():
            value = metrics.get(f"{prefix}/grading/anchor/{figure}")
            figures.append(_figure(heading, value))
        parts.append(_joined(" ", figures))
    probe = metrics.get("eval/probe/accuracy")
    parts.append(_figure("probe accuracy", probe))
    seconds = metrics.get("perf/eval_time", 0)
    time_taken = _figure("seconds", seconds, digits=1)
    parts.append(time_taken)
    return _joined(" | ", parts)


def _figure(heading: str, value: float | None, digits: int = 3) -> str:
    """ "heading 0.123", or nothing for a value that is absent or not finite."""
    if value is None or not math.isfinite(value):
        return ""
    return f"{heading} {value:.{digits}f}"


def _joined(separator: str, parts: list[str]) -> str:
    """Those that are not empty."""
    present = [part for part in parts if part]
    return separator.join(present)
