"""Measures a tiny checkpoint without a server: how well it grades and how well it answers.

python -m rubric_rl.tiny.measure_checkpoint --model rubric_rl/tiny/model
"""

import argparse
import json
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import UserError
from rubric_rl.data.schema import Row
from rubric_rl.grading.prompt import graded_text, grader_prompt, verdict_opening
from rubric_rl.grading.verdict import read_verdict
from rubric_rl.tiny.example_answers import graded_answer, mediocre_answer
from rubric_rl.tiny.oracle import VerdictCounts, true_score
from rubric_rl.tiny.world import PATIENTS, Pair, messages, pair_of, rows

MAX_ANSWER_TOKENS = 64  # as in the tiny run
MAX_REPLY_TOKENS = 48
GROUP = 8  # answers to a row
GENERATED_AT_ONCE = 64  # prompts
READ_AT_ONCE = 32
DIGITS = 4  # of the figures

Figures = dict[str, float]
Tokens = list[int]
Verdicts = list[bool | None]  # on the criteria of one answer; None: unreadable


class Case(NamedTuple):
    """A row and an answer to it."""

    row: Row
    answer: str


class Reply(NamedTuple):
    """What the policy wrote to a patient."""

    answer: str | None  # as it is graded; there may be none
    tokens: int
    is_cut_off: bool  # at the limit


class Policy:
    """A checkpoint that answers in this process, without a server."""

    def __init__(self, model, tokenizer):
        self.model = model
        self.tokenizer = tokenizer
        self.end_of_turn: int = tokenizer.eos_token_id

    def templated(self, conversation: Iterable[dict]) -> str:
        """The prompt of the next assistant turn, with thinking off."""
        return self.tokenizer.apply_chat_template(
            list(conversation), tokenize=False, add_generation_prompt=True, enable_thinking=False
        )

    def encoded(self, texts: list[str]):
        """`input_ids` and `attention_mask`, [texts, longest], padded on the left."""
        return self.tokenizer(
            texts,
            return_tensors="pt",
            padding=True,
            padding_side="left",
            add_special_tokens=False,
        )

    def decoded(self, tokens: Tokens) -> str:
        """Their text, control tokens included."""
        return self.tokenizer.decode(tokens)

    @torch.inference_mode()
    def replies(self, prompts: list[str], limit: int, temperature: float) -> list[Tokens]:
        """New token ids for each templated prompt, cut after the first end of turn.

        At most `limit` tokens each; temperature 0 is greedy.
        """

        def length(index: int) -> int:
            return len(prompts[index])

        # Prompts of similar length share a batch, for less padding.
        indices = range(len(prompts))
        by_length = sorted(indices, key=length)
        replies: list[Tokens] = [[] for _ in prompts]
        for batch in _batches(by_length, GENERATED_AT_ONCE):
            chosen = [prompts[index] for index in batch]
            generated = self._generate(chosen, limit, temperature)
            for index, tokens in zip(batch, generated, strict=True):
                replies[index] = self._until_end_of_turn(tokens)
        return replies

    def _generate(self, prompts: list[str], limit: int, temperature: float) -> list[Tokens]:
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature:
            sampling = {
                "do_sample": True,
                "temperature": temperature,
                "top_k": 0,
                "top_p": 1.0,
            }
        inputs = self.encoded(prompts)
        self.model.eval()
        output = self.model.generate(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            max_new_tokens=limit,
            eos_token_id=self.end_of_turn,
            pad_token_id=self.tokenizer.pad_token_id,
            **sampling,
        )
        prompt_length = inputs.input_ids.shape[1]
        generated = output[:, prompt_length:]
        return generated.tolist()

    def _until_end_of_turn(self, tokens: Tokens) -> Tokens:
        """The tokens up to the first end of turn, which is kept; without one, all of them."""
        if self.end_of_turn not in tokens:
            return tokens
        end = tokens.index(self.end_of_turn)
        return tokens[: end + 1]

    @torch.inference_mode()
    def prefers_true(self, prompts: list[str]) -> list[bool]:
        """Whether ` true` is likelier than ` false` as the next token of each prompt."""
        true = self._first_token(" true")
        false = self._first_token(" false")
        self.model.eval()
        preferred = []
        for batch in _batches(prompts, READ_AT_ONCE):
            inputs = self.encoded(batch)
            output = self.model(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                logits_to_keep=1,
            )
            logits = output.logits[:, -1]  # [prompts, vocabulary]
            true_logits = logits[:, true]
            false_logits = logits[:, false]
            is_likelier = true_logits > false_logits
            preferred += is_likelier.tolist()
        return preferred

    def _first_token(self, text: str) -> int:
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        return tokens[0]


