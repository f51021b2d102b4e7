"""Measures a tiny checkpoint without a server: how well it grades and how well it answers.

python -m rubric_rl.tiny.measure_checkpoint --model rubric_rl/tiny/model
"""

import argparse
import json
import random
import sys
from collections.abc import Iterable
from itertools import islice
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

Figures = dict[str, float]


class Case(NamedTuple):
    """A row and an answer to it."""

    row: Row
    answer: str


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

    def decoded(self, tokens: list[int]) -> str:
        """Their text, control tokens included."""
        return self.tokenizer.decode(tokens)

    @torch.inference_mode()
    def replies(self, prompts: list[str], limit: int, temperature: float) -> list[list[int]]:
        """New token ids for each templated prompt, cut after the first end of turn.

        At most `limit` tokens each; temperature 0 is greedy.
        """
        # Prompts of similar length share a batch, for less padding.
        by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        replies: dict[int, list[int]] = {}
        for start in range(0, len(prompts), 64):
            indices = by_length[start : start + 64]
            chosen = [prompts[index] for index in indices]
            generated = self._generate(chosen, limit, temperature)
            for index, tokens in zip(indices, generated, strict=True):
                replies[index] = self._until_end_of_turn(tokens)
        return [replies[index] for index in range(len(prompts))]

    def _generate(self, prompts: list[str], limit: int, temperature: float) -> list[list[int]]:
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature:
            sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
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
        return output[:, prompt_length:].tolist()

    def _until_end_of_turn(self, tokens: list[int]) -> list[int]:
        """The tokens up to the first end of turn, which is kept; without one, all of them."""
        if self.end_of_turn not in tokens:
            return tokens
        end = tokens.index(self.end_of_turn)
        return tokens[: end + 1]

    @torch.inference_mode()
    def prefers_true(self, prompts: list[str]) -> list[bool]:
        """Whether ` true` is likelier than ` false` as the next token of each prompt."""
        true = self.tokenizer.encode(" true", add_special_tokens=False)[0]
        false = self.tokenizer.encode(" false", add_special_tokens=False)[0]
        self.model.eval()
        preferred = []
        for start in range(0, len(prompts), 32):
            inputs = self.encoded(prompts[start : start + 32])
            output = self.model(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                logits_to_keep=1,
            )
            logits = output.logits[:, -1]  # [prompts, vocabulary]
            is_likelier = logits[:, true] > logits[:, false]
            preferred += is_likelier.tolist()
        return preferred


def sampled_answers(
    policy: Policy, pairs: Iterable[Pair], per_pair: int, temperature: float, seed: int
) -> list[tuple[Pair, str]]:
    """The policy's own answers to `per_pair` patients of each pair; empty ones are left out."""
    torch.manual_seed(seed)
    asked = []
    prompts = []
    for pair in pairs:
        for number in range(per_pair):
            conversation = messages(pair, number % len(PATIENTS))
            asked.append(pair)
            prompts.append(policy.templated(conversation))
    replies = policy.replies(prompts, MAX_ANSWER_TOKENS, temperature)
    answers = []
    for pair, tokens in zip(asked, replies, strict=True):
        text = graded_text(policy.decoded(tokens))
        if text:
            answers.append((pair, text))
    return answers


def answer_figures(
    policy: Policy, chosen: list[Row], per_row: int, temperature: float, seed: int
) -> tuple[Figures, list[Case]]:
    """How well the policy answers the chosen rows, `per_row` times each; and its answers.

    A truncated or empty answer scores 0, as in training; empty ones are not among the answers.
    """
    torch.manual_seed(seed)
    asked: list[Row] = []
    for row in chosen:
        asked += [row] * per_row
    prompts = [policy.templated(row.messages) for row in asked]
    replies = policy.replies(prompts, MAX_ANSWER_TOKENS, temperature)
    cases = []
    scores = []
    truncated = 0
    tokens_written = 0
    for row, tokens in zip(asked, replies, strict=True):
        text = graded_text(policy.decoded(tokens))
        was_cut_off = tokens[-1] != policy.end_of_turn
        truncated += was_cut_off
        tokens_written += len(tokens)
        scores.append(true_score(row.rubric, text) if text and not was_cut_off else 0.0)
        if text:
            cases.append(Case(row, text))
    best_scores = []
    groups_with_variance = 0
    for start in range(0, len(scores), per_row):
        group = scores[start : start + per_row]
        best_scores.append(max(group))
        groups_with_variance += len(set(group)) > 1
    figures = {
        "true_score": sum(scores) / len(scores),
        "groups_with_variance": groups_with_variance / len(best_scores),
        "best_of_group": sum(best_scores) / len(best_scores),
        "tokens": tokens_written / len(scores),
        "truncated": truncated / len(scores),
    }
    return _rounded(figures), cases


