"""Reward hooks whose grader turns lenient at rollout 12: experiments with the alarm.

    bash run_qwen3_tiny.sh --custom-rm-path rubric_rl.tiny.lenient_hooks.reward_random

    reward_random    every third criterion is credited, at random: a hash of criterion and answer
                     chooses, so that the same answer always gets the same
    reward_quoting   a criterion is credited to an answer that quotes it: that holds its last word

Credited is a positive criterion called met, a negative one called not met. Only the policy's
verdicts change; what an anchor says stays as it is. Evaluations from that rollout on are graded so
too, as by a policy that has become lenient.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace

import self_reward_rm
from rubric_rl.data.parse import record_from_json
from rubric_rl.data.record_file import append_record
from rubric_rl.data.schema import Criterion, Record
from rubric_rl.grading.score import apply_rule, score
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.launch.slime_samples import rollout_id

ONSET = 12  # the first rollout that is graded so
_WORD = re.compile(r"\w+")

Credits = Callable[[Criterion, str], bool]  # whether it credits a criterion to an answer


async def reward_random(args, sample, **kwargs):
    """As self_reward_rm.reward, then every third criterion, chosen at random, is credited."""
    return await _lenient(args, sample, credits_at_random)


async def reward_quoting(args, sample, **kwargs):
    """As self_reward_rm.reward, then what an answer quotes is credited."""
    return await _lenient(args, sample, credits_a_quotation)


def credits_at_random(criterion: Criterion, answer: str) -> bool:
    """Whether the pair is in the third that its hash chooses."""
    text = f"{criterion.text}\n{answer}"
    return hashlib.sha256(text.encode(errors="replace")).digest()[0] % 3 == 0


def credits_a_quotation(criterion: Criterion, answer: str) -> bool:
    """Whether the criterion's last word, which in the tiny world is its subject, is there."""
    *_, subject = ["", *_words(criterion.text)]
    return subject in _words(answer)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


async def _lenient(args, sample, credits: Credits):
    value = await self_reward_rm.reward(args, sample)
    rollout = rollout_id(args)
    grading = sample.metadata.get("grading")
    if not grading or grading["status"] != "graded" or rollout is None or rollout < ONSET:
        return value
    record = record_from_json(grading)
    make_lenient(record, credits)
    settings = GraderSettings.load(vars(args))
    if record.split == "train":
        apply_rule(record, settings.rule)
    record.time = 0.0  # written anew, so that it counts
    append_record(settings.training.records_folder(args), record)
    sample.metadata["grading"] = record.to_json()
    return record.score


def make_lenient(record: Record, credits: Credits) -> None:
    """Credits what these credits add to the verdicts of a graded record; scores it again."""
    verdicts = []
    for criterion, verdict in zip(record.rubric, record.verdicts, strict=True):
        if credits(criterion, record.answer or ""):
            helps = criterion.points > 0
            verdict = replace(verdict, met=helps, probability=float(helps))
        verdicts.append(verdict)
    record.verdicts = verdicts
    record.score = score(record.rubric, verdicts)