def _batches(items: list, size: int) -> Iterator[list]:
    for start in range(0, len(items), size):
        end = start + size
        yield items[start:end]


def sampled_answers(
    policy: Policy, pairs: Iterable[Pair], per_pair: int, temperature: float, seed: int
) -> list[tuple[Pair, str]]:
    """The policy's own answers to `per_pair` patients of each pair; empty ones are left out."""
    asked = []
    conversations = []
    patients = len(PATIENTS)
    for pair in pairs:
        for number in range(per_pair):
            patient = number % patients
            asked.append(pair)
            conversations.append(messages(pair, patient))
    replies = _replies(policy, conversations, temperature, seed)
    answers = []
    for pair, reply in zip(asked, replies, strict=True):
        if reply.answer:
            answers.append((pair, reply.answer))
    return answers


def _replies(policy: Policy, conversations: list, temperature: float, seed: int) -> list[Reply]:
    torch.manual_seed(seed)
    prompts = []
    for conversation in conversations:
        prompt = policy.templated(conversation)
        prompts.append(prompt)
    written = policy.replies(prompts, MAX_ANSWER_TOKENS, temperature)
    replies = []
    for tokens in written:
        text = policy.decoded(tokens)
        last = tokens[-1]
        reply = Reply(
            answer=graded_text(text),
            tokens=len(tokens),
            is_cut_off=last != policy.end_of_turn,
        )
        replies.append(reply)
    return replies


def answer_figures(
    policy: Policy, chosen: list[Row], per_row: int, temperature: float, seed: int
) -> tuple[Figures, list[Case]]:
    """How well the policy answers the chosen rows, `per_row` times each; and its answers.

    A truncated or empty answer scores 0, as in training; empty ones are not among the answers.
    """
    asked: list[Row] = []
    for row in chosen:
        asked += [row] * per_row
    conversations = [row.messages for row in asked]
    replies = _replies(policy, conversations, temperature, seed)
    cases = []
    scores = []
    for row, reply in zip(asked, replies, strict=True):
        score = 0.0
        if reply.answer:
            case = Case(row, reply.answer)
            cases.append(case)
            if not reply.is_cut_off:
                score = true_score(row.rubric, reply.answer)
        scores.append(score)
    best_scores = []
    has_variance = []
    for group in _batches(scores, per_row):
        best = max(group)
        best_scores.append(best)
        worst = min(group)
        has_variance.append(worst < best)
    figures = {
        "true_score": _mean(scores),
        "groups_with_variance": _mean(has_variance),
        "best_of_group": _mean(best_scores),
        "tokens": _mean([reply.tokens for reply in replies]),
        "truncated": _mean([reply.is_cut_off for reply in replies]),
    }
    return figures, cases


def _mean(values: Sequence[float]) -> float:
    total = sum(values)
    return _share(total, len(values))


def _share(part: float, whole: int) -> float:
    share = part / whole
    return round(share, DIGITS)


def verdicts(policy: Policy, mode: str, cases: list[Case]) -> list[Verdicts]:
    """The policy's verdict on each criterion of each case; None: unreadable.

    It is asked with the real grader prompt.
    """
    prompts = []
    for row, answer in cases:
        conversation = list(row.messages)
        for criterion in row.rubric:
            content = grader_prompt(mode, conversation, answer, [criterion])
            message = {"role": "user", "content": content}
            prompt = policy.templated([message])
            prompts.append(prompt)
    read = _read_verdicts(policy, mode, prompts)
    by_case = []
    start = 0
    for row, _ in cases:
        end = start + len(row.rubric)
        of_case = read[start:end]
        by_case.append(of_case)
        start = end
    return by_case


