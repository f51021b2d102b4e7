"""A run's directory: checkpoints and logs that survive a kill at any moment (stage 5, GRPO update).

A step counts once its checkpoint directory has been renamed into place; everything else that it wrote (rows of metrics
and evaluations, verdicts) was written before and is cut back to the last checkpoint on resume. So no step is lost and
none counted twice.
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

from rubric_rl.data.row_file import split_slice
from rubric_rl.errors import UserError
from rubric_rl.jsonl import read_jsonl, write_jsonl, write_text

KEEP = 3  # checkpoints
TRACKER = "latest_checkpointed_iteration.txt"  # slime's and Megatron's name

# Flags that may change when a run is resumed: length, intervals, speed, logging. All others define the experiment.
FREE = frozenset(
    [
        "num_rollout",
        "num_epoch",
        "save",
        "load",
        "save_interval",
        "eval_interval",
        "eval_config",
        "eval_datasets",
        "eval_prompt_data",
        "skip_eval_before_train",
        "eval_temperature",
        "eval_top_p",
        "eval_top_k",
        "eval_max_response_len",
        "eval_max_prompt_len",
        "eval_min_new_tokens",
        "eval_input_key",
        "n_samples_per_eval_prompt",
        "eval_reward_key",
        "custom_rollout_log_function_path",
        "custom_eval_rollout_log_function_path",
        "custom_config_path",
        "sglang_server_concurrency",
        "sglang_router_port",
        "sglang_router_request_timeout_secs",
        "sglang_router_ip",
        "router_policy",
        "rollout_num_gpus",
        "actor_num_nodes",
        "actor_num_gpus_per_node",
        "distributed_timeout_minutes",
        "colocate",
        "use_tensorboard",
        "micro_batch_size",
        "use_dynamic_batch_size",
        "max_tokens_per_gpu",
        "accumulate_allreduce_grads_in_fp32",
        "attention_softmax_in_fp32",
        "grader_records",
        "grader_concurrency",
        "grader_timeout",
        "grader_retries",
    ]
)


class RunDirectory:
    """The directory of one run (--save), held by one process at a time."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "a+")
        except OSError as error:
            raise UserError(
                f"{path}: no run can be kept here ({error.strerror}); set SAVE_PATH to a folder"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = "wait for it, or give another SAVE_PATH"
            raise UserError(f"{self.path}: another run is at work here; {hint}") from None

    def iteration(self, step: int) -> Path:
        """The checkpoint directory of `step` (0-based rollout id), named as Megatron names it."""
        return self.path / f"iter_{step:07d}"

    def newest(self) -> int | None:
        """The last step with a complete checkpoint, or None; whatever a kill left half done is removed."""
        for leftover in self.path.glob(".*.tmp"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        whole = [path for path in self._iterations() if (path / "state.json").is_file()]
        return int(whole[-1].name.removeprefix("iter_")) if whole else None

    def _iterations(self) -> list[Path]:
        """Checkpoint directories in order, without copies that a user made under another name."""
        return sorted(
            path for path in self.path.glob("iter_*") if re.fullmatch(r"iter_\d{7}", path.name)
        )

    def state(self, step: int) -> dict:
        """What `prepare` stored with the checkpoint: the step, and the position of the data source."""
        return _read_json(self.iteration(step) / "state.json")

    def prepare(self, step: int, state: dict, write: Callable[[Path], None]) -> Path:
        """Writes a checkpoint to a hidden directory, which is returned: `write(directory)` fills it, all is fsynced."""
        temporary = self.path / f".{self.iteration(step).name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write(temporary)
        (temporary / "state.json").write_text(json.dumps(state))
        for path in sorted(temporary.rglob("*"), reverse=True):
            _fsync(path)
        _fsync(temporary)
        return temporary

    def commit(self, step: int, temporary: Path) -> None:
        """Makes the prepared checkpoint the newest one, in one rename; older ones beyond KEEP are removed."""
        final = self.iteration(step)
        if final.exists():  # it lacks its state.json: otherwise this step would not be made again
            os.rename(final, final.with_name(f"{final.name}.damaged.{time.time_ns()}"))
        os.rename(temporary, final)
        _fsync(self.path)
        write_text(self.path / TRACKER, f"{step}\n")
        for old in self._iterations()[:-KEEP]:
            trash = self.path / f".{old.name}.old.tmp"
            os.rename(
                old, trash
            )  # first out of sight, so that a kill in between leaves no half checkpoint
            shutil.rmtree(trash)

    def check_experiment(self, args, resuming: bool) -> None:
        """Refuses to resume another experiment; without a checkpoint there is nothing to protect."""
        path, now = self.path / "experiment.json", experiment(args)
        if resuming and path.is_file():
            before = _read_json(path)
            changed = sorted(
                key for key in before.keys() | now.keys() if before.get(key) != now.get(key)
            )
            if changed:
                differences = ", ".join(
                    f"{_flag(key)} was {before.get(key)}, is {now.get(key)}" for key in changed
                )
                hint = "give another SAVE_PATH or the old values"
                raise UserError(f"{self.path} holds another experiment ({differences}); {hint}")
        write_text(path, json.dumps(now, indent=1, sort_keys=True) + "\n")

    def cut_back(self, start: int) -> None:
        """Drops what was written from step `start` on: rows of steps and of evaluations after them, and verdicts.

        Weight version `start` made the last evaluation that counts, and the rollout that will be made again.
        """
        self._filter("metrics.jsonl", lambda row: row["step"] < start)
        self._filter("eval.jsonl", lambda row: row["step"] <= start and start > 0)
        for path in self.path.glob("verdicts/weights_*.jsonl"):
            version = path.stem.removeprefix("weights_")
            if not version.isdigit() or int(version) < start:
                continue
            if start > 0 and int(version) == start:
                self._filter(f"verdicts/{path.name}", lambda row: row["split"] == "eval")
            else:
                path.unlink()

    def _filter(self, name: str, keep: Callable[[dict], bool]) -> None:
        if (path := self.path / name).is_file():
            write_jsonl(path, [row for row in read_rows(path) if keep(row)])


def read_rows(path: Path) -> list[dict]:
    """The rows of a JSONL log, without a last line that a kill cut short; [] without a file."""
    return [row for _, row in read_jsonl(path, skip_partial=True)] if path.is_file() else []


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        raise UserError(
            f"{path}: not JSON; restore it from a backup, or begin anew in another SAVE_PATH"
        ) from None


def append_row(path: Path, row: dict) -> None:
    """Appends one row and waits until it is on disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def experiment(args) -> dict:
    """What two runs of one experiment share: the flags beyond FREE, the content of model, reference and data."""
    values = {name: value for name, value in vars(args).items() if name not in FREE}
    for name in ("hf_checkpoint", "ref_load"):
        if values.get(name):
            values[name] = f"{Path(values[name]).name} ({_digest(Path(values[name]))})"
    data = values["prompt_data"]
    values["prompt_data"] = f"{Path(data).name} ({_digest(Path(split_slice(data)[0]))})"
    return json.loads(json.dumps(values))


def _digest(path: Path) -> str:
    """Twelve hex digits of the content; of a model directory, its config, weights and tokenizer."""
    files = (
        [path]
        if path.is_file()
        else sorted(p for p in path.glob("*") if p.suffix in (".json", ".safetensors"))
    )
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() if path.is_dir() else b"")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:12]


def _flag(name: str) -> str:
    return name if name.startswith("grader_") else "--" + name.replace("_", "-")


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
