"""Training sequences of the warm start: branches are what the served model will see."""

import hashlib
import json
from dataclasses import asdict
from random import Random

import pytest
import torch

from rubric_rl.tiny.training_sequences import SequenceWriter, TrainingSequence, collate
from rubric_rl.tiny.warm_start import SCALES, new_model
from rubric_rl.tiny.world import HELD_OUT_PAIRS, PATIENTS, TRAINING_PAIRS, messages


def places_of(sequence: TrainingSequence, branch: int) -> list[int]:
    """Where the tokens of the prefix and of one branch stand."""
    places = []
    for place, number in enumerate(sequence.branches):
        if number in (0, branch):
            places.append(place)
    return places


def tokens_of(sequence: TrainingSequence, branch: int) -> list[int]:
    """The prefix and one branch."""
    places = places_of(sequence, branch)
    return [sequence.tokens[place] for place in places]


class TestBranches:
    @pytest.mark.parametrize("mode", ["explain", "direct"])
    def test_are_the_served_prompts_token_for_token(self, tokenizer, encode, mode):
        sequence = self.graded_in(mode, SequenceWriter(encode, Random(3), 900), tokenizer)
        for number in range(1, max(sequence.branches) + 1):
            tokens = tokens_of(sequence, number)
            text = tokenizer.decode(tokens)
            assert encode(text) == tokens
            content = text.removeprefix("<|im_start|>user\n").partition("<|im_end|>")[0]
            served = tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
            assert text.startswith(served)
            reply = text.removeprefix(served)
            assert reply.endswith("}<|im_end|>")
            verdict = json.loads(reply.removesuffix("<|im_end|>"))
            assert isinstance(verdict["criteria_met"], bool)
            assert ("explanation" in verdict) == (mode == "explain")

    @staticmethod
    def graded_in(mode: str, writer: SequenceWriter, tokenizer) -> TrainingSequence:
        """The writer's next sequence that is graded in this mode."""
        while True:
            sequence = writer.grading(full=True)
            explains = "<one short sentence>" in tokenizer.decode(sequence.tokens)
            if explains == (mode == "explain"):
                return sequence

    def test_behind_one_prefix_equal_separate_sequences(self, tokenizer, encode):
        torch.manual_seed(0)
        model = new_model(len(tokenizer), SCALES["small"], eos=1, pad=0).eval()
        writer = SequenceWriter(encode, Random(5), 400)
        sequence = writer.grading(full=False)
        batch = collate([sequence, writer.answering()])
        with torch.no_grad():
            together = model(
                input_ids=batch["input_ids"],
                position_ids=batch["position_ids"],
                attention_mask=batch["attention_mask"],
            ).logits[0]
            for branch in (1, max(sequence.branches)):
                places = places_of(sequence, branch)
                alone = model(input_ids=batch["input_ids"][:1, places]).logits[0]
                torch.testing.assert_close(together[places], alone, atol=1e-4, rtol=1e-4)


class TestCollate:
    """The drawing in the module's docstring: a prefix of three tokens, branches of two."""

    @pytest.fixture
    def batch(self):
        drawn = TrainingSequence()
        drawn.append([11, 12, 13], branch=0, weight=0.0, hint=None)
        drawn.append([21, 22], branch=1, weight=1.0, hint=None)
        drawn.append([31, 32], branch=2, weight=1.0, hint=None)
        longer = TrainingSequence()
        longer.append(list(range(9)), branch=0, weight=1.0, hint=None)
        return collate([drawn, longer])

    def test_a_branch_sees_the_prefix_and_itself(self, batch):
        visible = batch["attention_mask"][0, 0, :7, :7].int().tolist()
        assert visible == [
            [1, 0, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0, 0],
            [1, 1, 1, 1, 0, 0, 0],
            [1, 1, 1, 1, 1, 0, 0],
            [1, 1, 1, 0, 0, 1, 0],
            [1, 1, 1, 0, 0, 1, 1],
        ]

    def test_its_positions_continue_from_the_prefix(self, batch):
        positions = batch["position_ids"][0, :7]
        assert positions.tolist() == [0, 1, 2, 3, 4, 3, 4]

    def test_padding_has_no_weight_and_nobody_sees_it(self, batch):
        weights = batch["weights"]
        assert weights.shape == (2, 9)
        assert weights[0, 7:].tolist() == [0, 0]
        seen = batch["attention_mask"][0, 0, :7, 7:]
        assert not seen.any()


class TestDraws:
    def test_are_of_training_pairs_only(self):
        written = []

        def encode(text: str) -> list[int]:
            written.append(text)
            return [0] * len(text)

        writer = SequenceWriter(encode, Random(0), length=4000)
        for _ in range(150):
            writer.grading(full=True)
            writer.answering()
        text = "\n".join(written)
        for question in self.questions(HELD_OUT_PAIRS):
            assert question not in text
        shown = [question in text for question in self.questions(TRAINING_PAIRS)]
        assert shown.count(True) > 100

    @staticmethod
    def questions(pairs) -> list[str]:
        """The last turn of every patient of these pairs."""
        found = []
        for pair in pairs:
            for patient in range(len(PATIENTS)):
                last_turn = messages(pair, patient)[-1]
                found.append(last_turn["content"])
        return found

    def test_are_those_that_the_shipped_checkpoint_was_made_with(self, encode):
        """Otherwise its command does not make it again: `make_checkpoint --seed 0`."""
        writer = SequenceWriter(encode, Random(0))
        sequences = []
        for _ in range(10):
            sequences.append(writer.answering())
            sequences.append(writer.grading(full=False))
            sequences.append(writer.grading(full=True))
        text = json.dumps([asdict(sequence) for sequence in sequences])
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert digest.startswith("6ef72dcc9b95b2c2")
