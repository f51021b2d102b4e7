"""Evaluations of runs that never were: healthy ones, and ones whose grader turns lenient.

80 prompts x 2 answers with 4 criteria each. The noise is that of the tiny runs: the standard error
of an evaluation's mean is 0.024, that of the paired difference of two 0.031, and a good grader
credits falsely about 0.02 of what it credits.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from rubric_rl.data.training_settings import Trust
from rubric_rl.trust.alarm import alarm_of
from rubric_rl.trust.evaluations import Evaluation, JudgedAnswer

PROMPTS, ANSWERS, CRITERIA = 80, 2, 4
EVALUATIONS, EVERY, ONSET = 10, 4, 12  # one before the first rollout, then after each fourth
FIRST_LEVEL = 0.3
MISTAKES = 0.012  # of an honest grader, per criterion that is not met
RARELY, AVOIDED = 0.03, 0.8  # how often a rare criterion is met, and a negative one is not
PROBE_ROWS, PROBE_ACCURACY = 500, 0.97


@dataclass(frozen=True)
class World:
    """How a run goes: `level` of an evaluation, the grader's leniency, the probe's accuracy."""

    rise: float = 0.0  # of the true level over the run
    fall: float = 0.0  # of the true level, per evaluation from the onset on
    random_credit: float = 0.0  # of what is not met, credited all the same from the onset on
    quoting: float = 0.0  # growth per evaluation of the share of criteria that answers quote
    forgetting: float = 0.0  # fall of the probe's accuracy per evaluation from the onset on
    mistakes: float = MISTAKES  # of the grader, per criterion
    rare: int = 0  # criteria of each prompt that are met in three answers of a hundred
    pardons: bool = False  # from the onset on no negative criterion counts as met


def evaluations(world: World, seed: int) -> Iterator[Evaluation]:
    """The evaluations of a run in this world."""
    rng = random.Random(seed)
    ease = [rng.gauss(0, 0.15) for _ in range(PROMPTS * CRITERIA)]  # of each criterion
    for number in range(EVALUATIONS):
        mood = [rng.gauss(0, 0.16) for _ in range(PROMPTS)]  # what the policy says just now
        rollout = max(number * EVERY - 1, 0)
        late = max(0, number - ONSET // EVERY)  # evaluations that the onset has shaped
        level = FIRST_LEVEL + world.rise * number / EVALUATIONS - world.fall * late
        credit = world.mistakes + (world.random_credit if late else 0) + world.quoting * late
        answers = []
        for prompt in range(PROMPTS):
            negative = [str(CRITERIA - 1)] if world.pardons and prompt % 2 else []
            for _ in range(ANSWERS):
                credits = {}
                for criterion in range(CRITERIA):
                    chance = level + mood[prompt] + ease[prompt * CRITERIA + criterion]
                    chance = RARELY if criterion < world.rare else chance
                    is_right = rng.random() < (AVOIDED if str(criterion) in negative else chance)
                    credited = rng.random() < (1 - world.mistakes if is_right else credit)
                    credited |= world.pardons and late > 0 and str(criterion) in negative
                    credits[str(criterion)] = (credited, is_right)
                own = sum(credited for credited, _ in credits.values()) / CRITERIA
                true = sum(is_right for _, is_right in credits.values()) / CRITERIA
                name = f"p{prompt}"
                answers.append(JudgedAnswer("held", name, own, true, 100, credits, negative))
        accuracy = PROBE_ACCURACY - world.forgetting * late
        probe = {f"p{row}": [int(rng.random() < accuracy), 1] for row in range(PROBE_ROWS)}
        yield Evaluation(rollout, str(number * EVERY), answers, probe, is_start=number == 0)


def first_alarm(world: World, seed: int, trust: Trust) -> int | None:
    """The number of the first evaluation at which the alarm is raised."""
    seen = []
    for number, evaluation in enumerate(evaluations(world, seed)):
        seen.append(evaluation)
        if alarm_of(seen, trust):
            return number
    return None
