"""Which data sets are evaluated and how: slime's --eval-config schema or --eval-prompt-data."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from rubric_rl.common.errors import UserError
from rubric_rl.common.pydantic_fields import TopK, first_fault
from rubric_rl.common.yaml_file import OmegaConfLoader, read_yaml

# A default is text: a notation in it makes it none.
_VARIABLE = re.compile(r"\$\{oc\.env:(\w+)(?:,([^{}]*))?\}")

_OF_A_SECTION = ("defaults", "datasets")

_Text = Annotated[str, Field(min_length=1)]
_Count = Annotated[int, Field(ge=1)]
_CountOrZero = Annotated[int, Field(ge=0)]
_Temperature = Annotated[FiniteFloat, Field(ge=0)]
_TopP = Annotated[FiniteFloat, Field(gt=0, le=1)]


class EvalDataset(BaseModel):
    """One data set.

    A field that neither the data set nor the defaults name takes the flag's value (--eval-*, then
    the rollout's), as in slime. A field that is there holds a value: slime would pass null on, and
    its engine has limits of its own.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: _Text
    path: _Text
    input_key: str | None = None
    metadata_key: str | None = None
    apply_chat_template: bool | None = None
    apply_chat_template_kwargs: dict | None = None
    n_samples_per_eval_prompt: _Count | None = None
    temperature: _Temperature | None = None
    top_p: _TopP | None = None
    top_k: TopK | None = None
    max_response_len: _Count | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    min_new_tokens: _CountOrZero | None = None
    custom_rm_path: str | None = None
    metadata_overrides: dict = {}

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
        if self.min_new_tokens is not None:
            params["min_new_tokens"] = self.min_new_tokens
        return params


# The flags that a field is taken from when neither the data set nor the defaults name it; the
# first flag that is set wins.
FALLBACK_FLAGS = {
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

    Raises UserError for an unreadable file, an unknown key or a value that cannot be, by name.
    """
    entries, defaults = _read_entries(args)
    datasets = [_resolve_entry(entry, defaults, args) for entry in entries]
    names = {dataset.name for dataset in datasets}
    if len(names) < len(datasets):
        raise UserError("--eval-config: two data sets have the same name")
    return datasets


def _resolve_entry(entry: dict, defaults: dict, args) -> EvalDataset:
    merged = defaults | entry
    _refuse_unknown(merged, EvalDataset.model_fields, "--eval-config")
    name = entry.get("name")
    if not name or not entry.get("path"):
        raise UserError("--eval-config: each data set needs a name and a path")
    for key, value in merged.items():
        if value is None:
            what = f"{key} of {name} is empty"
            hint = "write a value, or leave the key out to take the flag's"
            raise UserError(f"--eval-config: {what}; {hint}")
    for key, flags in FALLBACK_FLAGS.items():
        if key not in merged:
            merged[key] = _first_set(args, flags)
    try:
        return EvalDataset(**merged)
    except ValidationError as error:
        field, fault = first_fault(error)
        what = f"{field} of {name} {fault}"
        raise UserError(f"--eval-config: {what}") from None


def _refuse_unknown(written: Iterable, known: Iterable[str], place: str) -> None:
    """Raises UserError for keys that would be passed over."""
    names = sorted(known)
    unknown = sorted(str(key) for key in written if key not in names)
    if unknown:
        what = f"{', '.join(unknown)} cannot be honoured"
        raise UserError(f"{place}: {what}; known are {', '.join(names)}")


def _first_set(args, flags: Iterable[str]) -> object:
    """The value of the first of these flags that has one."""
    for flag in flags:
        value = getattr(args, flag)
        if value is not None:
            return value
    return None


def _read_entries(args) -> tuple[list[dict], dict]:
    """The entries of the data sets and their defaults.

    They are as written in args.eval_config or args.eval_prompt_data.
    """
    if not args.eval_config:
        words = args.eval_prompt_data or []
        return _pairs(words), {}
    path = Path(args.eval_config)
    place = f"--eval-config {path}"
    config = _read_section(path, place)
    _refuse_unknown(config, _OF_A_SECTION, place)
    defaults = config.get("defaults") or {}
    if not isinstance(defaults, dict):
        raise UserError(f"{place}: eval.defaults must hold `key: value` lines")
    datasets = config.get("datasets")
    entries = _entries(datasets)
    if not entries:
        what = "no data sets under eval.datasets, each with a name and a path"
        raise UserError(f"{place}: {what}")
    return entries, defaults


def _pairs(words: list[str]) -> list[dict]:
    """The entries of --eval-prompt-data: name path name path ..."""
    if len(words) % 2:
        raise UserError("--eval-prompt-data takes pairs of a name and a path")
    names = words[::2]
    paths = words[1::2]
    entries = []
    for name, path in zip(names, paths, strict=True):
        entries.append({"name": name, "path": path})
    return entries


def _entries(datasets: object) -> list[dict]:
    """The entries of a list, or of a mapping from names; none if it is neither."""
    entries = []
    if isinstance(datasets, list):
        entries = datasets
    if isinstance(datasets, dict):
        for name, entry in datasets.items():
            if isinstance(entry, dict):
                entry = {"name": name} | entry
            entries.append(entry)
    for entry in entries:
        if not isinstance(entry, dict):
            return []
    return entries


def _read_section(path: Path, place: str) -> dict:
    """What stands under `eval` of the file, or at its top; nothing if that is no mapping."""
    if not path.is_file():
        raise UserError(f"{place}: no such file; name one like configs/eval.yaml")
    content = read_yaml(path, place, OmegaConfLoader)
    if not isinstance(content, dict):
        return {}
    section = content
    if "eval" in content:
        _refuse_unknown(content, ["eval"], place)
        section = content["eval"]
    if not isinstance(section, dict):
        return {}
    return _fill_environment(section)


def _fill_environment(value: Any) -> Any:
    """Fills in `${oc.env:NAME,default}`, the notation of slime's YAML reader (OmegaConf).

    After parsing, as there: a value of the environment is text, whatever it looks like in YAML.
    """
    if isinstance(value, dict):
        filled = {}
        for key, part in value.items():
            filled[key] = _fill_environment(part)
        return filled
    if isinstance(value, list):
        return [_fill_environment(part) for part in value]
    if not isinstance(value, str):
        return value
    rest = _VARIABLE.sub("", value)
    if "${" in rest:
        hint = "${oc.env:NAME} and ${oc.env:NAME,default} are filled in here"
        raise UserError(f"--eval-config: {value}: {hint}, nothing else")
    return _VARIABLE.sub(_variable_value, value)


def _variable_value(match: re.Match) -> str:
    name, default = match.groups()
    found = os.environ.get(name, default)
    if found is None:
        raise UserError(f"--eval-config: the environment variable {name} is not set")
    return found