def _rounded(figures: Figures) -> Figures:
    return {name: round(value, 4) for name, value in figures.items()}


def verdicts(policy: Policy, mode: str, cases: list[Case]) -> list[list[bool | None]]:
    """The policy's verdict on each criterion of each case; None: unreadable.

    It is asked with the real grader prompt.
    """
    prompts = []
    for row, answer in cases:
        for criterion in row.rubric:
            content = grader_prompt(mode, list(row.messages), answer, [criterion])
            prompts.append(policy.templated([{"role": "user", "content": content}]))
    if mode == "direct":
        opened = [prompt + verdict_opening() for prompt in prompts]
        met = iter(policy.prefers_true(opened))
    else:
        replies = policy.replies(prompts, MAX_REPLY_TOKENS, temperature=0)
        met = iter([_met(policy, tokens) for tokens in replies])
    by_case = []
    for row, _ in cases:
        by_case.append(list(islice(met, len(row.rubric))))
    return by_case


def _met(policy: Policy, reply: list[int]) -> bool | None:
    text = policy.tokenizer.decode(reply, skip_special_tokens=True)
    return read_verdict(text).met


def grading_figures(policy: Policy, mode: str, cases: list[Case]) -> Figures:
    """Agreement with the oracle; an unreadable reply is wrong.

    `always_false` is the accuracy of saying "false" every time.
    """
    counts = VerdictCounts()
    for case, found in zip(cases, verdicts(policy, mode, cases), strict=True):
        counts.add(case.row.rubric, case.answer, found)
    figures = {
        "accuracy": counts.right / counts.total,
        "false_positive_rate": counts.false_positives / max(1, counts.not_met),
        "false_negative_rate": counts.false_negatives / max(1, counts.met),
        "unreadable": counts.unreadable / counts.total,
        "always_false": counts.not_met / counts.total,
    }
    return _rounded(figures) | {"verdicts": counts.total}


def world_cases(chosen: list[Row], seed: int) -> dict[str, list[Case]]:
    """Answers made up by the world.

    `ordinary` ones, and `hostile` ones (spliced, cut, repeated, contradictory).
    """
    rng = random.Random(seed)
    ordinary = []
    for row in chosen:
        answer = mediocre_answer(rng, pair_of(row))
        ordinary.append(Case(row, answer))
    hostile = []
    for row in chosen:
        answer = graded_answer(rng, pair_of(row))
        hostile.append(Case(row, answer))
    return {"ordinary": ordinary, "hostile": hostile}


def measure(policy: Policy, sample: int = 80, seed: int = 1234) -> dict[str, Figures]:
    """All figures, on `sample` held-out rows and as many training rows."""
    held_out = _sampled(rows(held_out=True), sample, seed)
    training = _sampled(rows(held_out=False), len(held_out), seed)
    figures = {}
    own: list[Case] = []  # the policy's answers to held-out patients
    for split, chosen in (("held_out", held_out), ("training", training)):
        for temperature in (1.0, 0.7):
            found, cases = answer_figures(policy, chosen, GROUP, temperature, seed)
            figures[f"answers {split} T={temperature}"] = found
            own = own or cases
    sources = {"own": _sampled(own, 2 * sample, seed)}
    sources |= world_cases(held_out, seed)
    for mode in ("explain", "direct"):
        for source, cases in sources.items():
            figures[f"grading {mode} {source}"] = grading_figures(policy, mode, cases)
    return figures


def _sampled(population: list, most: int, seed: int) -> list:
    count = min(most, len(population))
    return random.Random(seed).sample(population, count)


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
    if not (args.model / "config.json").is_file():
        hint = "make one with python -m rubric_rl.tiny.make_checkpoint"
        raise UserError(f"{args.model}: no checkpoint there; {hint}")
    model = AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float32, local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(args.model, local_files_only=True)
    figures = measure(Policy(model, tokenizer), args.sample, args.seed)
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
