"""The settings of a grader, read from `grader_*` keys: where it is, how it grades, what counts.

Each field belongs to exactly one class. A command takes the classes that mean something to it: a
policy is an Endpoint alone, a grader an Endpoint with a Grading. configs/grader.yaml explains what
the recipe chooses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import FiniteFloat

from rubric_rl.common.errors import UserError
from rubric_rl.common.yaml_file import bare_keys, read_keys
from rubric_rl.data.grader_template import with_reference
from rubric_rl.data.training_settings import GraderSkill, RewardRule, TrainingGraders, Trust
from rubric_rl.serving.endpoint import GRADER, Endpoint, Settings, added, setting, transport


class Grading(Settings):
    """How verdicts are asked for."""

    mode: Literal["explain", "direct", "cascade", "checklist"] = setting(
        "explain",
        "explain: a reason and a verdict; direct: one token; cascade: one token, then a reason "
        "where it is unsure; checklist: all in one call",
    )
    cascade_low: FiniteFloat = added(
        0.3, "cascade: surely not met up to this probability", ge=0, le=0.5
    )
    cascade_high: FiniteFloat = added(0.7, "cascade: surely met from this one on", ge=0.5, le=1)
    template: str = transport(
        "", "the prompt: empty, our own; healthbench, the reference's; or a file of placeholders"
    )
    verdict: Literal["reply", "probability"] = added(
        "reply",
        "explain and cascade: the verdict that a reply gives; or, of the two words, the one with "
        "more than half of all probability where the reply gives it",
    )
    criterion_in_reply: bool = added(
        False,
        "direct: the criterion stands in the reply, before the token that is read, so that the "
        "engine's cache holds all else",
    )
    system: str = added("", "system message before the prompt")
    json_schema: bool = added(True, "hold replies to JSON of the verdict's form, if not thinking")
    votes: int = setting(
        1, "verdicts per criterion; the majority counts, a tie never helps the policy", ge=1
    )
    rereads: int = setting(
        2,
        "how often an unreadable reply that cannot be finished is asked for again; what then comes "
        "counts only against a policy that grades itself",
        ge=0,
    )
    most_unreadable: FiniteFloat = transport(
        0.5, "share of unreadable verdicts above which the grader counts as sick", ge=0, le=1
    )
    most_ungraded: FiniteFloat = transport(
        0.5, "share of answers without a score above which a rollout ends the run", ge=0, le=1
    )
    warm_prefix: bool = transport(
        True, "first let the engine read what the criteria share, then ask them"
    )

    @property
    def reads_probability(self) -> bool:
        """Whether every verdict comes with its probability."""
        return self.mode == "direct" or self.verdict == "probability"


class Scoring(Settings):
    """Which answers are graded, and what counts in the reward."""

    truncated: Literal["zero", "grade"] = setting(
        "zero", "an answer cut at the length limit: zero, its score; or grade, as it is"
    )


OF_TRAINING: tuple[type[Settings], ...] = (TrainingGraders, RewardRule, GraderSkill, Trust)
GROUPS: tuple[type[Settings], ...] = (Endpoint, Grading, Scoring, *OF_TRAINING)
NAMES = tuple(GRADER + name for group in GROUPS for name in group.model_fields)


def check_together(endpoint: Endpoint, grading: Grading) -> None:
    """Raises UserError for settings that contradict each other."""
    if grading.mode == "direct" and endpoint.thinking:
        what = "grader_mode direct reads the first token of the reply"
        raise UserError(f"{what}, so grader_thinking must be false")
    if grading.mode == "cascade" and endpoint.thinking and endpoint.api != "sglang":
        what = "grader_mode cascade reads a token before there are thoughts"
        raise UserError(f"{what}: with grader_thinking it needs grader_api sglang")
    continues = endpoint.api == "sglang" and grading.mode in ("explain", "cascade")
    if grading.verdict == "probability" and not continues:
        what = "grader_verdict probability continues a reply about one criterion"
        hint = "use grader_api sglang and grader_mode explain or cascade"
        raise UserError(f"{what}: {hint}")
    begins = endpoint.api == "sglang" and grading.mode == "direct" and not grading.template
    if grading.criterion_in_reply and not begins:
        what = "grader_criterion_in_reply begins the reply to our own prompt"
        hint = "use grader_api sglang, grader_mode direct and no grader_template"
        raise UserError(f"{what}: {hint}")
    if grading.mode == "checklist" and grading.template:
        hint = "use grader_mode explain, direct or cascade"
        raise UserError(f"a grader_template asks for one criterion at a time; {hint}")
    if grading.votes > 1 and (grading.mode == "direct" or endpoint.temperature == 0):
        hint = "set grader_mode explain, cascade or checklist, and a temperature"
        raise UserError(f"grader_votes above 1 needs sampled replies: {hint}")


def read_settings(source: Mapping | str | Path) -> dict[str, Any]:
    """The settings that the source names, without the prefix; none for "".

    `source` is a YAML file, or a mapping such as `vars(args)` with other entries beside them.

    Raises:
        UserError: for an unreadable file or an unknown `grader_` key, with the closest known one.
    """
    if not isinstance(source, Mapping):
        source = read_keys(Path(source), GRADER) if source else {}
    return bare_keys(source, GRADER, NAMES)


@dataclass(frozen=True)
class GraderSettings:
    """All that `grader_*` keys say, checked together."""

    endpoint: Endpoint = Endpoint()
    grading: Grading = Grading()
    scoring: Scoring = Scoring()
    training: TrainingGraders = TrainingGraders()
    rule: RewardRule = RewardRule()
    skill: GraderSkill = GraderSkill()
    trust: Trust = Trust()

    def __post_init__(self):
        check_together(self.endpoint, self.grading)
        self.training.check(self.endpoint.url, self.endpoint.api)
        self.rule.check(self.grading.reads_probability, self.grading.mode)
        self.trust.check(self.training.anchor, self.grading.mode)

    @classmethod
    def load(cls, source: Mapping | str | Path) -> "GraderSettings":
        """The settings of a source. Raises UserError as `read_settings`, or for a bad value."""
        written = with_reference(read_settings(source))
        return cls(
            Endpoint.of(written),
            Grading.of(written),
            Scoring.of(written),
            TrainingGraders.of(written),
            RewardRule.of(written),
            GraderSkill.of(written),
            Trust.of(written),
        )
