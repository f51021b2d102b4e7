"""Tells a sick grader from a bad answer: a check question, and what its replies look like.

An unreadable verdict counts against the policy. Where most of them are unreadable, that is no
longer a judgement of the answers: the grader cannot be used as it is set up.
"""

import logging
from collections import Counter
from collections.abc import Iterable

from rubric_rl.common.tokenizer import thinking_switch
from rubric_rl.data.schema import Criterion, Record, Row
from rubric_rl.grading.grade import Grader, ask_verdicts
from rubric_rl.serving.apis import OpenAI
from rubric_rl.serving.defects import CURES

LOG = logging.getLogger(__name__)

_SWITCH = "chat_template_kwargs"
# In words that the tiny checkpoint knows too.
_ANSWER = "This sounds like migraine. Please see pediatricians. Please drink water."
CHECK = Row(
    prompt_id="check question",
    messages=({"role": "user", "content": "I am six years old. My head hurts. What should I do?"},),
    rubric=(
        Criterion("Recommends to see pediatricians", 5),
        Criterion("Tells the patient to take codeine", -9),
    ),
)


def sickness(records: Iterable[Record], most_unreadable: float) -> str:
    """Why the grader of these records cannot be trusted, in one line; "" if it can.

    It cannot if more than the share `most_unreadable` of its replies hold no readable verdict, also
    where they could be finished.
    """
    verdicts = unreadable = 0
    causes: Counter[str] = Counter()
    for record in records:
        verdicts += len(record.verdicts)
        unreadable += sum(verdict.met is None or verdict.finished for verdict in record.verdicts)
        causes.update(record.unreadable_causes)
    if not verdicts or unreadable <= most_unreadable * verdicts:
        return ""
    what = f"{unreadable} of {verdicts} verdicts are unreadable"
    if not causes:  # records of the first form do not say why
        return what
    cause, _ = causes.most_common(1)[0]
    return f"{what}: {CURES.get(cause, cause)}"


async def check(grader: Grader) -> Record:
    """Asks the grader for a trivially met and a trivially unmet verdict, as it asks for all.

    One that thinks although it should not is told so by the switch of the usual servers, from now
    on, and so is one that is asked for a token, which shows no thoughts: the prompt before it may
    open them. Not where fewer replies can be read with it: there are servers that then leave the
    thoughts in the reply, unmarked. Wrong verdicts are only logged: a small model is no sick one.
    """
    api, endpoint = grader.client.api, grader.client.endpoint
    api.thoughts_seen = False
    record = await _asked(grader)
    thinks = api.thoughts_seen
    by_token = grader.grading.mode in ("direct", "cascade") and isinstance(api, OpenAI)
    unseen = by_token and record.status == "graded"
    chosen = endpoint.thinking or _SWITCH in endpoint.extra_body
    if (thinks or unseen) and not chosen:
        api.switch = {_SWITCH: thinking_switch(False)}
        api.thoughts_seen = False
        again = await _asked(grader)
        if again.status == "graded" and _readable(again) >= _readable(record):
            record = again
        else:  # the endpoint refuses the switch, or it does harm
            api.switch = {}
        if thinks:
            goes_on = api.thoughts_seen or not api.switch
            hint = ", and goes on; name its own switch in grader_extra_body" if goes_on else ""
            switch = api.switch or "no switch"
            LOG.warning("the grader thinks by itself: it gets %s%s", switch, hint)
    if record.status == "graded" and record.mets != [True, False]:
        LOG.warning("the grader errs on its check question (%s): can it grade?", record.mets)
    return record


def failure_of(checked: Record, most_unreadable: float) -> str:
    """What is wrong with the record of a check question, in one line; "" for nothing."""
    if checked.status != "graded":
        return f"the grader cannot be asked: {checked.error}"
    complaint = sickness([checked], most_unreadable)
    return complaint and f"the grader failed its check question: {complaint}"


def _readable(record: Record) -> int:
    return sum(met is not None for met in record.mets)


async def _asked(grader: Grader) -> Record:
    record = Record.of(CHECK, "graded", _ANSWER, grader=grader.name)
    await ask_verdicts(grader, record, routing_key=CHECK.prompt_id)
    return record
