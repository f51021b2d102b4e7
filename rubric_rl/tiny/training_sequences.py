"""Training sequences of the warm start: many branches behind one prefix that they share.

The grader reads an answer once and is then asked about it criterion by criterion. A sequence for
grading looks the same: the prefix, which is read once, and behind it branches that each hold one
criterion and the right verdict.

    prefix, branch 0                         branch 1                  branch 2
    <user> instructions, patient, answer  |  criterion 1 -> verdict 1 |  criterion 2 -> verdict 2

In a sequence for answering the prefix is only the opening of the user's turn, and every branch
holds another patient and an answer. All tokens stand in one row, but a branch sees only the prefix
and itself, as if the other branches were not there, and its positions continue from the prefix.
With a prefix of three tokens and branches of two (x: the query sees the key):

                       key   prefix   branch 1   branch 2
                             P P P    a a        b b         position
    query   prefix       P   x . .    . .        . .         0
                         P   x x .    . .        . .         1
                         P   x x x    . .        . .         2
            branch 1     a   x x x    x .        . .         3
                         a   x x x    x x        . .         4
            branch 2     b   x x x    . .        x .         3
                         b   x x x    . .        x x         4

So each branch, with the prefix before it, is token for token and position for position what the
served model will see, and the long prefix costs its computation once instead of once a criterion.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from rubric_rl.data.schema import Criterion
from rubric_rl.grading.prompt import grader_prompt
from rubric_rl.tiny.example_answers import graded_answer, mediocre_answer
from rubric_rl.tiny.example_replies import asked_statements, explanation
from rubric_rl.tiny.oracle import Statement, criteria, statements_of
from rubric_rl.tiny.world import PATIENTS, TRAINING_PAIRS, Pair, messages

USER_TURN = "<|im_start|>user\n"
ASSISTANT_TURN = "<|im_start|>assistant\n"
END_OF_TURN = "<|im_end|>"
EMPTY_THOUGHTS = "<think>\n\n</think>\n\n"
REPLY_OPENING = f"{END_OF_TURN}\n{ASSISTANT_TURN}{EMPTY_THOUGHTS}"

# Weight of a token in the loss. The verdict is one token of many; an answer's tokens are more
# still, and only mediocre answers are wanted.
READ_ONLY = 0.0
VERDICT_WEIGHT = 1.0
QUOTE_WEIGHT = 0.5
CLOSING_WEIGHT = 0.03
ANSWER_WEIGHT = 0.2
CAUSE_WEIGHT = 3 * ANSWER_WEIGHT  # the first sentence shows whether the patient was understood
THOUGHT_OPENING_WEIGHT = 0.01
HINT_WEIGHT = 0.06

CRITERION = "Criterion: ["  # how the last part of a grader prompt begins
OWN_ANSWERS = 0.35  # share of them among the graded answers, once there are any
THOUGHTS = 0.1  # share of answers that a thought precedes
MODES = ("explain", "direct")
MAX_CRITERIA = 40  # asked about one answer; fewer fit


Encode = Callable[[str], list[int]]
OwnAnswer = tuple[Pair, str]


class Hint(NamedTuple):
    """What the tokens between criterion and reply are taught instead of their successors.

    Nothing is ever read off there. But without it the one-token verdict stays at chance for a
    thousand steps.
    """

    verdict: int  # token that the last layer learns to predict, at each of them
    reason: int  # token that a middle layer learns to predict, at the first of them


class Piece(NamedTuple):
    """A part of a branch, whose tokens have the same weight in the loss."""

    text: str
    weight: float
    hint: Hint | None = None


@dataclass
class TrainingSequence:
    """One prefix and its branches; all lists have one entry per token."""

    tokens: list[int] = field(default_factory=list)
    # What the last layer learns to predict in the token's place: itself, or a hint's verdict.
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)  # of that prediction in the loss
    hints: list[int] = field(default_factory=list)  # for a middle layer; 0: it learns nothing there
    branches: list[int] = field(default_factory=list)  # number of its branch; 0: the prefix

    def append(self, tokens: list[int], branch: int, weight: float, hint: Hint | None) -> None:
        """Appends a piece's tokens; `hint` is what they are taught instead of themselves."""
        count = len(tokens)
        targets = tokens
        hints = [0] * count
        if hint is not None:
            targets = [hint.verdict] * count
            hints[0] = hint.reason
        self.tokens += tokens
        self.targets += targets
        self.weights += [weight] * count
        self.hints += hints
        self.branches += [branch] * count


