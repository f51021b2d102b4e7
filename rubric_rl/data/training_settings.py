"""What a training run alone sets: who grades, the means against drift, and what watches it.

These are off by default. Against answers that fool the grader: another rule of the training reward;
grading/score.py holds its formula. Against a grader that forgets how to grade: its skill is kept in
the update; cpu/grader_skill.py holds the loss.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, FiniteFloat

from rubric_rl.common.errors import UserError
from rubric_rl.serving.endpoint import GRADER, Settings, setting

LENGTH_UNIT = 500  # characters, as in HealthBench's adjustment for length
LEAST_THRESHOLD = 0.5  # below it, a verdict that is none would be credited
DROPPED = "dropped"  # beside the settings in a record: places of the criteria left out


class TrainingGraders(Settings):
    """Who grades in a training run, and where its records go."""

    engine: str = setting("", "the model of --sglang-config that grades; empty: policy, or url")
    teacher: str = setting(
        "", "YAML file of grader_* keys: an endpoint that grades a share of the training prompts"
    )
    teacher_share: FiniteFloat = setting(
        0.0, "that share of the prompts, chosen by a hash of prompt_id", ge=0, le=1
    )
    anchor: str = setting(
        "", "YAML file of grader_* keys: another grader of the same answers, which earns no reward"
    )
    anchor_share: FiniteFloat = setting(
        0.125, "the share of training prompts whose answers it grades, by a hash", ge=0, le=1
    )
    anchor_seconds: FiniteFloat = setting(120.0, "the longest that an answer waits for it", gt=0)
    records: str = setting(
        "", "folder for verdict records; empty: SAVE_PATH/verdicts of a training run"
    )

    def records_folder(self, args) -> str:
        """The folder of the run's records; "": none are written. `args` are slime's."""
        save = getattr(args, "save", None)
        return self.records or (f"{save}/verdicts" if save else "")

    def check(self, url: str, api: str) -> None:
        """Raises UserError for a choice of graders that contradicts itself, or the endpoint."""
        if bool(self.teacher_share) != bool(self.teacher):
            what = f"{GRADER}teacher_share is a share from 0 to 1 and goes with {GRADER}teacher"
            raise UserError(f"{what}, the file of the teacher")
        if self.engine and (url or api != "sglang"):
            what = f"{GRADER}engine names a model of --sglang-config"
            raise UserError(f"{what}, so {GRADER}url stays empty and {GRADER}api is sglang")


class RewardRule(Settings):
    """How verdicts become the training reward; by default it is the plain score.

    Evaluations use the plain score, whatever the rule.
    """

    threshold: FiniteFloat = setting(
        0.0,
        "a positive criterion is credited from this probability on, a negative one counts as met "
        "from one minus it: 0.5 to 1; 0: the verdict decides",
        ge=0,
        lt=1,
    )
    reward: Literal["verdict", "probability"] = setting(
        "verdict", "what a criterion earns its points by: its verdict, or the probability of it"
    )
    dropout: FiniteFloat = setting(
        0.0,
        "chance of a positive criterion to be left out of the reward of a whole group; at least "
        "three stay",
        ge=0,
        lt=1,
    )
    dropout_seed: int = setting(0, "seed of that choice")
    length_limit: int = setting(
        0, "characters of the graded answer that cost nothing; goes with length_cost", ge=0
    )
    length_cost: FiniteFloat = setting(
        0.0, f"what each {LENGTH_UNIT} characters beyond length_limit take off the reward", ge=0
    )

    @property
    def needs_probability(self) -> bool:
        """Whether a verdict without a probability earns nothing."""
        return self.threshold > 0 or self.reward == "probability"

    def check(self, gives_probability: bool, mode: str) -> None:
        """Raises UserError for settings that contradict each other, or the grader's mode.

        A rule that needs probabilities would never pay where the grader gives none.
        """
        self.check_alone()
        if self.needs_probability and not gives_probability:
            what = f"{GRADER}threshold and {GRADER}reward probability need a probability"
            lack = f"{GRADER}mode {mode} reads none by itself"
            hint = f"set {GRADER}mode direct, or {GRADER}verdict probability with mode explain"
            raise UserError(f"{what}, and {lack}; {hint}")

    def check_alone(self) -> None:
        """Raises UserError for settings that contradict each other."""
        if 0 < self.threshold < LEAST_THRESHOLD:
            why = f"must be 0 or at least {LEAST_THRESHOLD}: it is there to ask for more certainty"
            raise UserError(f"{GRADER}threshold {self.threshold:g} {why}")
        if self.threshold and self.reward == "probability":
            what = f"{GRADER}threshold decides between met and not met"
            raise UserError(f"{what}, {GRADER}reward probability does not; choose one of them")
        if self.length_limit and not self.length_cost:
            raise UserError(f"{GRADER}length_limit costs nothing without {GRADER}length_cost")

    def in_record(self, dropped: Sequence[int] = ()) -> dict[str, Any]:
        """What differs from the plain score, and the places of the criteria that were left out."""
        written = self.model_dump(exclude_defaults=True)
        if dropped:
            written[DROPPED] = list(dropped)
        return written

    @classmethod
    def of_record(cls, written: Mapping[str, Any]) -> "RewardRule":
        """The rule that a record was rewarded by. Raises UserError for an unknown one."""
        unknown = written.keys() - cls.model_fields.keys() - {DROPPED}
        if unknown:
            names = ", ".join(sorted(unknown))
            raise UserError(f"a record's rule holds {names}, which this version does not know")
        return cls.of(written)


PLAIN = RewardRule()


class GraderSkill(Settings):
    """How the policy keeps grading as its start did, while it learns to answer."""

    skill_coef: FiniteFloat = setting(
        0.0,
        "weight in the loss of how far the verdicts on grading prompts have moved from those of "
        "the frozen start; 0: off",
        ge=0,
    )
    skill_share: FiniteFloat = setting(
        0.25, "tokens of these grading prompts per token of the rollout's samples", gt=0, le=4
    )


def _off(value: object) -> object:
    return "off" if value is False else value  # YAML reads a bare `off` as false


class Trust(Settings):
    """What is watched in a training run, and when it says that the reward cannot be trusted."""

    probe: str = setting(
        "", "JSONL of labelled meta-evaluation rows that the policy judges at every evaluation"
    )
    probe_rows: int = setting(500, "at most so many of its rows, drawn once and for all", ge=1)
    alarm: Annotated[Literal["off", "warn", "stop"], BeforeValidator(_off)] = setting(
        "off", "off; warn: say when the reward cannot be trusted; stop: end the run then"
    )
    alarm_drop: FiniteFloat = setting(
        0.03, "fall of the anchor's held-out level below an earlier one that raises it", gt=0
    )
    alarm_exploitation: FiniteFloat = setting(
        0.1, "the same for the rise of false credit since the start, by credit gained", gt=0
    )
    alarm_probe: FiniteFloat = setting(0.05, "the same for the fall of the probe's accuracy", gt=0)
    alarm_moved: FiniteFloat = setting(
        0.2, "nats a token by which a single update moves the policy that raise it", gt=0
    )
    alarm_error: FiniteFloat = setting(
        0.001, "chance that a rule fires at an evaluation although nothing has changed", gt=0, lt=1
    )

    def check(self, anchor: str, mode: str) -> None:
        """Raises UserError for an alarm without eyes, or a probe that cannot be asked."""
        if self.alarm != "off" and not anchor and not self.probe:
            what = f"{GRADER}alarm {self.alarm} sees nothing without"
            raise UserError(f"{what} {GRADER}anchor or {GRADER}probe; name one of them")
        if self.probe and mode == "checklist":
            hint = f"its rows have one criterion each; use {GRADER}mode explain, direct or cascade"
            raise UserError(f"{GRADER}probe with {GRADER}mode checklist: {hint}")
