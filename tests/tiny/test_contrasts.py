"""The practice in what is said of which word."""

import json
import random
from dataclasses import replace

import pytest
import torch

from rubric_rl.tiny import contrasts, practice
from rubric_rl.tiny.example_answers import opposite
from rubric_rl.tiny.measure_checkpoint import load_policy
from rubric_rl.tiny.oracle import ADVICE, statements_of
from rubric_rl.tiny.training_sequences import SequenceWriter, collate
from rubric_rl.tiny.warm_start import LOW, weighted_loss
from rubric_rl.tiny.world import TRAINING_PAIRS


@pytest.fixture
def whole(monkeypatch):
    monkeypatch.setattr(contrasts, "DAMAGED", 0.0)


@pytest.fixture
def writer(model_folder):
    encode = load_policy(model_folder).tokenizer.encode
    return contrasts.ContrastWriter(
        lambda text: encode(text, add_special_tokens=False), random.Random(0)
    )


def verb(statement):
    return ADVICE[statement.key].split()[0]


def test_an_answer_takes_or_avoids_two_things_of_one_verb(whole):
    rng = random.Random(0)
    found = set()
    for pair in TRAINING_PAIRS:
        said = [
            one
            for one in statements_of(contrasts.contrasting_answer(rng, pair))
            if one.kind != "is"
        ]
        verbs = [verb(one) for one in said]
        assert len(set(verbs)) < len(verbs)
        for one in said:
            others = [other for other in said if verb(other) == verb(one) and other != one]
            found |= {(one.kind, other.kind) for other in others}
    assert found == {(one, other) for one in ("do", "not") for other in ("do", "not")}


def test_what_an_answer_says_is_asked_and_its_opposite_too(whole, writer):
    writer.share = 1.0
    for _ in range(20):
        _, answer, asked = writer.asked_answer()
        said = [one for one in statements_of(answer) if one.kind != "is"]
        assert set(asked) <= {*said, *map(opposite, said)}
        assert set(asked) & set(said)
        assert set(asked) - set(said)


def test_without_contrasts_it_asks_as_the_first_practice_does(writer):
    writer.share = 0.0
    plain = SequenceWriter(writer.encode, random.Random(0))
    writer.rng.random()  # whether it holds contrasts
    plain.rng.random()
    assert writer.asked_answer()[1:] == plain.asked_answer()[1:]


@torch.inference_mode()
def test_looking_back_is_to_tell_the_token_before_each_of_the_prefix(model_folder, writer):
    model = load_policy(model_folder).model
    sequences = [writer.grading(full=False) for _ in range(2)]
    batch = collate(sequences)
    inputs = {name: batch[name] for name in ("input_ids", "position_ids", "attention_mask")}
    states = model.model(**inputs, output_hidden_states=True).hidden_states[LOW]
    losses = []
    for row, sequence in enumerate(sequences):
        read = sequence.branches.index(2)  # the prefix and its first branch stand in a row
        for place in range(1, read):
            logits = model.lm_head(model.model.norm(states[row, place]))
            losses.append(-logits.log_softmax(0)[sequence.tokens[place - 1]])
    more = weighted_loss(model, batch, looking_back=0.5) - weighted_loss(model, batch)
    assert more.item() == pytest.approx(0.5 * torch.stack(losses).mean().item(), rel=1e-4)


def test_the_same_seed_gives_the_same_weights(model_folder, monkeypatch):
    monkeypatch.setattr(practice, "TRAINING_PAIRS", practice.TRAINING_PAIRS[:1])
    monkeypatch.setattr(practice, "PER_PAIR", 1)
    monkeypatch.setattr(practice, "TEMPERATURES", (1.0,))
    alone = replace(contrasts.ALONE, short_steps=1, batch=1)
    among_others = replace(contrasts.AMONG_OTHERS, full_steps=1, batch=1)

    def practised(seed: int) -> torch.Tensor:
        policy = load_policy(model_folder)
        contrasts.practise_contrasts(policy, seed, alone, among_others)
        return torch.cat([parameter.flatten() for parameter in policy.model.parameters()])

    first = practised(0)
    assert torch.equal(first, practised(0))
    assert not torch.equal(first, practised(1))


def test_the_command_says_what_it_did_beside_what_was_done_before(
    model_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(contrasts, "practise_contrasts", lambda policy, seed: 2.0)
    monkeypatch.setattr(practice, "measure", lambda policy, sample: {})
    out = tmp_path / "out"
    assert contrasts.main(["--model", str(model_folder), "--out", str(out), "--seed", "7"]) == 0
    before, after = (json.loads((path / "making.json").read_text()) for path in (model_folder, out))
    command = "python -m rubric_rl.tiny.contrasts --model DIR --out OUT --seed 7"
    assert after["contrasts"] == {"command": command, "seconds": 2}
    assert {*after} == {*before, "contrasts", "measured"}