def user_turn(content: str) -> str:
    """A user's turn and the opening of the assistant's.

    As the chat template writes them with thinking off.
    """
    return USER_TURN + content + REPLY_OPENING


def reply_pieces(mode: str, answer: str, statement: Statement) -> list[Piece]:
    """The right reply to the criterion that asks for `statement`, in the grading mode's format."""
    closing = Piece("}" + END_OF_TURN, CLOSING_WEIGHT)
    verdict = _verdict_piece(answer, statement)
    if mode == "direct":
        opening = Piece('{"criteria_met":', CLOSING_WEIGHT)
        return [opening, verdict, closing]
    reason = explanation(answer, statement)
    quote = json.dumps(reason, ensure_ascii=False)
    return [
        Piece('{"explanation":', CLOSING_WEIGHT),
        Piece(f" {quote},", QUOTE_WEIGHT),
        Piece(' "criteria_met":', CLOSING_WEIGHT),
        verdict,
        closing,
    ]


def _verdict_piece(answer: str, statement: Statement) -> Piece:
    if statement in statements_of(answer):
        return Piece(" true", VERDICT_WEIGHT)
    return Piece(" false", VERDICT_WEIGHT)


def _shared_part(prompt: str) -> str:
    """What the prompts for all criteria of an answer have in common."""
    start = prompt.rindex(CRITERION)
    return prompt[:start]


def _criterion_part(prompt: str) -> str:
    """What they have not in common."""
    start = prompt.rindex(CRITERION)
    return prompt[start:]


def _answer_block(shared: str) -> str:
    start = shared.rindex("<answer ")
    return shared[start:]


