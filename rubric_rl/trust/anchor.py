"""An anchor: another grader of the same answers, whose word earns no reward.

The policy is its own judge; where its reward rises and the anchor's does not, the reward can no
longer be trusted. Whatever happens to an anchor, the rollout goes on: it is left out where it
fails, and waited for no longer than its own limit.
"""

import asyncio
import time
from dataclasses import dataclass, field

from rubric_rl.common.errors import UserError
from rubric_rl.data.schema import Anchored, Record, Row
from rubric_rl.grading.grade import Grader, ask_verdicts, fill_in, unasked
from rubric_rl.grading.health import check, failure_of, sickness
from rubric_rl.grading.score import score
from rubric_rl.serving.client import beside
from rubric_rl.serving.question import Aborted


@dataclass
class Anchor:
    """A grader that stands beside the main one. Use it in one event loop only."""

    grader: Grader
    seconds: float  # the longest time for one answer, waiting for its turn included
    _checked: asyncio.Task[str] | None = field(default=None, init=False)

    async def judge(self, row: Row, answer: str, routing_key: str) -> Anchored:
        """The anchor's verdicts on an answer, or why there are none; raises nothing of its own."""
        record = Record.of(row, "graded", answer)
        try:
            async with asyncio.timeout(self.seconds):
                failure = await self._failure()
                if not failure:
                    await ask_verdicts(self.grader, record, routing_key)
                    failure = record.error or self._unread(record)
        except TimeoutError:
            failure = f"no verdicts within grader_anchor_seconds ({self.seconds:g})"
        except (Aborted, UserError) as error:
            failure = str(error) or "aborted"
        tokens = record.first_tokens + record.rest_tokens
        anchored = Anchored(self.grader.name, tokens=tokens, error=failure)
        if not failure:
            anchored.verdicts = record.verdicts
            anchored.score = score(record.rubric, record.verdicts)
        return anchored

    def _unread(self, record: Record) -> str:
        """Why some of its verdicts cannot be read; "" where all can.

        Of a part of them there is no score: what it cannot read would count as not met.
        """
        if all(verdict.met is not None for verdict in record.verdicts):
            return sickness([record], self.grader.grading.most_unreadable)
        return sickness([record], most_unreadable=0)

    async def _failure(self) -> str:
        """Why the anchor cannot be used, by its check question; "" for nothing."""
        self._checked = self._checked or asyncio.create_task(self._check())
        return await asyncio.shield(self._checked)

    async def _check(self) -> str:
        """The same, asked anew. What may pass is forgotten: the next answer asks again."""
        try:
            async with asyncio.timeout(self.seconds):
                checked = await check(self.grader)
        except TimeoutError:
            failure = "no reply to the check question"
        except Aborted as error:
            failure = str(error) or "aborted"
        else:
            failure = failure_of(checked, self.grader.grading.most_unreadable)
            if checked.status == "graded":
                return failure
        self._checked = None
        return failure


async def grade_beside(
    anchor: Anchor | None,
    grader: Grader,
    row: Row,
    response: str,
    prompt: str = "",
    truncated: bool = False,
    routing_key: str = "",
) -> Record:
    """As `grade`, with the anchor's word on the same answer in the record.

    Both are asked at the same time. What is not graded by the one is not judged by the other.
    """
    record = unasked(grader, row, response, prompt, truncated)
    if anchor is None or record.status != "graded":
        await fill_in(grader, record, routing_key)
        return record
    assert record.answer is not None  # it is graded
    async with beside(anchor.judge(row, record.answer, routing_key)) as judging:
        await fill_in(grader, record, routing_key)
        start = time.monotonic()
        record.anchored = await judging
    record.anchored.delay = time.monotonic() - start
    return record
