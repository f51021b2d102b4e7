"""The making of a tiny checkpoint."""

import json
import subprocess
import sys
from copy import deepcopy

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

from rubric_rl.tiny import make_checkpoint
from rubric_rl.tiny.make_tokenizer import corpus, train_tokenizer


def test_the_tokenizer_is_made_again_as_shipped(model_folder):
    shipped = json.loads((model_folder / "tokenizer.json").read_text())
    tokenizer = train_tokenizer(corpus(seed=0))
    made = json.loads(tokenizer.backend_tokenizer.to_str())
    del shipped["padding"]  # what the last call before the saving left behind
    del made["padding"]
    assert made == shipped


@pytest.mark.slow
def test_the_command_makes_a_smaller_checkpoint(tmp_path):
    out = tmp_path / "model"
    options = ["--out", str(out), "--seed", "1", "--scale", "small"]
    command = [sys.executable, "-m", "rubric_rl.tiny.make_checkpoint", *options]
    subprocess.run(command, check=True, capture_output=True)
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert isinstance(model, Qwen3ForCausalLM)
    assert len(tokenizer) == model.config.vocab_size
    making = json.loads((out / "making.json").read_text())
    assert making["parameters"] == model.num_parameters()
    losses = list(making["loss"].values())
    assert losses[-1] < losses[0] - 2
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_command_refuses_to_replace_what_is_no_checkpoint(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert make_checkpoint.main(["--out", str(tmp_path), "--scale", "small"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert (tmp_path / "notes.txt").exists()


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, model, tokenizer):
    out = tmp_path / "model"
    out.mkdir()
    (out / "making.json").write_text("old")
    no_json = {"figures": object()}
    with pytest.raises(TypeError):
        make_checkpoint.save(out, deepcopy(model), tokenizer, no_json)
    assert (out / "making.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
