"""How the grader is asked: one frozen set of settings, read from `grader_*` keys (stage 3, rubric grading)."""

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from rubric_rl.errors import UserError

PREFIX = "grader_"
Mode = typing.Literal["explain", "direct", "checklist"]
Truncated = typing.Literal["zero", "grade"]
Api = typing.Literal["sglang", "openai"]


def _setting(default, about: str):
    """A field with its one-line explanation, which is also its help on command lines."""
    kind = {"default_factory": dict} if default == {} else {"default": default}
    return dataclasses.field(**kind, metadata={"about": about})


@dataclass(frozen=True)
class GraderSettings:
    """Each field is the key `grader_<field>` of configs/grader.yaml, which explains what the recipe chooses."""

    mode: Mode = _setting(
        "explain", "explain: a reason and a verdict; direct: one token; checklist: all in one call"
    )
    thinking: bool = _setting(False, "whether the model thinks before it replies")
    votes: int = _setting(
        1, "verdicts per criterion; the majority counts, a tie never helps the policy"
    )
    truncated: Truncated = _setting(
        "zero", "an answer cut at the length limit: zero, its score; or grade, as it is"
    )
    temperature: float = _setting(0.6, "sampling temperature of the replies")
    top_p: float = _setting(0.95, "nucleus of the replies")
    top_k: int = _setting(20, "top-k of the replies; -1: all tokens")
    max_tokens: int = _setting(1024, "length limit of one reply, thoughts included")
    seed: int = _setting(0, "sampling seed")
    rereads: int = _setting(
        2, "how often an unreadable verdict is asked for again, each time with another seed"
    )
    retries: int = _setting(
        4, "how often a failed request is sent again before the answer is left ungraded"
    )
    timeout: float = _setting(300.0, "seconds for one request")
    concurrency: int = _setting(256, "requests in flight, per process")
    warm_prefix: bool = _setting(
        True, "ask the first criterion alone, the others once the answer's prefix is cached"
    )
    api: Api = _setting("sglang", "sglang or openai")
    url: str = _setting("", "base URL, e.g. http://127.0.0.1:30000; empty: the policy's")
    model: str = _setting("", "name of the model at an OpenAI-compatible endpoint")
    tokenizer: str = _setting(
        "", "folder with tokenizer.json and chat template, for api sglang; empty: the policy's"
    )
    extra_body: dict = _setting(
        {}, "further request fields for an OpenAI-compatible endpoint, as JSON"
    )
    api_key_env: str = _setting("", "environment variable that holds the key")
    engine: str = _setting(
        "", "the model of --sglang-config that grades; empty: the policy, or url"
    )
    teacher: str = _setting(
        "", "YAML file of grader_* keys: an endpoint that grades a share of the training prompts"
    )
    teacher_share: float = _setting(0.0, "that share of the prompts, chosen by a hash of prompt_id")
    records: str = _setting(
        "", "folder for verdict records; empty: SAVE_PATH/verdicts of a training run"
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check_type(field, getattr(self, field.name))
        for problem in self._problems():
            raise UserError(problem)

    def _problems(self) -> Iterator[str]:
        """One line for each value out of range, and each pair of values that contradict each other."""
        if (
            min(self.votes, self.concurrency, self.max_tokens) < 1
            or min(self.rereads, self.retries) < 0
        ):
            yield "grader_votes, _concurrency and _max_tokens must be at least 1, grader_rereads, _retries at least 0"
        if self.timeout <= 0:
            yield "grader_timeout must be positive"
        if self.temperature < 0 or not 0 < self.top_p <= 1 or (self.top_k < 1 and self.top_k != -1):
            yield "grader_temperature must be 0 or more, _top_p in (0, 1], _top_k 1 or more, or -1 for all tokens"
        if self.votes > 1 and (self.mode == "direct" or self.temperature == 0):
            yield "grader_votes above 1 needs sampled replies: set grader_mode explain or checklist, and a temperature"
        if not 0 <= self.teacher_share <= 1 or bool(self.teacher_share) != bool(self.teacher):
            yield "grader_teacher_share is a share from 0 to 1 and goes with grader_teacher, the file of the teacher"
        if self.engine and (self.url or self.api != "sglang"):
            yield "grader_engine names a model of --sglang-config, so grader_url stays empty and grader_api is sglang"
        if self.mode == "direct" and self.thinking:
            yield "grader_mode direct reads the first token of the reply, so grader_thinking must be false"


def load_settings(source: typing.Mapping | str | Path) -> GraderSettings:
    """Settings from a YAML file, or the `grader_*` entries of a mapping, e.g. `vars(args)`.

    Raises:
        UserError: for an unknown `grader_` key (with the closest known one), a wrong type or an impossible combination.
    """
    return GraderSettings(**written_settings(source))


def written_settings(source: typing.Mapping | str | Path) -> dict:
    """The settings that the source names, without the prefix; none for "". Raises UserError for an unknown key."""
    if not isinstance(source, typing.Mapping):
        source = _read_yaml(Path(source)) if source else {}
    known = [PREFIX + field.name for field in dataclasses.fields(GraderSettings)]
    values = {key: value for key, value in source.items() if key.startswith(PREFIX)}
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise UserError(f"unknown grader setting {key}; {hint}")
    return {key.removeprefix(PREFIX): value for key, value in values.items()}


def _read_yaml(path: Path) -> dict:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        hint = "name a YAML file of grader_* keys, e.g. configs/grader.yaml"
        raise UserError(f"{path}: cannot be read ({error.strerror}); {hint}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: broken YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold `key: value` lines")
    for key in values:
        if not str(key).startswith(PREFIX):
            raise UserError(f"{path}: unknown key {key}; every key begins with {PREFIX}")
    return values


def _check_type(field: dataclasses.Field, value) -> None:
    choices = typing.get_args(field.type)
    if choices:
        if value not in choices:
            raise UserError(
                f"grader_{field.name} must be one of {', '.join(choices)}, not {value!r}"
            )
    elif field.type is float:
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not math.isfinite(value)
        ):
            raise UserError(f"grader_{field.name} must be a finite number, not {value!r}")
    elif type(value) is not field.type:
        raise UserError(f"grader_{field.name} must be of type {field.type.__name__}, not {value!r}")
