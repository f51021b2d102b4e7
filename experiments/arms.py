"""The arms: what each run of the paper's claims, and of the means against drift, changes.

Every arm is the tiny run (`run_qwen3_tiny.sh`) with the recipe alone (configs/grader_tiny.yaml) but
for what stands here. A new arm is an entry.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

# Stands for a settings file of a grader that is always right, served beside the runs.
ORACLE = "<oracle>"
# Stands for a settings file of a frozen copy of the start, an anchor beside the policy.
FROZEN_COPY = "<frozen copy>"
# Stands for labelled rows of the tiny world.
PROBE = "<probe>"
AS_IT_IS: Mapping[str, Any] = MappingProxyType({})
FAST = ("--lr", "1e-3")  # where a self-graded run goes wrong


class Arm(NamedTuple):
    """One change to the tiny run."""

    question: str  # what it is there to tell
    grader: Mapping[str, Any] = AS_IT_IS  # keys over those of configs/grader_tiny.yaml
    flags: tuple[str, ...] = ()  # of the trainer, over those of run_qwen3_tiny.sh
    start: str = "shipped"  # or one of other_starts.STARTS
    rubrics: str = "expert"  # to train on, or one of generated_rubrics.RUBRICS
    compared_with: str = "self"  # the arm that its difference is taken from

    @property
    def is_fast(self) -> bool:
        """Whether it runs at the higher learning rate."""
        return set(FAST) <= set(self.flags)


FROZEN = ("--sglang-config", "configs/frozen_grader.yaml")  # serves it as the engine "grader"
ENGINE = {"grader_engine": "grader"}
SERVED_ORACLE = {"grader_api": "openai", "grader_url": ORACLE, "grader_model": "tiny-oracle"}
# What an explanation and the object around it take, with room.
EXPLAIN = {"grader_mode": "explain", "grader_max_tokens": 96}

# A small weight, on as many grading prompts as there are samples.
GENTLE = {"grader_skill_coef": 0.03, "grader_skill_share": 1.0}
FIRM = GENTLE | {"grader_skill_coef": 0.1}
STRONG = GENTLE | {"grader_skill_coef": 0.3}
WIDE = STRONG | {"grader_skill_share": 2.0}

# Watched by a frozen copy of the start and by labelled rows; the alarm only tells.
ALARM = {
    "grader_anchor": FROZEN_COPY,
    "grader_anchor_share": 0.125,
    "grader_probe": PROBE,
    "grader_alarm": "warn",
}


def _lenient(kind: str) -> tuple[str, ...]:
    """From rollout 12 on the reward is a lenient grader's (rubric_rl/tiny/lenient_hooks.py)."""
    return (*FROZEN, "--custom-rm-path", f"rubric_rl.tiny.lenient_hooks.reward_{kind}")


def _teacher(share: float) -> dict[str, Any]:
    return {"grader_teacher": ORACLE, "grader_teacher_share": share}


def _from(start: str, question: str, grader: Mapping[str, Any], *flags: str, **rest: str) -> Arm:
    """An arm from that start, held against the self-graded one from there at the same rate."""
    baseline = f"{start}-fast" if set(FAST) <= set(flags) else start
    return Arm(question, grader, flags, start, compared_with=baseline, **rest)


