"""Measures a tiny checkpoint without a server: how well it grades and how well it answers (stage 6, evaluation).

python -m rubric_rl.tiny.measure_checkpoint --model rubric_rl/tiny/model
"""

import argparse
import json
import random
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rubric_rl.data.schema import Row, Verdict
from rubric_rl.errors import UserError
from rubric_rl.grading.prompt import graded_text, grader_prompt, verdict_opening
from rubric_rl.grading.score import score
from rubric_rl.grading.verdict import read_verdict
from rubric_rl.tiny.example_answers import graded_answer, mediocre_answer
from rubric_rl.tiny.oracle import truth
from rubric_rl.tiny.world import HELD_OUT, PATIENTS, Pair, messages, pair_of, rows

CAP = 64  # tokens of an answer, as in the tiny run
Case = tuple[Row, str]  # a row and an answer to it


def _true_score(row: Row, answer: str) -> float:
    return score(row.rubric, [Verdict(met) for met in truth(row.rubric, answer)])


def _templated(tokenizer, conversation: list[dict]) -> str:
    options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    return tokenizer.apply_chat_template(conversation, **options)


def _padded(tokenizer, texts: list[str]):
    return tokenizer(
        texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
    )


@torch.inference_mode()
def generate(
    model, tokenizer, prompts: list[str], limit: int, temperature: float, batch: int = 64
) -> list[list[int]]:
    """New token ids for each templated prompt, cut after the first end of turn; temperature 0 is greedy."""
    model.eval()
    order = sorted(
        range(len(prompts)), key=lambda i: len(prompts[i])
    )  # similar lengths together: less padding
    sampling = {"do_sample": False}
    if temperature:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    replies: dict[int, list[int]] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        inputs = _padded(tokenizer, [prompts[i] for i in chosen])
        output = model.generate(
            input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens=limit,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **sampling,
        )  # fmt: skip
        for index, ids in zip(chosen, output[:, inputs.input_ids.shape[1] :].tolist(), strict=True):
            end = (
                ids.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in ids else len(ids)
            )
            replies[index] = ids[:end]
    return [replies[i] for i in range(len(prompts))]


def sampled_answers(
    model, tokenizer, pairs: list[Pair], per_pair: int, temperature: float, seed: int
) -> list[tuple[Pair, str]]:
    """The policy's own answers (their graded text; empty ones left out) to patients of these pairs."""
    torch.manual_seed(seed)
    chosen = [
        (pair, messages(pair, number % len(PATIENTS)))
        for pair in pairs
        for number in range(per_pair)
    ]
    replies = generate(
        model, tokenizer, [_templated(tokenizer, m) for _, m in chosen], CAP, temperature
    )
    texts = [graded_text(tokenizer.decode(ids)) for ids in replies]
    return [(pair, text) for (pair, _), text in zip(chosen, texts, strict=True) if text]


def answer_figures(
    model, tokenizer, chosen: list[Row], per_row: int, temperature: float, seed: int
) -> tuple[dict, list[Case]]:
    """True score, length in tokens, truncated share, group variance of `per_row` answers to each row; and the answers.

    A truncated or empty answer scores 0, as in training.
    """
    torch.manual_seed(seed)
    cases = [row for row in chosen for _ in range(per_row)]
    replies = generate(
        model,
        tokenizer,
        [_templated(tokenizer, list(row.messages)) for row in cases],
        CAP,
        temperature,
    )
    texts = [graded_text(tokenizer.decode(ids)) or "" for ids in replies]
    cut = [ids[-1] != tokenizer.eos_token_id for ids in replies]
    scores = [
        0.0 if c or not t else _true_score(r, t) for r, t, c in zip(cases, texts, cut, strict=True)
    ]
    groups = [scores[i : i + per_row] for i in range(0, len(scores), per_row)]
    figures = {
        "true_score": sum(scores) / len(scores),
        "groups_with_variance": sum(len(set(group)) > 1 for group in groups) / len(groups),
        "best_of_group": sum(map(max, groups)) / len(groups),
        "tokens": sum(map(len, replies)) / len(replies),
        "truncated": sum(cut) / len(cut),
    }
    return {k: round(v, 4) for k, v in figures.items()}, [
        (r, t) for r, t in zip(cases, texts, strict=True) if t
    ]


