"""Where a cascade's limits are best set: how right it is and what it decodes, over limits.

From judged rows of one criterion each, asked with `grader_mode: cascade`: where the token was
unsure both it and the words are known, so that narrower limits can be tried without the model.
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from rubric_rl.data.schema import Record
from rubric_rl.evaluation.agreement import BOTH, NEITHER, pairs
from rubric_rl.evaluation.statistics import Sums, interval
from rubric_rl.grading.settings import Grading
from rubric_rl.grading.verdict import is_unsure, read_token

LOWS = (0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.0)  # the other limit is 1 - low
LABELS, RIGHT = 0, 1  # columns of the sums; then rows, of these asked again, tokens decoded


def limits_curve(records: Iterable[Record], asked: Grading) -> dict | None:
    """Accuracy and tokens over limits that lie within those `asked` with, the narrowest first.

    Accuracy is over the labels, unreadable verdicts counted as wrong. `proposed` are the narrowest
    limits with at least the accuracy of the widest ones; None where nothing can be tried, as with
    `grader_verdict: probability`: there the words' probability takes the place of the token's.
    """
    if asked.verdict == "probability":
        return None
    lows = [low for low in LOWS if asked.cascade_low <= low and 1 - low <= asked.cascade_high]
    by_prompt = defaultdict(lambda: np.zeros((len(lows), 5)))
    for record in records:
        if record.status == "graded":
            by_prompt[record.prompt_id] += [_sums(record, low) for low in lows]
    if not by_prompt:
        return None
    parts = np.array(list(by_prompt.values()))  # prompts, limits, columns
    widest = parts[:, -1]
    curve = []
    for number, low in enumerate(lows):
        one = parts[:, number]
        labels, right, rows, again, decoded = one.sum(axis=0).tolist()
        point = {
            "low": low,
            "high": 1 - low,
            "accuracy": right / labels,
            "against_widest": interval(np.hstack([one, widest]), _difference),
            "asked_again": again / rows,
            "decoded": decoded / rows,
        }
        curve.append(point)
    needed = curve[-1]["accuracy"]
    proposed = next(point for point in curve if point["accuracy"] >= needed)
    return {"curve": curve, "proposed": proposed}


def _sums(record: Record, low: float) -> list[float]:
    """What one row adds under the limits `low` and 1 - `low`."""
    (criterion,), (verdict,) = record.rubric, record.verdicts
    token = read_token(verdict.probability, verdict.mass)
    again = is_unsure(criterion, token, low, 1 - low)
    counts = pairs(verdict.met if again else token.met, record.labels)
    decoded = record.first_tokens.completion  # the token's; then those of the words
    if again:
        decoded += record.rest_tokens.completion
    return [len(record.labels), counts[BOTH] + counts[NEITHER], 1, again, decoded]


def _difference(sums: Sums) -> np.ndarray:
    """In accuracy, of the first limits against the second."""
    one, other = np.split(sums, 2, axis=-1)
    return one[..., RIGHT] / one[..., LABELS] - other[..., RIGHT] / other[..., LABELS]