# In the order in which they are run, by weight.
ARMS = {
    "self": Arm("the policy grades itself: the recipe"),
    "oracle": Arm("what a grader that is always right would teach", SERVED_ORACLE),
    "frozen": Arm("the paper's baseline: a frozen copy of the start grades", ENGINE, FROZEN),
    "self-fast": Arm("self-grading at three times the learning rate", flags=FAST),
    "oracle-fast": Arm(
        "the oracle at three times the learning rate",
        SERVED_ORACLE,
        FAST,
        compared_with="self-fast",
    ),
    "self-skill-fast": Arm(
        "the same with a loss that keeps the verdicts of the start",
        GENTLE,
        FAST,
        compared_with="self-fast",
    ),
    "self-skill-firm-fast": Arm(
        "the same loss with three times that weight: the tiny run's default",
        FIRM,
        FAST,
        compared_with="self-fast",
    ),
    "self-skill-strong-fast": Arm(
        "the same loss with ten times that weight",
        STRONG,
        FAST,
        compared_with="self-fast",
    ),
    "self-skill-wide-fast": Arm(
        "that strong weight on twice the grading prompts",
        WIDE,
        FAST,
        compared_with="self-fast",
    ),
    "oracle-skill-fast": Arm(
        "the oracle with that loss: is it the grader that it helps, or the update",
        SERVED_ORACLE | STRONG,
        FAST,
        compared_with="oracle-fast",
    ),
    "self-skill": Arm("that strong weight at the usual learning rate", STRONG),
    "self-skill-firm": Arm("the tiny run's default: a third of that weight", FIRM),
    "practised": Arm("self-grading from a start that grades a little worse", start="practised"),
    "practised-oracle": _from("practised", "the oracle from that start", SERVED_ORACLE),
    "practised-frozen": _from("practised", "a frozen copy of that start grades", ENGINE, *FROZEN),
    "practised-fast": Arm(
        "self-grading from that start at three times the learning rate",
        flags=FAST,
        start="practised",
        compared_with="practised",
    ),
    "practised-oracle-fast": _from(
        "practised",
        "the oracle from that start at three times the learning rate",
        SERVED_ORACLE,
        *FAST,
    ),
    # The means against drift, from the start where there is one.
    "skill-fast": _from(
        "practised",
        "a loss that keeps the verdicts of the start",
        {"grader_skill_coef": 1.0},
        *FAST,
    ),
    "skill-gentle-fast": _from(
        "practised",
        "the same loss with a small weight, on four times the grading prompts",
        GENTLE,
        *FAST,
    ),
    "skill-firm-fast": _from(
        "practised",
        "the same loss with three times that weight",
        FIRM,
        *FAST,
    ),
    "threshold-fast": _from(
        "practised",
        "precision first: credit from a probability of 0.8",
        {"grader_threshold": 0.8},
        *FAST,
    ),
    "probability-fast": _from(
        "practised",
        "the probability as credit, not the verdict",
        {"grader_reward": "probability"},
        *FAST,
    ),
    "dropout-fast": _from(
        "practised",
        "half of the positive criteria left out, at random by group",
        {"grader_dropout": 0.5},
        *FAST,
    ),
    "length-fast": _from(
        "practised",
        "a cost of length beyond 200 characters",
        {"grader_length_limit": 200, "grader_length_cost": 0.5},
        *FAST,
    ),
    "skill-probability-fast": _from(
        "practised",
        "that loss with a small weight and the probability as credit together",
        GENTLE | {"grader_reward": "probability"},
        *FAST,
    ),
    "skill": _from(
        "practised", "what keeping the skill with a small weight costs a healthy run", GENTLE
    ),
    "probability": _from(
        "practised",
        "the probability as credit at the usual learning rate",
        {"grader_reward": "probability"},
    ),
    "unpractised": Arm("self-grading from a start that grades worse", start="unpractised"),
    "unpractised-oracle": _from("unpractised", "the oracle from that start", SERVED_ORACLE),
    "unpractised-frozen": _from(
        "unpractised", "a frozen copy of that start grades", ENGINE, *FROZEN
    ),
    "unpractised-fast": Arm(
        "self-grading from that start at three times the learning rate",
        flags=FAST,
        start="unpractised",
        compared_with="unpractised",
    ),
    "teacher-10": _from("practised", "a teacher grades 10% of the prompts", _teacher(0.10)),
    "teacher-25": _from("practised", "a teacher grades 25% of the prompts", _teacher(0.25)),
    "generated": _from(
        "practised",
        "rubrics that a model wrote and the filters kept",
        AS_IT_IS,
        rubrics="generated",
    ),
    "generated-unfiltered": _from(
        "practised",
        "the same rubrics with every filter off",
        AS_IT_IS,
        rubrics="generated-unfiltered",
    ),
    "alarm-healthy": _from(
        "practised", "does the alarm stay silent in a healthy run", ALARM, *FROZEN
    ),
    "alarm-random": _from(
        "practised",
        "does it fire where every third criterion is credited at random",
        ALARM,
        *_lenient("random"),
    ),
    "alarm-quoting": _from(
        "practised",
        "does it fire where quoting a criterion is credited",
        ALARM,
        *_lenient("quoting"),
    ),
    "alarm-fast": _from(
        "practised", "does it fire before the true score is lost", ALARM, *FROZEN, *FAST
    ),
    "alarm-firm": Arm(
        "does it stay silent in the tiny run's default",
        FIRM | ALARM,
        FROZEN,
    ),
    "alarm-firm-fast": Arm(
        "does it ring there before the true score is lost",
        FIRM | ALARM,
        (*FROZEN, *FAST),
        compared_with="self-fast",
    ),
    "weak": Arm(
        "self-grading from a start that grades badly", start="weak", compared_with="practised"
    ),
    "weak-teacher-25": _from(
        "weak", "the same with a teacher for 25% of the prompts", _teacher(0.25)
    ),
    "explain-0.6": Arm(
        "a reason before the verdict, at the paper's temperature",
        EXPLAIN | {"grader_temperature": 0.6},
    ),
    "explain-1.0": Arm(
        "the same at the paper's other temperature",
        EXPLAIN | {"grader_temperature": 1.0},
        compared_with="explain-0.6",
    ),
}


def oracle_arm(name: str) -> str | None:
    """The arm in which the oracle grades from the same start at the same learning rate."""
    arm = ARMS[name]
    for other_name, other in ARMS.items():
        is_alike = other.start == arm.start and other.is_fast == arm.is_fast
        if is_alike and other.grader == SERVED_ORACLE:
            return other_name
    return None