def _read_verdicts(policy: Policy, mode: str, prompts: list[str]) -> Verdicts:
    if mode == "direct":
        opening = verdict_opening()
        opened = [prompt + opening for prompt in prompts]
        preferred = policy.prefers_true(opened)
        return list(preferred)
    read: Verdicts = []
    for tokens in policy.replies(prompts, MAX_REPLY_TOKENS, temperature=0):
        text = policy.tokenizer.decode(tokens, skip_special_tokens=True)
        verdict = read_verdict(text)
        read.append(verdict.met)
    return read


def grading_figures(policy: Policy, mode: str, cases: list[Case]) -> Figures:
    """Agreement with the oracle; an unreadable reply is wrong.

    `always_false` is the accuracy of saying "false" every time.
    """
    counts = VerdictCounts()
    found = verdicts(policy, mode, cases)
    for case, of_case in zip(cases, found, strict=True):
        rubric = case.row.rubric
        counts.add(rubric, case.answer, of_case)
    total = counts.total or 1  # a policy whose answers are all empty gets no verdict
    not_met = counts.not_met
    met = counts.met
    return {
        "accuracy": _share(counts.right, total),
        "false_positive_rate": _share(counts.false_positives, not_met or 1),
        "false_negative_rate": _share(counts.false_negatives, met or 1),
        "unreadable": _share(counts.unreadable, total),
        "always_false": _share(not_met, total),
        "verdicts": counts.total,
    }


def world_cases(chosen: list[Row], seed: int) -> dict[str, list[Case]]:
    """Answers made up by the world.

    `ordinary` ones, and `hostile` ones (spliced, cut, repeated, contradictory).
    """
    rng = random.Random(seed)
    writers = {"ordinary": mediocre_answer, "hostile": graded_answer}
    made = {}
    for kind, write in writers.items():
        cases = []
        for row in chosen:
            pair = pair_of(row)
            answer = write(rng, pair)
            cases.append(Case(row, answer))
        made[kind] = cases
    return made


def measure(policy: Policy, sample: int = 80, seed: int = 1234) -> dict[str, Figures]:
    """All figures, on `sample` held-out rows and as many training rows."""
    held_out_rows = rows(held_out=True)
    held_out = _sampled(held_out_rows, sample, seed)
    training_rows = rows(held_out=False)
    training = _sampled(training_rows, len(held_out), seed)
    splits = {"held_out": held_out, "training": training}
    figures: dict[str, Figures] = {}
    own: list[Case] = []  # the policy's answers to held-out patients
    for split, chosen in splits.items():
        for temperature in (1.0, 0.7):
            name = f"answers {split} T={temperature}"
            found, cases = answer_figures(policy, chosen, GROUP, temperature, seed)
            figures[name] = found
            own = own or cases
    own = _sampled(own, 2 * sample, seed)
    sources = {"own": own, **world_cases(held_out, seed)}
    for mode in ("explain", "direct"):
        for source, cases in sources.items():
            name = f"grading {mode} {source}"
            figures[name] = grading_figures(policy, mode, cases)
    return figures


def _sampled(population: list, most: int, seed: int) -> list:
    rng = random.Random(seed)
    count = min(most, len(population))
    return rng.sample(population, count)


def main(argv: list[str] | None = None) -> int:
    """Prints the figures as JSON."""
    parser = CommandParser("python -m rubric_rl.tiny.measure_checkpoint", __doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument(
        "--sample", type=int, default=80, help="held-out rows, and as many training rows"
    )
    parser.add_argument("--seed", type=int, default=1234)
    return exit_status(lambda: _measure_and_print(parser.parse_args(argv)))


def _measure_and_print(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    policy = load_policy(args.model)
    figures = measure(policy, args.sample, args.seed)
    text = json.dumps(figures, indent=1)
    print(text)
    return 0


def load_policy(folder: Path) -> Policy:
    """The policy of a Hugging Face folder.

    Raises:
        UserError: where there is no checkpoint.
    """
    config = folder / "config.json"
    if not config.is_file():
        hint = "make one with python -m rubric_rl.tiny.make_checkpoint"
        raise UserError(f"{folder}: no checkpoint there; {hint}")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return Policy(model, tokenizer)


if __name__ == "__main__":
    sys.exit(main())
