"""The arms: what each run of the paper's claims, and of the means against drift, changes.

Every arm is the tiny run (`run_qwen3_tiny.sh`) but for what stands here. A new arm is an entry.
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


FROZEN = ("--sglang-config", "configs/frozen_grader.yaml")
SERVED_ORACLE = {"grader_api": "openai", "grader_url": ORACLE, "grader_model": "tiny-oracle"}
# What an explanation and the object around it take, with room.
EXPLAIN = {"grader_mode": "explain", "grader_max_tokens": 96}

# A small weight, on as many grading prompts as there are samples.
GENTLE = {"grader_skill_coef": 0.03, "grader_skill_share": 1.0}

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


# In the order in which they are run, by weight.
ARMS = {
    "self": Arm("the policy grades itself: the recipe"),
    "oracle": Arm("what a grader that is always right would teach", SERVED_ORACLE),
    "frozen": Arm(
        "the paper's baseline: a frozen copy of the start grades",
        {"grader_engine": "grader"},
        FROZEN,
    ),
    "self-fast": Arm("self-grading at three times the learning rate", flags=FAST),
    "oracle-fast": Arm(
        "the oracle at three times the learning rate",
        SERVED_ORACLE,
        FAST,
        compared_with="self-fast",
    ),
    "skill-fast": Arm(
        "a loss that keeps the verdicts of the start",
        {"grader_skill_coef": 1.0},
        FAST,
        compared_with="self-fast",
    ),
    "skill-gentle-fast": Arm(
        "the same loss with a small weight, on four times the grading prompts",
        GENTLE,
        FAST,
        compared_with="self-fast",
    ),
    "skill-firm-fast": Arm(
        "the same loss with three times that weight",
        GENTLE | {"grader_skill_coef": 0.1},
        FAST,
        compared_with="self-fast",
    ),
    "threshold-fast": Arm(
        "precision first: credit from a probability of 0.8",
        {"grader_threshold": 0.8},
        FAST,
        compared_with="self-fast",
    ),
    "probability-fast": Arm(
        "the probability as credit, not the verdict",
        {"grader_reward": "probability"},
        FAST,
        compared_with="self-fast",
    ),
    "dropout-fast": Arm(
        "half of the positive criteria left out, at random by group",
        {"grader_dropout": 0.5},
        FAST,
        compared_with="self-fast",
    ),
    "length-fast": Arm(
        "a cost of length beyond 200 characters",
        {"grader_length_limit": 200, "grader_length_cost": 0.5},
        FAST,
        compared_with="self-fast",
    ),
    "skill-probability-fast": Arm(
        "that loss with a small weight and the probability as credit together",
        GENTLE | {"grader_reward": "probability"},
        FAST,
        compared_with="self-fast",
    ),
    "skill": Arm("what keeping the skill with a small weight costs a healthy run", GENTLE),
    "probability": Arm(
        "the probability as credit at the usual learning rate",
        {"grader_reward": "probability"},
    ),
    "unpractised": Arm("self-grading from a start that grades worse", start="unpractised"),
    "unpractised-oracle": Arm(
        "the oracle from that start",
        SERVED_ORACLE,
        start="unpractised",
        compared_with="unpractised",
    ),
    "unpractised-frozen": Arm(
        "a frozen copy of that start grades",
        {"grader_engine": "grader"},
        FROZEN,
        start="unpractised",
        compared_with="unpractised",
    ),
    "unpractised-fast": Arm(
        "self-grading from that start at three times the learning rate",
        flags=FAST,
        start="unpractised",
        compared_with="unpractised",
    ),
    "contrasts": Arm("self-grading from a start that grades better", start="contrasts"),
    "contrasts-oracle": Arm(
        "the oracle from that start",
        SERVED_ORACLE,
        start="contrasts",
        compared_with="contrasts",
    ),
    "contrasts-fast": Arm(
        "self-grading from that start at three times the learning rate",
        flags=FAST,
        start="contrasts",
        compared_with="contrasts",
    ),
    "contrasts-oracle-fast": Arm(
        "the oracle from that start at three times the learning rate",
        SERVED_ORACLE,
        FAST,
        start="contrasts",
        compared_with="contrasts-fast",
    ),
    "teacher-10": Arm("a teacher grades 10% of the prompts", _teacher(0.10)),
    "teacher-25": Arm("a teacher grades 25% of the prompts", _teacher(0.25)),
    "generated": Arm("rubrics that a model wrote and the filters kept", rubrics="generated"),
    "generated-unfiltered": Arm(
        "the same rubrics with every filter off", rubrics="generated-unfiltered"
    ),
    "alarm-healthy": Arm("does the alarm stay silent in a healthy run", ALARM, FROZEN),
    "alarm-random": Arm(
        "does it fire where every third criterion is credited at random", ALARM, _lenient("random")
    ),
    "alarm-quoting": Arm(
        "does it fire where quoting a criterion is credited", ALARM, _lenient("quoting")
    ),
    "alarm-fast": Arm(
        "does it fire before the true score is lost",
        ALARM,
        (*FROZEN, *FAST),
        compared_with="self-fast",
    ),
    "weak": Arm("self-grading from a start that grades badly", start="weak"),
    "weak-teacher-25": Arm(
        "the same with a teacher for 25% of the prompts",
        _teacher(0.25),
        start="weak",
        compared_with="weak",
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
