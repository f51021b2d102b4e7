"""Training sequences of the warm start: many branches behind one shared prefix, which is read once (stages 2-3).

An answer's criteria are branches, and so are patients: each sees the prefix and itself, and its positions continue from
the prefix. Token for token and position for position this is what the served model sees.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch

from rubric_rl.data.schema import Criterion
from rubric_rl.grading.prompt import grader_prompt
from rubric_rl.tiny.example_answers import (
    asked_statements,
    explanation,
    graded_answer,
    mediocre_answer,
)
from rubric_rl.tiny.knowledge import Statement, criteria
from rubric_rl.tiny.oracle import statements
from rubric_rl.tiny.world import HELD_OUT, PAIRS, PATIENTS, Pair, messages

TRAINING_PAIRS = tuple(pair for pair in PAIRS if pair not in HELD_OUT)
EMPTY_THOUGHTS = "<think>\n\n</think>\n\n"
# The verdict is one token of many; an answer's tokens are more still, and only mediocre answers are wanted.
VERDICT_WEIGHT, QUOTE_WEIGHT, CLOSING_WEIGHT, ANSWER_WEIGHT = 1.0, 0.5, 0.03, 0.2
# Every token between criterion and reply is taught the verdict, and at a middle layer the first word of the reason (the
# hint). Nothing is ever read off there, but without it the one-token verdict stays at chance for a thousand steps.
HINT_WEIGHT = 0.06
CAUSE_FACTOR = 3  # an answer's first sentence shows whether the patient was understood


@dataclass
class Sequence:
    """One prefix and its branches; all lists have one entry per token."""

    tokens: list[int]
    targets: list[int]  # what the last layer learns to predict in the token's place
    weights: list[float]  # its weight in the loss
    hints: list[int]  # what a middle layer learns to predict there; 0: nothing
    branches: list[int]  # the token's branch; 0: the prefix


def user_turn(content: str) -> str:
    """A user's turn and the opening of the assistant's, as the chat template writes them with thinking off."""
    return f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n{EMPTY_THOUGHTS}"


def verdict_text(mode: str, answer: str, statement: Statement) -> list[tuple[str, float]]:
    """The correct reply in pieces, each with its loss weight."""
    verdict = (" true" if statement in statements(answer) else " false", VERDICT_WEIGHT)
    closing = ("}<|im_end|>", CLOSING_WEIGHT)
    if mode == "direct":
        return [('{"criteria_met":', CLOSING_WEIGHT), verdict, closing]
    quote = json.dumps(explanation(answer, statement), ensure_ascii=False)
    return [
        ('{"explanation":', CLOSING_WEIGHT),
        (f" {quote},", QUOTE_WEIGHT),
        (' "criteria_met":', CLOSING_WEIGHT),
        verdict,
        closing,
    ]


class Writer:
    """Writes training sequences of about `length` tokens; every draw comes from `rng`."""

    def __init__(self, encode: Callable[[str], list[int]], rng: random.Random, length: int = 640):
        self.encode, self.rng, self.length = encode, rng, length
        self.difficulty = 1.0
        self.own_answers: list[
            tuple[Pair, str]
        ] = []  # the policy's own samples, once there are any

    def _patient(self) -> tuple[Pair, list[dict]]:
        pair = self.rng.choice(TRAINING_PAIRS)
        return pair, messages(pair, self.rng.randrange(len(PATIENTS)))

    def grading(self, full: bool) -> Sequence:
        """An answer and many criteria. `full`: the real grader prompt; else without instructions and conversation."""
        mode = self.rng.choice(("explain", "direct"))
        pair, conversation = self._patient()
        answer = graded_answer(self.rng, pair, self.difficulty)
        if self.own_answers and self.rng.random() < 0.35:
            pair, answer = self.rng.choice(self.own_answers)
            conversation = messages(pair, self.rng.randrange(len(PATIENTS)))
        sequence, number = None, 0
        for statement in asked_statements(self.rng, pair, answer, 40):
            points = self.rng.randint(1, 10) * self.rng.choice((1, 1, -1))
            criterion = Criterion(self.rng.choice(criteria(statement)), points)
            prompt = user_turn(grader_prompt(mode, conversation, answer, [criterion]))
            cut = prompt.rindex("Criterion: [")
            if sequence is None:
                head = (
                    prompt[:cut]
                    if full
                    else "<|im_start|>user\n" + prompt[prompt.rindex("<answer ") : cut]
                )
                sequence = self._sequence(head)
            number += 1
            question, turn, rest = prompt[cut:].partition("<|im_end|>")
            pieces = [
                (question, 0.0),
                (turn + rest, HINT_WEIGHT),
                *verdict_text(mode, answer, statement),
            ]
            reason, verdict = (
                self.encode(explanation(answer, statement))[0],
                self.encode(pieces[-2][0])[0],
            )
            if not self._branch(sequence, number, pieces, reason, verdict):
                break
        return sequence

    def answering(self) -> Sequence:
        """Patients and a mediocre answer to each; a few are preceded by a short thought."""
        opening = "<|im_start|>user\n"
        sequence, number, fits = self._sequence(opening), 0, True
        while fits:  # every branch is another patient: many answers to a few patients taught nothing about patients
            number += 1
            pair, conversation = self._patient()
            turns = "".join(
                f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in conversation
            )
            thoughts = [(EMPTY_THOUGHTS, 0.0)]
            if self.rng.random() < 0.1:
                thoughts = [
                    ("<think>\n", 0.01),
                    (f"It may be {pair[0]}.\n</think>\n\n", ANSWER_WEIGHT),
                ]
            cause, _, advice = mediocre_answer(self.rng, pair).partition(".")
            answer = [
                (cause, CAUSE_FACTOR * ANSWER_WEIGHT),
                (f".{advice}<|im_end|>", ANSWER_WEIGHT),
            ]
            prompt = (turns.removeprefix(opening) + "<|im_start|>assistant\n", 0.0)
            fits = self._branch(sequence, number, [prompt, *thoughts, *answer])
        return sequence

    def _sequence(self, head: str) -> Sequence:
        tokens = self.encode(head)
        return Sequence(
            list(tokens), list(tokens), [0.0] * len(tokens), [0] * len(tokens), [0] * len(tokens)
        )

    def _branch(
        self,
        sequence: Sequence,
        number: int,
        pieces: list[tuple[str, float]],
        hint: int = 0,
        verdict: int = 0,
    ) -> bool:
        """Appends a branch if it fits (the first one always does); says whether it did.

        `hint` and `verdict` are what a middle layer and the last one are taught in hint pieces.
        """
        encoded = [(self.encode(text), weight) for text, weight in pieces]
        size = sum(len(tokens) for tokens, _ in encoded)
        if number > 1 and len(sequence.tokens) + size > self.length:
            return False
        for tokens, weight in encoded:
            sequence.tokens += tokens
            hinted = weight == HINT_WEIGHT
            sequence.targets += [verdict] * len(tokens) if hinted else tokens
            sequence.hints += [hint if hinted else 0] + [0] * (len(tokens) - 1)
            sequence.weights += [weight] * len(tokens)
        sequence.branches += [number] * size
        return True


def collate(sequences: list[Sequence]) -> dict[str, torch.Tensor]:
    """Pads to the longest: input_ids, targets, hints, position_ids, weights [batch, length]; attention_mask
    [batch, 1, length, length], bool.
    """
    longest = max(len(s.tokens) for s in sequences)

    def padded(values: list, fill) -> list:
        return values + [fill] * (longest - len(values))

    branches = torch.tensor([padded(s.branches, -1) for s in sequences])
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    query, key = branches[:, :, None], branches[:, None, :]
    mask = causal & ((key == query) | (key == 0))
    # A branch's positions continue from the prefix: a token's position is the number of earlier tokens that it sees.
    return {
        "input_ids": torch.tensor([padded(s.tokens, 0) for s in sequences]),
        "targets": torch.tensor([padded(s.targets, 0) for s in sequences]),
        "hints": torch.tensor([padded(s.hints, 0) for s in sequences]),
        "weights": torch.tensor([padded(s.weights, 0.0) for s in sequences]),
        "position_ids": mask.sum(-1) - 1,
        "attention_mask": mask[:, None],
    }
