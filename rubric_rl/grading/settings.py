"""The settings of a grader, read from `grader_*` keys: where it is, how it grades, what counts.

Each field belongs to exactly one class. A command takes the classes that mean something to it: a
policy is an Endpoint alone, a grader an Endpoint with a Grading. configs/grader.yaml explains what
the recipe chooses.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from rubric_rl.errors import UserError

PREFIX = "grader_"


def _setting(default: Any, about: str, **rules: Any) -> Any:
    """A field with its explanation, which is also its help on command lines."""
    if default == {}:
        return Field(default_factory=dict, description=about, **rules)
    return Field(default, description=about, **rules)


def _transport(default: Any, about: str, **rules: Any) -> Any:
    """A field on which no reply depends: `identity` leaves it out."""
    return _setting(default, about, exclude=True, **rules)


def _top_k(value: int) -> int:
    if value < 1 and value != -1:
        raise ValueError("must be 1 or more, or -1 for all tokens")
    return value


class Settings(BaseModel):
    """A frozen group of settings; a value of the wrong type or out of range is refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    @classmethod
    def of(cls, values: Mapping[str, Any], prefix: str = PREFIX) -> Self:
        """The settings among `values` that belong to this class, by name without the prefix.

        Raises UserError with the prefixed name of the first value that cannot be.
        """
        own = {name: value for name, value in values.items() if name in cls.model_fields}
        try:
            return cls(**own)
        except ValidationError as error:
            first = error.errors()[0]
            why = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            raise UserError(f"{prefix}{first['loc'][0]} {why}, not {first['input']!r}") from None

    def identity(self) -> dict:
        """The settings that a reply depends on: not those of transport, such as retries."""
        return self.model_dump()


class Endpoint(Settings):
    """Where a model is served, and how it is asked for a reply."""

    api: Literal["sglang", "openai"] = _setting("sglang", "sglang or openai")
    url: str = _setting("", "base URL, e.g. http://127.0.0.1:30000; empty: the policy's")
    model: str = _setting("", "name of the model at an OpenAI-compatible endpoint")
    tokenizer: str = _setting(
        "", "folder with tokenizer.json and chat template, for api sglang; empty: the policy's"
    )
    api_key_env: str = _transport("", "environment variable that holds the key")
    extra_body: dict = _setting({}, "further request fields of an OpenAI endpoint, as JSON")

    thinking: bool = _setting(False, "whether the model thinks before it replies")
    temperature: FiniteFloat = _setting(0.6, "sampling temperature of the replies", ge=0)
    top_p: FiniteFloat = _setting(0.95, "nucleus of the replies", gt=0, le=1)
    top_k: Annotated[int, AfterValidator(_top_k)] = _setting(
        20, "top-k of the replies; -1: all tokens"
    )
    max_tokens: int = _setting(1024, "length limit of one reply, thoughts included", ge=1)
    seed: int = _setting(0, "sampling seed")

    retries: int = _transport(
        4, "how often a failed request is sent again before the answer is left ungraded", ge=0
    )
    timeout: FiniteFloat = _transport(300.0, "seconds for one request", gt=0)
    concurrency: int = _transport(256, "requests in flight, per process", ge=1)


class Grading(Settings):
    """How verdicts are asked for."""

    mode: Literal["explain", "direct", "checklist"] = _setting(
        "explain", "explain: a reason and a verdict; direct: one token; checklist: all in one call"
    )
    votes: int = _setting(
        1, "verdicts per criterion; the majority counts, a tie never helps the policy", ge=1
    )
    rereads: int = _setting(
        2, "how often an unreadable verdict is asked for again, each time with another seed", ge=0
    )
    warm_prefix: bool = _transport(
        True, "ask the first criterion alone, the others once the answer's prefix is cached"
    )


class Scoring(Settings):
    """Which answers are graded, and what counts in the reward."""

    truncated: Literal["zero", "grade"] = _setting(
        "zero", "an answer cut at the length limit: zero, its score; or grade, as it is"
    )


class TrainingGraders(Settings):
    """Who grades in a training run, and where its records go."""

    engine: str = _setting("", "the model of --sglang-config that grades; empty: policy, or url")
    teacher: str = _setting(
        "", "YAML file of grader_* keys: an endpoint that grades a share of the training prompts"
    )
    teacher_share: FiniteFloat = _setting(
        0.0, "that share of the prompts, chosen by a hash of prompt_id", ge=0, le=1
    )
    records: str = _setting(
        "", "folder for verdict records; empty: SAVE_PATH/verdicts of a training run"
    )


GROUPS: tuple[type[Settings], ...] = (Endpoint, Grading, Scoring, TrainingGraders)
NAMES = tuple(PREFIX + name for group in GROUPS for name in group.model_fields)


def check_together(endpoint: Endpoint, grading: Grading, prefix: str = PREFIX) -> None:
    """Raises UserError for settings that contradict each other."""
    if grading.mode == "direct" and endpoint.thinking:
        what = f"{prefix}mode direct reads the first token of the reply"
        raise UserError(f"{what}, so {prefix}thinking must be false")
    if grading.votes > 1 and (grading.mode == "direct" or endpoint.temperature == 0):
        hint = f"set {prefix}mode explain or checklist, and a temperature"
        raise UserError(f"{prefix}votes above 1 needs sampled replies: {hint}")


def check_training(endpoint: Endpoint, training: TrainingGraders) -> None:
    """Raises UserError for a choice of graders that contradicts itself."""
    if bool(training.teacher_share) != bool(training.teacher):
        what = "grader_teacher_share is a share from 0 to 1 and goes with grader_teacher"
        raise UserError(f"{what}, the file of the teacher")
    if training.engine and (endpoint.url or endpoint.api != "sglang"):
        what = "grader_engine names a model of --sglang-config"
        raise UserError(f"{what}, so grader_url stays empty and grader_api is sglang")


def read_settings(source: Mapping | str | Path) -> dict[str, Any]:
    """The settings that the source names, without the prefix; none for "".

    `source` is a YAML file, or a mapping such as `vars(args)` with other entries beside them.

    Raises:
        UserError: for an unreadable file or an unknown `grader_` key, with the closest known one.
    """
    if not isinstance(source, Mapping):
        source = _read_yaml(Path(source)) if source else {}
    written = {}
    for key, value in source.items():
        if not key.startswith(PREFIX):
            continue
        if key not in NAMES:
            close = difflib.get_close_matches(key, NAMES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(NAMES)}"
            raise UserError(f"unknown grader setting {key}; {hint}")
        written[key.removeprefix(PREFIX)] = value
    return written


@dataclass(frozen=True)
class GraderSettings:
    """All that `grader_*` keys say, checked together."""

    endpoint: Endpoint = Endpoint()
    grading: Grading = Grading()
    scoring: Scoring = Scoring()
    training: TrainingGraders = TrainingGraders()

    def __post_init__(self):
        check_together(self.endpoint, self.grading)
        check_training(self.endpoint, self.training)

    @classmethod
    def load(cls, source: Mapping | str | Path) -> "GraderSettings":
        """The settings of a source. Raises UserError as `read_settings`, or for a bad value."""
        written = read_settings(source)
        return cls(
            Endpoint.of(written),
            Grading.of(written),
            Scoring.of(written),
            TrainingGraders.of(written),
        )


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