def verdicts(model, tokenizer, mode: str, cases: list[Case]) -> list[list[bool | None]]:
    """The model's verdict on each criterion of each case, asked with the real grader prompt; None: unreadable."""
    asked = [
        grader_prompt(mode, list(row.messages), answer, [c])
        for row, answer in cases
        for c in row.rubric
    ]
    prompts = [_templated(tokenizer, [{"role": "user", "content": content}]) for content in asked]
    if mode == "direct":
        flat = iter(_direct(model, tokenizer, prompts))
    else:
        replies = generate(model, tokenizer, prompts, 48, temperature=0)
        flat = iter(
            [read_verdict(tokenizer.decode(ids, skip_special_tokens=True)).met for ids in replies]
        )
    return [[next(flat) for _ in row.rubric] for row, _ in cases]


@torch.inference_mode()
def _direct(model, tokenizer, prompts: list[str]) -> list[bool]:
    true, false = (
        tokenizer.encode(text, add_special_tokens=False)[0] for text in (" true", " false")
    )
    met = []
    for start in range(0, len(prompts), 32):
        inputs = _padded(
            tokenizer, [prompt + verdict_opening() for prompt in prompts[start : start + 32]]
        )
        logits = model(
            input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, logits_to_keep=1
        ).logits[:, -1]
        met += (logits[:, true] > logits[:, false]).tolist()
    return met


def grading_figures(model, tokenizer, mode: str, cases: list[Case]) -> dict:
    """Agreement with the oracle; an unreadable reply is wrong. `always_false`: the accuracy of "false" every time."""
    found = [verdict for each in verdicts(model, tokenizer, mode, cases) for verdict in each]
    true = [met for row, answer in cases for met in truth(row.rubric, answer)]
    met = [verdict for verdict, t in zip(found, true, strict=True) if t]
    unmet = [verdict for verdict, t in zip(found, true, strict=True) if not t]
    figures = {
        "accuracy": (met.count(True) + unmet.count(False)) / len(true),
        "false_positive_rate": unmet.count(True) / max(1, len(unmet)),
        "false_negative_rate": (len(met) - met.count(True)) / max(1, len(met)),
        "unreadable": found.count(None) / len(found),
        "always_false": len(unmet) / len(true),
    }
    return {k: round(v, 4) for k, v in figures.items()} | {"verdicts": len(true)}


def world_cases(chosen: list[Row], seed: int) -> dict[str, list[Case]]:
    """Answers made by the world: `ordinary` ones, and `hostile` ones (spliced, cut, repeated, contradictory)."""
    rng = random.Random(seed)
    return {
        "ordinary": [(row, mediocre_answer(rng, pair_of(row))) for row in chosen],
        "hostile": [(row, graded_answer(rng, pair_of(row))) for row in chosen],
    }


def measure(model, tokenizer, sample: int = 80, seed: int = 1234) -> dict:
    """All figures, on `sample` held-out rows and as many training rows; a group is 8 answers."""
    held_out, training = (
        random.Random(seed).sample(rows(h), min(sample, 4 * len(HELD_OUT))) for h in (True, False)
    )
    figures, own = {}, []
    for name, chosen in (("held_out", held_out), ("training", training)):
        for temperature in (1.0, 0.7):
            key = f"answers {name} T={temperature}"
            figures[key], cases = answer_figures(model, tokenizer, chosen, 8, temperature, seed)
            own = own or cases
    sources = {"own": random.Random(seed).sample(own, min(len(own), 2 * sample))} | world_cases(
        held_out, seed
    )
    for mode in ("explain", "direct"):
        for name, cases in sources.items():
            figures[f"grading {mode} {name}"] = grading_figures(model, tokenizer, mode, cases)
    return figures


def main(argv: list[str] | None = None) -> int:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument(
        "--sample", type=int, default=80, help="held-out rows, and as many training rows"
    )
    parser.add_argument("--seed", type=int, default=1234)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        if not (args.model / "config.json").is_file():
            raise UserError(
                f"{args.model}: no checkpoint there; make one with python -m rubric_rl.tiny.make_checkpoint"
            )
        model = AutoModelForCausalLM.from_pretrained(
            args.model, dtype=torch.float32, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(args.model, local_files_only=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(measure(model, tokenizer, args.sample, args.seed), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
