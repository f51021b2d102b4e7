"""How the grader is asked: one frozen set of settings, read from `grader_*` keys (stage 3, rubric grading)."""

import dataclasses
import difflib
import math
import typing
from dataclasses import dataclass
from pathlib import Path

import yaml

from rubric_rl.schema import UserError

PREFIX = "grader_"


@dataclass(frozen=True)
class GraderSettings:
    """Each field is the key `grader_<field>` of configs/grader.yaml; configs/grader.yaml explains the defaults."""

    mode: typing.Literal["explain", "direct", "checklist"] = "explain"
    thinking: bool = False
    votes: int = 1  # verdicts asked per criterion; the majority counts, a tie never helps the policy
    truncated: typing.Literal["zero", "grade"] = (
        "zero"  # an answer cut at the length limit: score 0, or graded as it stands
    )
    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 20
    max_tokens: int = 1024  # of one reply, thoughts included
    seed: int = 0
    rereads: int = 2  # how often an unreadable verdict is asked again, each time with another seed
    retries: int = 4  # how often a failed request is sent again before the answer is left ungraded
    timeout: float = 300.0  # seconds for one request
    concurrency: int = 256  # requests in flight, of one process
    warm_prefix: bool = True  # one criterion first, the others of the answer when its prefix is in the cache
    api: typing.Literal["sglang", "openai"] = "sglang"
    url: str = ""  # base URL of the grader; empty: the router of the run (the policy grades itself)
    model: str = ""  # model name for an OpenAI-compatible endpoint
    tokenizer: str = ""  # folder with tokenizer.json and the chat template, for api sglang; empty: the policy's
    # further request fields for an OpenAI-compatible endpoint
    extra_body: dict = dataclasses.field(default_factory=dict)
    api_key_env: str = ""  # environment variable that holds the endpoint's key
    engine: str = ""  # name of a model of --sglang-config that grades; empty: the policy, or `url`
    teacher: str = ""  # YAML file of grader_* keys: another endpoint that grades a share of the training prompts
    teacher_share: float = 0.0  # of the prompts, chosen by a hash of prompt_id
    records: str = ""  # folder for verdict records; empty: none are written

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check_type(field, getattr(self, field.name))
        if self.votes < 1 or self.concurrency < 1 or self.max_tokens < 1 or min(self.rereads, self.retries) < 0:
            raise UserError(
                "grader_votes, _concurrency and _max_tokens must be at least 1, grader_rereads and _retries at least 0"
            )
        if (
            self.timeout <= 0
            or self.temperature < 0
            or not 0 < self.top_p <= 1
            or (self.top_k < 1 and self.top_k != -1)
        ):
            raise UserError(
                "grader_timeout must be positive, _temperature 0 or more, _top_p in (0, 1], "
                "_top_k 1 or more, or -1 for all"
            )
        if self.votes > 1 and (self.mode == "direct" or self.temperature == 0):
            raise UserError(
                "grader_votes above 1 needs sampled replies: set grader_mode to explain or checklist and a temperature"
            )
        if not 0 <= self.teacher_share <= 1 or bool(self.teacher_share) != bool(self.teacher):
            raise UserError(
                "grader_teacher_share is a share from 0 to 1, and goes together with grader_teacher, "
                "the file that names the teacher"
            )
        if self.engine and (self.url or self.api != "sglang"):
            raise UserError(
                "grader_engine names a model of --sglang-config, so grader_url stays empty and grader_api is sglang"
            )
        if self.mode == "direct" and self.thinking:
            raise UserError("grader_mode direct reads the first token of the reply, so grader_thinking must be false")


def load_settings(source: typing.Mapping | str | Path) -> GraderSettings:
    """Settings from a YAML file, or the `grader_*` entries of a mapping, e.g. `vars(args)`.

    Raises:
        UserError: for an unknown `grader_` key (with the closest known one), a wrong type or an impossible combination.
    """
    return GraderSettings(**written_settings(source))


def written_settings(source: typing.Mapping | str | Path) -> dict:
    """What the source itself sets ("" sets nothing), without the prefix; raises UserError for an unknown key."""
    if not isinstance(source, typing.Mapping):
        source = _read_yaml(Path(source)) if source else {}
    known = [PREFIX + field.name for field in dataclasses.fields(GraderSettings)]
    values = {key: value for key, value in source.items() if key.startswith(PREFIX)}
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            raise UserError(
                f"unknown grader setting {key}"
                + (f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}")
            )
    return {key.removeprefix(PREFIX): value for key, value in values.items()}


def _read_yaml(path: Path) -> dict:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); pass --custom-config-path a YAML file of grader_* keys"
        ) from None
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
            raise UserError(f"grader_{field.name} must be one of {', '.join(choices)}, not {value!r}")
    elif field.type is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UserError(f"grader_{field.name} must be a finite number, not {value!r}")
    elif type(value) is not field.type:
        raise UserError(f"grader_{field.name} must be of type {field.type.__name__}, not {value!r}")