class SequenceWriter:
    """Writes sequences of about `length` tokens; every draw comes from `rng`, in a fixed order."""

    def __init__(self, encode: Encode, rng: Random, length: int = 640):
        self.encode = encode
        self.rng = rng
        self.length = length
        self.difficulty = 1.0  # of the graded answers
        self.own_answers: list[OwnAnswer] = []  # the policy's, once there are any

    def grading(self, full: bool) -> TrainingSequence:
        """An answer and as many criteria as fit.

        `full`: the prefix is the real grader prompt; else it lacks instructions and conversation.
        """
        mode = self.rng.choice(MODES)
        conversation, answer, asked = self.asked_answer()
        sequence = TrainingSequence()
        for number, statement in enumerate(asked, 1):
            criterion = self._criterion(statement)
            content = grader_prompt(mode, conversation, answer, [criterion])
            if number == 1:
                shared = _shared_part(content)
                if not full:
                    shared = _answer_block(shared)
                self._append_prefix(sequence, USER_TURN + shared)
            hint = self._hint(answer, statement)
            question = _criterion_part(content)
            branch = [
                Piece(question, READ_ONLY),
                Piece(REPLY_OPENING, HINT_WEIGHT, hint),
                *reply_pieces(mode, answer, statement),
            ]
            if not self._append_branch(sequence, number, branch):
                break
        return sequence

    def answering(self) -> TrainingSequence:
        """Patients and a mediocre answer to each; a few are preceded by a short thought.

        Every branch is another patient: many answers to a few patients taught nothing about
        patients.
        """
        sequence = TrainingSequence()
        self._append_prefix(sequence, USER_TURN)
        number = 1
        branch = self._patient_and_answer()
        while self._append_branch(sequence, number, branch):
            number += 1
            branch = self._patient_and_answer()
        return sequence

    def asked_answer(self) -> tuple[list[dict], str, list[Statement]]:
        """A patient's conversation, an answer, and what is asked about it."""
        pair, conversation, answer = self._answered_patient()
        return conversation, answer, asked_statements(self.rng, pair, answer, MAX_CRITERIA)

    def patient(self) -> tuple[Pair, list[dict]]:
        """A pair of the training ones and a patient's conversation."""
        pair = self.rng.choice(TRAINING_PAIRS)
        return pair, self._conversation(pair)

    def _conversation(self, pair: Pair) -> list[dict]:
        count = len(PATIENTS)
        patient = self.rng.randrange(count)
        return messages(pair, patient)

    def _answered_patient(self) -> tuple[Pair, list[dict], str]:
        """A pair, a patient's conversation, and an answer: made up, or one of the policy's own."""
        pair, conversation = self.patient()
        answer = graded_answer(self.rng, pair, self.difficulty)
        own = self.own_answers
        if own and self.rng.random() < OWN_ANSWERS:
            pair, answer = self.rng.choice(own)
            conversation = self._conversation(pair)
        return pair, conversation, answer

    def _criterion(self, statement: Statement) -> Criterion:
        rng = self.rng
        size = rng.randint(1, 10)
        sign = rng.choice((1, 1, -1))
        wordings = criteria(statement)
        text = rng.choice(wordings)
        return Criterion(text, points=sign * size)

    def _hint(self, answer: str, statement: Statement) -> Hint:
        verdict = _verdict_piece(answer, statement)
        reason = explanation(answer, statement)
        verdict_token, *_ = self.encode(verdict.text)  # the only one
        first_of_reason, *_ = self.encode(reason)
        return Hint(verdict_token, first_of_reason)

    def _patient_and_answer(self) -> list[Piece]:
        pair, conversation = self.patient()
        prompt = ""
        for message in conversation:
            role = message["role"]
            content = message["content"]
            prompt += f"<|im_start|>{role}\n{content}{END_OF_TURN}\n"
        prompt += ASSISTANT_TURN
        prompt = prompt.removeprefix(USER_TURN)  # it is the sequence's prefix
        thoughts = [Piece(EMPTY_THOUGHTS, READ_ONLY)]
        if self.rng.random() < THOUGHTS:
            thought = f"It may be {pair.condition}.\n</think>\n\n"
            thoughts = [
                Piece("<think>\n", THOUGHT_OPENING_WEIGHT),
                Piece(thought, ANSWER_WEIGHT),
            ]
        answer = mediocre_answer(self.rng, pair)
        cause, full_stop, advice = answer.partition(".")
        return [
            Piece(prompt, READ_ONLY),
            *thoughts,
            Piece(cause, CAUSE_WEIGHT),
            Piece(full_stop + advice + END_OF_TURN, ANSWER_WEIGHT),
        ]

    def _append_prefix(self, sequence: TrainingSequence, text: str) -> None:
        tokens = self.encode(text)
        sequence.append(tokens, branch=0, weight=READ_ONLY, hint=None)

    def _append_branch(self, sequence: TrainingSequence, number: int, pieces: list[Piece]) -> bool:
        """Appends a branch if it fits (the first one always does); says whether it did."""
        # Piece by piece: the verdict must be a token of its own, as the served model decodes it.
        encoded = []
        length = len(sequence.tokens)
        for piece in pieces:
            tokens = self.encode(piece.text)
            encoded.append(tokens)
            length += len(tokens)
        if number > 1 and length > self.length:
            return False
        for piece, tokens in zip(pieces, encoded, strict=True):
            sequence.append(tokens, number, piece.weight, piece.hint)
        return True


def collate(sequences: list[TrainingSequence]) -> dict[str, Tensor]:
    """A batch, padded to its longest sequence.

    input_ids, targets, hints, position_ids (int64) and weights (float32) are [batch, length];
    attention_mask (bool) is [batch, 1, query, key].
    """
    lengths = [len(sequence.tokens) for sequence in sequences]
    longest = max(lengths)

    def padded(name: str, fill: float) -> Tensor:
        lines = []
        for sequence in sequences:
            values = getattr(sequence, name)
            padding = [fill] * (longest - len(values))
            lines.append(values + padding)
        return torch.tensor(lines)

    branches = padded("branches", fill=-1)  # padding is a branch of its own: no token sees it
    query_branch = branches[:, :, None]
    key_branch = branches[:, None, :]
    square = torch.ones(longest, longest, dtype=torch.bool)
    is_not_later = square.tril()
    is_of_same_branch = key_branch == query_branch
    is_of_prefix = key_branch == 0
    is_visible = is_not_later & (is_of_same_branch | is_of_prefix)
    seen = is_visible.sum(-1)  # tokens
    return {
        "input_ids": padded("tokens", fill=0),
        "targets": padded("targets", fill=0),
        "hints": padded("hints", fill=0),
        "weights": padded("weights", fill=0.0),
        # A token's position is the number of other tokens that it sees: all of them are earlier.
        "position_ids": seen - 1,
        "attention_mask": is_visible[:, None],
    }
