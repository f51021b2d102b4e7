"""Practice in grading, beyond the warm start."""

import random
import shutil
from copy import deepcopy

import pytest
import torch

from rubric_rl.tiny import practice
from rubric_rl.tiny.measure_checkpoint import Policy
from rubric_rl.tiny.oracle import Statement, statements_of
from rubric_rl.tiny.world import good_statements

ANSWER = "This sounds like flu. Please get rest. It helps to drink fluids."


def test_damage_takes_statements_away_but_not_all_of_them():
    rng = random.Random(0)
    said = [len(statements_of(practice.damaged_answer(ANSWER, rng))) for _ in range(200)]
    assert 1.5 < sum(said) / len(said) < 2.8  # of three
    assert 3 in said


def test_a_crossed_sentence_begins_as_another_does_and_states_nothing(monkeypatch):
    monkeypatch.setattr(practice, "DAMAGED", 1.0)
    monkeypatch.setattr(practice, "CROSSED", 1.0)
    damaged = [practice.damaged_answer(ANSWER, random.Random(seed)) for seed in range(20)]
    assert any("Please helps to drink fluids." in answer for answer in damaged)
    assert all("drink fluids." in answer for answer in damaged)


def test_a_better_answer_says_much_of_what_is_good():
    rng = random.Random(0)
    shares = []
    for pair in practice.TRAINING_PAIRS:
        good = set(good_statements(pair))
        said = set(statements_of(practice.better_answer(pair, rng)))
        shares.append(len(good & said) / len(good))
    assert sum(shares) / len(shares) > 0.4


def test_some_of_its_advice_is_turned_round(monkeypatch):
    monkeypatch.setattr(practice, "TURNED", 1.0)
    monkeypatch.setattr(practice, "DAMAGED", 0.0)
    monkeypatch.setattr(practice, "STATEMENTS", practice.STATEMENTS[:1])
    for pair in practice.TRAINING_PAIRS:
        cause, *advice = good_statements(pair)
        said = statements_of(practice.better_answer(pair, random.Random(0)))
        assert cause in said
        turned = {Statement("not" if kind == "do" else "do", key) for kind, key in advice}
        assert set(said) & turned
        assert not set(said) & set(advice) - {practice.opposite(practice.STATEMENTS[0])}


@pytest.mark.parametrize("answer", ["", "...", "no full stop", "Rest. Rest."])
def test_any_answer_can_be_damaged(answer):
    for seed in range(50):
        assert bool(practice.damaged_answer(answer, random.Random(seed))) is bool(answer)


def test_the_same_seed_gives_the_same_weights(model, tokenizer, monkeypatch):
    monkeypatch.setattr(practice, "TRAINING_PAIRS", practice.TRAINING_PAIRS[:1])
    monkeypatch.setattr(practice, "PER_PAIR", 1)
    monkeypatch.setattr(practice, "TEMPERATURES", (1.0,))

    def practised(seed: int) -> torch.Tensor:
        policy = Policy(deepcopy(model), tokenizer)
        practice.practise(policy, steps=1, seed=seed)
        return policy.model.model.embed_tokens.weight.detach()

    first = practised(0)
    assert torch.equal(first, practised(0))
    assert not torch.equal(first, practised(1))
    assert not torch.equal(first, model.model.embed_tokens.weight)


def test_only_the_weights_and_what_is_said_of_them_change(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(practice, "practise", lambda policy, steps, seed: 1.0)
    monkeypatch.setattr(practice, "measure", lambda policy, sample: {})
    out = tmp_path / "out"
    assert practice.main(["--model", str(model_folder), "--out", str(out)]) == 0
    assert {file.name for file in out.iterdir()} == {file.name for file in model_folder.iterdir()}
    for file in out.iterdir():
        if file.name != "making.json":
            assert file.read_bytes() == (model_folder / file.name).read_bytes(), file.name


def test_the_command_writes_into_a_new_folder_alone(model_folder, tmp_path, capsys):
    words = ["--model", str(model_folder), "--out", str(tmp_path)]
    assert practice.main(words) == 2
    assert "give a new directory" in capsys.readouterr().err


def test_the_command_needs_what_make_checkpoint_made(model_folder, tmp_path, capsys):
    model = shutil.copytree(model_folder, tmp_path / "model")
    (model / "making.json").unlink()
    assert practice.main(["--model", str(model), "--out", str(tmp_path / "out")]) == 2
    assert "--model is what make_checkpoint made" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
