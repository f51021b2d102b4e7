"""Evaluations that an anchor has judged too, as the log hook gets them."""

from doubles.records import made, said
from rubric_rl.data.schema import Anchored
from rubric_rl.grading.score import score

POINTS = (1, 1, 1, 1)
HONEST, LENIENT = (True, False, False, False), (True, True, True, False)


def records(own: tuple, weights: str, prompts: int = 30) -> dict:
    """An evaluation in which the anchor credits the first criterion of each answer alone."""
    found = []
    for number in range(prompts):
        record = made(f"p{number}", POINTS, own, weights=weights)
        verdicts = said(*HONEST)
        record.anchored = Anchored("judge", verdicts, score(record.rubric, verdicts))
        found.append(record)
    return {"held": found}
