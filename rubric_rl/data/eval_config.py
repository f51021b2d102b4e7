"""Which data sets are evaluated and how: slime's --eval-config schema or --eval-prompt-data (stage 6, evaluation)."""

import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from rubric_rl.errors import UserError


@dataclass
class EvalDataset:
    """One data set; a field that is None takes the flag's value (--eval-*, then the rollout's), as in slime."""

    name: str
    path: str
    input_key: str | None = None
    metadata_key: str | None = None
    apply_chat_template: bool | None = None
    apply_chat_template_kwargs: dict | None = None
    n_samples_per_eval_prompt: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_response_len: int | None = None
    stop: list | None = None
    stop_token_ids: list | None = None
    min_new_tokens: int | None = None
    custom_rm_path: str | None = None
    metadata_overrides: dict = field(default_factory=dict)

    def sampling_params(self, args) -> dict:
        """What the engine is asked for, beside the prompt."""
        params = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "max_new_tokens": self.max_response_len,
            "stop": self.stop,
            "stop_token_ids": self.stop_token_ids,
            "skip_special_tokens": args.rollout_skip_special_tokens,
            "no_stop_trim": True,
            "spaces_between_special_tokens": False,
        }
        return (
            params
            if self.min_new_tokens is None
            else params | {"min_new_tokens": self.min_new_tokens}
        )


# Where a field comes from when neither the data set nor the defaults name it; the first flag that is set wins.
_FLAGS = {
    "input_key": ("eval_input_key", "input_key"),
    "metadata_key": ("metadata_key",),
    "apply_chat_template": ("apply_chat_template",),
    "apply_chat_template_kwargs": ("apply_chat_template_kwargs",),
    "n_samples_per_eval_prompt": ("n_samples_per_eval_prompt",),
    "temperature": ("eval_temperature", "rollout_temperature"),
    "top_p": ("eval_top_p", "rollout_top_p"),
    "top_k": ("eval_top_k", "rollout_top_k"),
    "max_response_len": ("eval_max_response_len", "rollout_max_response_len"),
    "stop": ("rollout_stop",),
    "stop_token_ids": ("rollout_stop_token_ids",),
    "min_new_tokens": ("eval_min_new_tokens",),
    "custom_rm_path": ("custom_rm_path",),
}


def resolve(args) -> list[EvalDataset]:
    """The data sets of --eval-config, else of --eval-prompt-data (name path pairs), else none.

    Raises:
        UserError: an unreadable file or an unknown key, by name.
    """
    entries, defaults = read_entries(args)
    known = {field.name for field in fields(EvalDataset)}
    datasets = []
    for entry in entries:
        if unknown := sorted((set(entry) | set(defaults)) - known):
            known_names = ", ".join(sorted(known))
            raise UserError(
                f"--eval-config: {', '.join(unknown)} cannot be honoured; known are {known_names}"
            )
        if not entry.get("name") or not entry.get("path"):
            raise UserError("--eval-config: each data set needs a name and a path")
        merged = defaults | entry
        for name, flags in _FLAGS.items():
            if name not in merged:
                merged[name] = next(
                    (v for v in (getattr(args, flag) for flag in flags) if v is not None), None
                )
        datasets.append(EvalDataset(**merged))
    if len({dataset.name for dataset in datasets}) < len(datasets):
        raise UserError("--eval-config: two data sets have the same name")
    return datasets


def read_entries(args) -> tuple[list[dict], dict]:
    """The entries of the data sets and their defaults, as written in args.eval_config or args.eval_prompt_data."""
    if not args.eval_config:
        words = args.eval_prompt_data or []
        if len(words) % 2:
            raise UserError("--eval-prompt-data takes pairs of a name and a path")
        return [
            {"name": name, "path": path} for name, path in zip(words[::2], words[1::2], strict=True)
        ], {}
    path = Path(args.eval_config)
    if not path.is_file():
        raise UserError(f"--eval-config {path}: no such file; name one like configs/eval.yaml")
    try:
        content = yaml.safe_load(_fill_environment(path.read_text(encoding="utf-8"))) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"--eval-config {path}: not YAML ({' '.join(str(error).split())})"
        ) from None
    content = content.get("eval", content) if isinstance(content, dict) else None
    datasets, defaults = (
        (content.get("datasets"), content.get("defaults"))
        if isinstance(content, dict)
        else (None, {})
    )
    if isinstance(datasets, dict):
        datasets = [
            {"name": name} | entry if isinstance(entry, dict) else entry
            for name, entry in datasets.items()
        ]
    if (
        not isinstance(datasets, list)
        or not datasets
        or not all(isinstance(entry, dict) for entry in datasets)
    ):
        raise UserError(
            f"--eval-config {path}: no data sets under eval.datasets, each with a name and a path"
        )
    if not isinstance(defaults or {}, dict):
        raise UserError(f"--eval-config {path}: eval.defaults must hold `key: value` lines")
    return datasets, defaults or {}


def _fill_environment(text: str) -> str:
    """Fills in `${oc.env:NAME,default}`, the notation of slime's YAML reader (OmegaConf)."""

    def value(match: re.Match) -> str:
        name, default = match.group(1), match.group(2)
        if name not in os.environ and default is None:
            raise UserError(f"--eval-config: the environment variable {name} is not set")
        return os.environ.get(name, default)

    return re.sub(r"\$\{oc\.env:(\w+)(?:,([^}]*))?\}", value, text)
