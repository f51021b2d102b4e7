"""From a grader's reply to verdicts; what is not clearly one is unreadable, and never pays.

The grader is the policy. serving/verdict_text.py finds the verdict in a text, whoever is quoted in
it; here stands what counts as a verdict, also where the text holds none.
"""

from dataclasses import replace
from statistics import fmean

from rubric_rl.common.tokenizer import after_thoughts
from rubric_rl.data.schema import UNREADABLE, Criterion, Verdict
from rubric_rl.serving.question import Reply
from rubric_rl.serving.reply_json import Unclear, objects_in
from rubric_rl.serving.verdict_text import KEY, verdict_in, verdicts_in


def read_verdict(reply: str) -> Verdict:
    """The verdict of an `explain` reply: of the object with `criteria_met` that ends it."""
    try:
        return _verdict(verdict_in(reply))
    except Unclear:
        return UNREADABLE


def read_checklist(reply: str, count: int) -> list[Verdict]:
    """The verdicts of a `checklist` reply in the order of the criteria.

    All are unreadable unless there are exactly `count`. An item that is no JSON costs only itself
    where the places of the others are beyond doubt.
    """
    try:
        items = verdicts_in(reply, count)
    except Unclear:
        return [UNREADABLE] * count
    return [_verdict(item) if item else UNREADABLE for item in items]


def read_token(probability: float | None, mass: float | None = None) -> Verdict:
    """The verdict of a `direct` reply: the word with more than half of all probability.

    `probability` is the share of "met" in the `mass` of both words (1 where it is not known).
    """
    token = Verdict(None, probability, mass=mass)
    met, not_met = token.of_words
    if max(met, not_met) <= 0.5:
        return token
    return replace(token, met=met > 0.5)


def holds_verdict(reply: Reply) -> bool:
    """Whether a grader's reply holds a verdict that can be read, in whatever mode it was asked."""
    if reply.mass is not None:
        return read_token(reply.probability, reply.mass).met is not None
    if reply.probability is not None:  # of the first form
        return True
    verdicts = [read_verdict(reply.text), *read_checklist(reply.text, _length(reply.text))]
    return reply.complete and any(verdict.met is not None for verdict in verdicts)


def is_unsure(criterion: Criterion, verdict: Verdict, low: float, high: float) -> bool:
    """Whether the probability of "met" lies between two limits, for a verdict that can be read.

    Other words count against the policy, and what cannot be read is not unsure: else it would pay
    to move probability to other words until there is a second chance.
    """
    if verdict.met is None or verdict.probability is None:
        return False
    met, not_met = verdict.of_words
    helping = 1 - not_met if criterion.points < 0 else met
    return (low < helping or low == 0) and (helping < high or high == 1)


def second_look(
    criteria: list[Criterion], first: list[Verdict], second: list[Verdict], by_policy: bool
) -> list[Verdict]:
    """The first verdicts, with those of a finished or another reply where they were unreadable.

    Where the policy grades, the second counts only if it tells against the policy. Else to refuse
    in place of "not met" would pay, whatever the second is: a policy that means "met" with
    probability p and refuses otherwise is credited with p, and then with a part of 1 - p besides.
    """
    verdicts = []
    for criterion, verdict, again in zip(criteria, first, second, strict=True):
        helps = again.met is (criterion.points >= 0)
        counts = verdict.met is None and not (by_policy and helps)
        verdicts.append(again if counts else verdict)
    return verdicts


def majority(votes: list[Verdict]) -> Verdict:
    """The verdict that more than half of all votes share, unreadable ones counted.

    Without such a majority it is unreadable. Where all that can be read bring a probability, it has
    the mean over all votes: so its worth by probability is the mean of theirs. A vote without one
    gives all of it to other words.
    """
    if len(votes) == 1:
        return votes[0]
    shared = [UNREADABLE]
    for met in (True, False):
        agreeing = [vote for vote in votes if vote.met is met]
        if 2 * len(agreeing) > len(votes):
            shared = agreeing
    finished = all(vote.finished for vote in shared)
    verdict = Verdict(shared[0].met, explanation=shared[0].explanation, finished=finished)
    if any(vote.met is not None and vote.probability is None for vote in votes):
        return verdict
    met, not_met = map(fmean, zip(*(vote.of_words for vote in votes), strict=True))
    mass = met + not_met
    return replace(verdict, probability=met / mass, mass=mass) if mass else verdict


def _length(reply: str) -> int:
    """How many criteria the checklist is of that ends the reply; 0 where none does."""
    text = after_thoughts(reply)
    try:
        lists = [found.item.get("verdicts") for found in objects_in(text)]
    except Unclear:
        return text.count(KEY)  # a readable one has it once in each item, in its strings too
    last = lists[-1] if lists else None
    return len(last) if isinstance(last, list) else 0


def _verdict(item: dict) -> Verdict:
    explanation = item.get("explanation")
    return Verdict(item[KEY], explanation=explanation if isinstance(explanation, str) else "")
