"""Keeps the policy's skill as a grader while it learns to answer, without a GPU.

Only answering is rewarded, so grading is forgotten: at a high learning rate within a few rollouts.
In every update the policy also reads grading prompts of the rollout's own answers, up to the
verdict. Its distribution of the next token is held to that of the frozen start on the same prompt:
the loss is KL(start || policy), which is the cross-entropy to the start's verdict less a constant.
It teaches nothing new: where the start errs, the policy goes on to err.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rubric_rl.common.tokenizer import ChatTokenizer
from rubric_rl.cpu.micro_batches import DEFAULT_TOKENS
from rubric_rl.cpu.samples import Sample
from rubric_rl.data.parse import record_from_json
from rubric_rl.data.schema import Record
from rubric_rl.grading.prompt import AnswerPrompt
from rubric_rl.grading.settings import GraderSettings, Grading

Prompt = list[int]  # token ids of a grading prompt, up to the verdict


def grading_prompts(args, samples: Sequence[Sample], rollout_id: int) -> list[Prompt]:
    """Grading prompts of a rollout's graded answers, one criterion each, chosen by chance.

    As many as skill_share allows: their tokens are at most that share of the samples' tokens. The
    choice depends on seed, rollout and records alone, so that a resumed run makes it again. None
    where grader_skill_coef is 0.
    """
    settings = GraderSettings.load(vars(args))
    skill = settings.skill
    if not skill.skill_coef:
        return []
    grading = settings.grading
    if grading.mode == "checklist":  # one criterion at a time, as `explain` asks
        grading = grading.model_copy(update={"mode": "explain"})
    pairs = []
    for sample in samples:
        item = (sample.metadata or {}).get("grading")
        record = record_from_json(item) if item else None
        if record and record.status == "graded":
            pairs.extend((record, place) for place in range(len(record.rubric)))
    template = ChatTokenizer(args.hf_checkpoint)  # as the grader's client renders
    random.Random(f"{args.seed}:{rollout_id}").shuffle(pairs)
    left = skill.skill_share * sum(len(sample.tokens) for sample in samples)
    prompts = []
    for record, place in pairs:
        prompt = _prompt(grading, record, place, template)
        left -= len(prompt)
        if left < 0:
            break
        prompts.append(prompt)
    return prompts


def _prompt(grading: Grading, record: Record, place: int, template: ChatTokenizer) -> Prompt:
    """The grader's question about one criterion, and the opening of a verdict as its reply.

    In `explain` mode that is how a reply is finished.
    """
    asked = AnswerPrompt(grading, record.messages, record.answer or "", template.break_up)
    criterion = record.rubric[place]
    messages, opening = asked.messages([criterion]), asked.opening(criterion)
    text = template.render(messages, thinking=False, opening=opening)
    return template.encode(text)


@dataclass
class SkillBatch:
    """Grading prompts of similar length.

    `inputs` is [prompts, length], padded on the right with 0; `rows` and `columns` are the places
    before the verdict. `start` holds the frozen start's log-probabilities, [prompts, vocabulary];
    the actor fills them in.
    """

    inputs: Tensor
    rows: Tensor
    columns: Tensor
    weight: float  # 1 / prompts of the step, over all ranks
    start: Tensor | None = None


def skill_batches(
    args, prompts: Sequence[Prompt], steps: int, dp_rank: int, dp_size: int
) -> list[list[SkillBatch]]:
    """The batches of DP rank `dp_rank` for each of the rollout's optimizer steps."""
    budget = args.max_tokens_per_gpu or DEFAULT_TOKENS
    batches = []
    for step in range(steps):
        of_step = sorted(prompts[step::steps], key=len, reverse=True)
        own = of_step[dp_rank::dp_size]
        of_rank = []
        while own:
            size = max(budget // len(own[0]), 1)
            of_rank.append(_collate(own[:size], 1 / len(of_step)))
            own = own[size:]
        batches.append(of_rank)
    return batches


def _collate(prompts: Sequence[Prompt], weight: float) -> SkillBatch:
    """The tensors of some prompts, longest first."""
    inputs = torch.zeros(len(prompts), len(prompts[0]), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        inputs[row, : len(prompt)] = torch.tensor(prompt)
    columns = torch.tensor([len(prompt) - 1 for prompt in prompts])
    return SkillBatch(inputs, torch.arange(len(prompts)), columns, weight)


def skill_loss(logits: Tensor, batch: SkillBatch) -> Tensor:
    """This batch's share of the step's mean KL(start || policy), in nats; a scalar.

    `logits` are the policy's, [prompts, vocabulary], at temperature 1, as verdicts are read.
    """
    assert batch.start is not None  # Actor.train has filled it in
    policy = torch.log_softmax(logits, dim=-1)
    kl = batch.start.exp() * (batch.start - policy)
    return batch.weight * kl.sum()
