"""The tiny checkpoint: the shipped one keeps its promises, and its command makes one."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

from rubric_rl.data.schema import Criterion
from rubric_rl.grading.prompt import grader_prompt, verdict_opening
from rubric_rl.tiny import make_checkpoint, measure_checkpoint, training_sequences, world
from rubric_rl.tiny.oracle import ADVICE, CONDITIONS
from rubric_rl.tokenizer import ChatTemplate

MODEL = Path(make_checkpoint.__file__).parent / "model"
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL, local_files_only=True)


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, local_files_only=True)


def _ids(tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def test_shipped_files_are_a_small_real_qwen3(model):
    assert isinstance(model, Qwen3ForCausalLM)
    assert 0.5e6 < model.num_parameters() < 2e6
    assert sum(file.stat().st_size for file in MODEL.iterdir()) <= 8 * MEGABYTE
    assert model.config.tie_word_embeddings and model.config.max_position_embeddings >= 2048
    making = json.loads((MODEL / "making.json").read_text())
    assert (
        making["command"].startswith("python -m rubric_rl.tiny.") and making["measured"]["command"]
    )


def test_tokenizer_has_qwens_special_tokens_and_one_token_verdicts(tokenizer, model):
    for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"):
        assert len(_ids(tokenizer, token)) == 1
    assert (
        tokenizer.eos_token == "<|im_end|>" and model.config.eos_token_id == tokenizer.eos_token_id
    )
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert len(tokenizer) <= model.config.vocab_size
    opening = _ids(tokenizer, verdict_opening())
    for verdict in (" true", " false"):
        assert _ids(tokenizer, verdict_opening() + verdict + "}")[
            : len(opening) + 1
        ] == opening + _ids(tokenizer, verdict)
        assert len(_ids(tokenizer, verdict)) == 1
    for word in [*ADVICE, *CONDITIONS]:
        assert len(_ids(tokenizer, f" {word}")) == 1
    text = "Größe 漢字 🙂\n\t{}<think>\nx\n</think>\n"
    assert tokenizer.decode(_ids(tokenizer, text)) == text
    assert Tokenizer.from_file(str(MODEL / "tokenizer.json")).encode(
        text, add_special_tokens=False
    ).ids == _ids(tokenizer, text)


def test_chat_template_has_qwen3s_thinking_switch(tokenizer):
    def rendered(messages, **options):
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)

    user = [{"role": "user", "content": "Hi"}]
    turn = "<|im_start|>user\nHi<|im_end|>\n"
    opened = turn + "<|im_start|>assistant\n"
    assert rendered(user, add_generation_prompt=True) == opened
    assert rendered(user, add_generation_prompt=True, enable_thinking=True) == opened
    assert (
        rendered(user, add_generation_prompt=True, enable_thinking=False)
        == opened + "<think>\n\n</think>\n\n"
    )
    assert rendered(user, add_generation_prompt=True, enable_thinking=False) == ChatTemplate(
        MODEL
    ).render(user, thinking=False)
    reply = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."}
    assert rendered([*user, reply]) == opened + "<think>\nhm\n</think>\n\nYes.<|im_end|>\n"
    assert (
        rendered([*user, reply, *user]) == opened + "Yes.<|im_end|>\n" + turn
    )  # thoughts of earlier turns are dropped
    prefilled = [*user, {"role": "assistant", "content": verdict_opening()}]
    assert (
        rendered(prefilled, continue_final_message=True)
        == opened + "<think>\n\n</think>\n\n" + verdict_opening()
    )


@pytest.mark.parametrize("mode", ["explain", "direct"])
def test_training_sequences_are_the_products_prompts_token_for_token(tokenizer, mode):
    writer = training_sequences.SequenceWriter(
        lambda text: _ids(tokenizer, text), random.Random(3), 900
    )
    sequence = next(
        s
        for s in iter(lambda: writer.grading(full=True), None)
        if ("<one short sentence>" in tokenizer.decode(s.tokens)) == (mode == "explain")
    )
    prefix = [t for t, b in zip(sequence.tokens, sequence.branches, strict=True) if b == 0]
    for number in range(1, max(sequence.branches) + 1):
        tokens = prefix + [
            t for t, b in zip(sequence.tokens, sequence.branches, strict=True) if b == number
        ]
        text = tokenizer.decode(tokens)
        assert _ids(tokenizer, text) == tokens
        content = text.removeprefix("<|im_start|>user\n").partition("<|im_end|>")[0]
        served = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        assert text.startswith(served) and text.endswith("}<|im_end|>")
        assert isinstance(
            json.loads(text[len(served) :].removesuffix("<|im_end|>"))["criteria_met"], bool
        )


def test_branches_behind_one_prefix_equal_separate_sequences(tokenizer):
    torch.manual_seed(0)
    model = make_checkpoint.new_model(len(tokenizer), make_checkpoint.SCALES["small"], 1, 0).eval()
    writer = training_sequences.SequenceWriter(
        lambda text: _ids(tokenizer, text), random.Random(5), 400
    )
    sequence = writer.grading(full=False)
    batch = training_sequences.collate([sequence, writer.answering()])
    with torch.no_grad():
        packed = model(
            **{k: batch[k] for k in ("input_ids", "position_ids", "attention_mask")}
        ).logits[0]
        for number in (1, max(sequence.branches)):
            keep = [i for i, b in enumerate(sequence.branches) if b in (0, number)]
            alone = model(input_ids=batch["input_ids"][:1, keep]).logits[0]
            torch.testing.assert_close(packed[keep], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["explain", "direct"])
def test_shipped_checkpoint_grades_held_out_answers(model, tokenizer, mode):
    rows = random.Random(7).sample(world.rows(held_out=True), 30)
    _, own = measure_checkpoint.answer_figures(
        measure_checkpoint.Policy(model, tokenizer), rows, 1, 1.0, seed=7
    )
    cases = own + measure_checkpoint.world_cases(rows, 7)["ordinary"]
    figures = measure_checkpoint.grading_figures(
        measure_checkpoint.Policy(model, tokenizer), mode, cases
    )
    assert figures["verdicts"] > 200 and figures["accuracy"] >= 0.95, figures


@pytest.mark.slow
def test_shipped_checkpoint_answers_held_out_patients_mediocrely(model, tokenizer):
    figures, _ = measure_checkpoint.answer_figures(
        measure_checkpoint.Policy(model, tokenizer),
        random.Random(7).sample(world.rows(held_out=True), 40),
        8,
        1.0,
        seed=7,
    )
    assert 0.15 <= figures["true_score"] <= 0.45, figures
    assert figures["groups_with_variance"] >= 0.9 and figures["truncated"] <= 0.1, figures


def test_a_wrong_answer_of_the_grader_is_counted(model, tokenizer, monkeypatch):
    cases = measure_checkpoint.world_cases(world.rows(held_out=True)[:5], 0)["ordinary"]
    given = [[True, None][: len(row.rubric)] + [False] * (len(row.rubric) - 2) for row, _ in cases]
    monkeypatch.setattr(measure_checkpoint, "verdicts", lambda *arguments: given)
    figures = measure_checkpoint.grading_figures(
        measure_checkpoint.Policy(model, tokenizer), "explain", cases
    )
    total = sum(len(row.rubric) for row, _ in cases)
    assert figures["verdicts"] == total and figures["unreadable"] == round(5 / total, 4)
    assert figures["accuracy"] <= 1 - 5 / total


def test_an_unreadable_verdict_on_a_met_criterion_is_a_false_negative(
    model, tokenizer, monkeypatch
):
    cases = measure_checkpoint.world_cases(world.rows(held_out=True)[:5], 0)["ordinary"]
    monkeypatch.setattr(
        measure_checkpoint,
        "verdicts",
        lambda *arguments: [[None] * len(row.rubric) for row, _ in cases],
    )
    figures = measure_checkpoint.grading_figures(
        measure_checkpoint.Policy(model, tokenizer), "explain", cases
    )
    assert (
        figures["accuracy"],
        figures["false_positive_rate"],
        figures["false_negative_rate"],
    ) == (0, 0, 1)


@pytest.mark.slow
def test_command_makes_a_smaller_checkpoint(tmp_path):
    out = tmp_path / "model"
    command = [
        sys.executable,
        "-m",
        "rubric_rl.tiny.make_checkpoint",
        "--out",
        str(out),
        "--seed",
        "1",
        "--scale",
        "small",
    ]
    subprocess.run(command, check=True, capture_output=True)
    tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForCausalLM.from_pretrained(out)
    making = json.loads((out / "making.json").read_text())
    losses = list(making["loss"].values())
    assert isinstance(model, Qwen3ForCausalLM) and len(tokenizer) == model.config.vocab_size
    assert making["parameters"] == model.num_parameters() and losses[-1] < losses[0] - 2
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_command_refuses_to_replace_what_is_no_checkpoint(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert make_checkpoint.main(["--out", str(tmp_path), "--scale", "small"]) == 2
    assert capsys.readouterr().err.startswith("error: ") and (tmp_path / "notes.txt").exists()
    assert measure_checkpoint.main(["--model", str(tmp_path)]) == 2
    assert "no checkpoint there" in capsys.readouterr().err


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, model, tokenizer):
    out = tmp_path / "model"
    out.mkdir()
    (out / "making.json").write_text("old")
    with pytest.raises(TypeError):
        make_checkpoint.save(out, model, tokenizer, {"figures": Criterion})
    assert (out / "making.json").read_text() == "old" and [
        path.name for path in tmp_path.iterdir()
    ] == ["model"]


def test_grader_prompt_fits_into_the_models_context(tokenizer, model):
    row = max(world.rows(held_out=True), key=lambda r: len(r.messages))
    content = grader_prompt("explain", list(row.messages), "word " * 64, [row.rubric[0]])
    assert len(_ids(tokenizer, content)) < 512 < model.config.max_position_embeddings
