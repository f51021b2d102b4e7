"""A run's directory: checkpoints and logs that survive a kill at any moment.

A rollout counts once its checkpoint directory has been renamed into place; everything else that it
wrote (rows of metrics and evaluations, verdicts) was written before and is cut back to the last
checkpoint on resume. So no rollout is lost and none counted twice.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rubric_rl import ROOT
from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import write_jsonl, write_text
from rubric_rl.cpu.engine_plan import engine_plan
from rubric_rl.cpu.metric_rows import (
    EVALUATIONS,
    METRICS,
    read_evaluations,
    read_metrics,
    read_rows,
)
from rubric_rl.data.record_file import FOLDER, OF_TRAINING, version_of
from rubric_rl.data.row_file import split_slice
from rubric_rl.trust.evaluations import drop_after
from rubric_rl.trust.moved import drop_moves

KEPT_CHECKPOINTS = 3
TRACKER = "latest_checkpointed_iteration.txt"  # slime's and Megatron's name

# Flags that may change when a run is resumed: length, intervals, speed, logging. All others define
# the experiment.
FREE_FLAGS = frozenset(
    [
        "accumulate_allreduce_grads_in_fp32",
        "actor_num_gpus_per_node",
        "actor_num_nodes",
        "attention_softmax_in_fp32",
        "colocate",
        "custom_config_path",
        "custom_eval_rollout_log_function_path",
        "custom_rollout_log_function_path",
        "distributed_timeout_minutes",
        "eval_config",
        "eval_datasets",
        "eval_input_key",
        "eval_interval",
        "eval_max_prompt_len",
        "eval_max_response_len",
        "eval_min_new_tokens",
        "eval_prompt_data",
        "eval_reward_key",
        "eval_temperature",
        "eval_top_k",
        "eval_top_p",
        "grader_alarm",
        "grader_alarm_drop",
        "grader_alarm_error",
        "grader_alarm_exploitation",
        "grader_alarm_probe",
        "grader_anchor_seconds",
        "grader_concurrency",
        "grader_records",
        "grader_retries",
        "grader_timeout",
        "load",
        "max_tokens_per_gpu",
        "n_samples_per_eval_prompt",
        "num_epoch",
        "num_rollout",
        "rollout_num_gpus",
        "router_policy",
        "save",
        "save_interval",
        "sglang_router_ip",
        "sglang_router_port",
        "sglang_router_request_timeout_secs",
        "sglang_server_concurrency",
        "skip_eval_before_train",
        "use_dynamic_batch_size",
        "use_tensorboard",
    ]
)


class RunDirectory:
    """The directory of one run (--save), held by one process at a time."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("a+")
        except OSError as error:
            hint = "set SAVE_PATH to a folder"
            raise UserError(f"{path}: no run can be kept here ({error.strerror}); {hint}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = "wait for it, or give another SAVE_PATH"
            raise UserError(f"{self.path}: another run is at work here; {hint}") from None

    def is_at(self, path: str | os.PathLike) -> bool:
        """Whether `path` is this directory."""
        return Path(path).resolve() == self.path.resolve()

    def close(self) -> None:
        """Lets another process have the directory."""
        self._lock.close()

    def checkpoint(self, rollout_id: int) -> Path:
        """The checkpoint directory of a rollout, named as Megatron names it."""
        return self.path / f"iter_{rollout_id:07d}"

    def newest(self) -> int | None:
        """The last rollout with a complete checkpoint, or None.

        Whatever a kill left half done is removed.
        """
        for leftover in self.path.glob(".*.tmp"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()
        complete = [path for path in self._checkpoints() if (path / "state.json").is_file()]
        if not complete:
            return None
        return _rollout_of(complete[-1])

    def _checkpoints(self) -> list[Path]:
        """In order, without copies that a user made under another name."""
        candidates = self.path.glob("iter_*")
        return sorted(path for path in candidates if re.fullmatch(r"iter_\d{7}", path.name))

    def data_state(self, rollout_id: int) -> dict[str, int]:
        """The position of the data source after a rollout."""
        return _read_json(self.checkpoint(rollout_id) / "state.json")["data"]

    def prepare(self, rollout_id: int, data_state: Any, write: Callable[[Path], None]) -> Path:
        """Writes a checkpoint to a hidden directory, which is returned.

        `write(directory)` fills it; all is fsynced.
        """
        temporary = self.path / f".{self.checkpoint(rollout_id).name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write(temporary)
        state = {"rollout_id": rollout_id, "data": data_state}
        (temporary / "state.json").write_text(json.dumps(state))
        for path in sorted(temporary.rglob("*"), reverse=True):
            _fsync(path)
        _fsync(temporary)
        return temporary

    def commit(self, rollout_id: int, temporary: Path, best: int | None = None) -> None:
        """Makes the prepared checkpoint the newest one, in one rename.

        Older ones beyond KEPT_CHECKPOINTS are removed, but the last one up to the rollout `best`.
        """
        final = self.checkpoint(rollout_id)
        if final.exists():
            # It lacks its state.json: otherwise this rollout would not be made again.
            os.rename(final, final.with_name(f"{final.name}.damaged.{time.time_ns()}"))
        os.rename(temporary, final)
        _fsync(self.path)
        write_text(self.path / TRACKER, f"{rollout_id}\n")
        found = self._checkpoints()
        until_best = [path for path in found if best is not None and _rollout_of(path) <= best]
        for old in found[:-KEPT_CHECKPOINTS]:
            if old in until_best[-1:]:
                continue
            # First out of sight, so that a kill in between leaves no half checkpoint.
            trash = self.path / f".{old.name}.old.tmp"
            os.rename(old, trash)
            shutil.rmtree(trash)

    def run_name(self) -> str:
        """The run's name in its records.

        A resumed run keeps it, because here the weight versions go on where they were.
        """
        path = self.path / "run_name"
        if not path.is_file():
            write_text(path, f"{self.path.resolve().name}-{time.time_ns()}\n")
        return path.read_text().strip()

    def check_experiment(self, args, resuming: bool) -> None:
        """Refuses to resume another experiment.

        Without a checkpoint there is nothing to protect.
        """
        path = self.path / "experiment.json"
        now = experiment(args)
        if resuming and path.is_file():
            before = _read_json(path)
            differences = []
            for name in sorted(before.keys() | now.keys()):
                if before.get(name) != now.get(name):
                    was = before.get(name)
                    is_now = now.get(name)
                    differences.append(f"{_flag(name)} was {was}, is {is_now}")
            if differences:
                hint = "give another SAVE_PATH or the old values"
                found = ", ".join(differences)
                raise UserError(f"{self.path} holds another experiment ({found}); {hint}")
        write_text(path, json.dumps(now, indent=1, sort_keys=True) + "\n")

    def cut_back(self, start: int) -> None:
        """Drops what was written from rollout `start` on.

        Weight version `start` made the last evaluation that counts, and the rollout that will be
        made again. Rows of the old form are written back in the new one.
        """
        metrics = read_metrics(self.path)
        self._rewrite(METRICS, [row for row in metrics if row["rollout_id"] < start])
        last_version = start if start > 0 else -1
        evaluations = read_evaluations(self.path)
        kept = [row for row in evaluations if row["weight_version"] <= last_version]
        self._rewrite(EVALUATIONS, kept)
        drop_after(self.path, start)
        drop_moves(self.path, start)
        for path in (self.path / FOLDER).glob(OF_TRAINING):
            version = version_of(path)
            if not version.isdigit() or int(version) < start:
                continue
            if int(version) == last_version:
                kept = [row for row in read_rows(path) if row["split"] == "eval"]
                write_jsonl(path, kept, only_owner=True)
            else:
                path.unlink()

    def _rewrite(self, name: str, rows: list[dict]) -> None:
        path = self.path / name
        if path.is_file():
            write_jsonl(path, rows)


def _rollout_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("iter_"))


def experiment(args) -> dict:
    """What two runs of one experiment share.

    That is the flags beyond FREE_FLAGS, and the content of model, reference, frozen models, data
    and probe, whose rows the alarm compares.
    """
    values = {name: value for name, value in vars(args).items() if name not in FREE_FLAGS}
    for name in ("hf_checkpoint", "ref_load"):
        if values.get(name):
            values[name] = _name_and_content(Path(values[name]))
    if values.get("grader_probe"):
        values["grader_probe"] = _name_and_content(ROOT / values["grader_probe"])
    _, *others = engine_plan(args)
    contents = {model.name: _name_and_content(Path(model.folder)) for model in others}
    values["sglang_config"] = contents or None  # numbers of GPUs may change
    rows_file, _ = split_slice(values["prompt_data"])
    name = Path(values["prompt_data"]).name  # with the slice
    values["prompt_data"] = f"{name} ({_digest(Path(rows_file))})"
    return json.loads(json.dumps(values))


def _name_and_content(path: Path) -> str:
    return f"{path.name} ({_digest(path)})"


def _digest(path: Path) -> str:
    """Twelve hex digits of the content; of a model directory, its config, weights and tokenizer."""
    if path.is_file():
        files = [path]
    else:
        files = sorted(p for p in path.glob("*") if p.suffix in (".json", ".safetensors"))
    digest = hashlib.sha256()
    for file in files:
        if path.is_dir():
            digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:12]


def _flag(name: str) -> str:
    return name if name.startswith("grader_") else "--" + name.replace("_", "-")


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        hint = "restore it from a backup, or begin anew in another SAVE_PATH"
        raise UserError(f"{path}: not JSON; {hint}") from None


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
