"""Makes the tiny Qwen3 checkpoint: tokenizer, warm start, files (stage 2, rollout: the policy and its grader).

python -m rubric_rl.tiny.make_checkpoint --out DIR --seed 0
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3ForCausalLM

from rubric_rl.data.schema import Criterion
from rubric_rl.errors import UserError
from rubric_rl.grading.prompt import grader_prompt
from rubric_rl.tiny.example_answers import graded_answer, mediocre_answer
from rubric_rl.tiny.knowledge import CONDITIONS, MODIFIERS, STATEMENTS, criteria, sentences
from rubric_rl.tiny.measure_checkpoint import measure, sampled_answers
from rubric_rl.tiny.tokenizer import train_tokenizer
from rubric_rl.tiny.training_sequences import TRAINING_PAIRS, Writer, user_turn, verdict_text
from rubric_rl.tiny.warm_start import SCALES, WarmStart, new_model
from rubric_rl.tiny.world import messages


def corpus(seed: int) -> list[str]:
    """What the tokenizer is trained on: every sentence and criterion, and grader prompts with their replies."""
    rng = random.Random(seed)
    texts = [text for s in STATEMENTS for text in (*sentences(s), *criteria(s))] * 4
    texts += [
        f" {word}"
        for c in CONDITIONS.values()
        for symptom in c.symptoms
        for word in symptom.split()
    ]
    texts += [f"{name} {' '.join(m.wordings)}" for name, m in MODIFIERS.items()]
    for number in range(600):
        pair = rng.choice(TRAINING_PAIRS)
        answer, conversation = graded_answer(rng, pair), messages(pair, number % 4)
        statement, mode = rng.choice(STATEMENTS), ("explain", "direct", "checklist")[number % 3]
        criterion = Criterion(
            rng.choice(criteria(statement)), rng.choice((-1, 1)) * rng.randint(1, 10)
        )
        texts.append(user_turn(grader_prompt(mode, conversation, answer, [criterion])))
        texts.append("".join(text for text, _ in verdict_text(mode, answer, statement)))
        texts.append(mediocre_answer(rng, pair))
    return texts


def make(seed: int, scale_name: str) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast, dict]:
    """The checkpoint and the figures of its making; the same seed on the same machine gives the same weights."""
    scale, start = SCALES[scale_name], time.perf_counter()
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(corpus(seed))
    model = new_model(len(tokenizer), scale, tokenizer.eos_token_id, tokenizer.pad_token_id)
    writer = Writer(partial(tokenizer.encode, add_special_tokens=False), random.Random(seed))
    warm = WarmStart(model, writer, scale)
    half = scale.full_steps // 2
    warm.run(scale.answering_steps, part=0, title="1 answering")
    warm.run(scale.short_steps, part=1, title="2 grading, short prompts")
    warm.run(half, part=2, title="3 grading and answering")
    # The grader meets its own policy's sentences, good and broken, before GRPO does.
    writer.own_answers = sampled_answers(
        model, tokenizer, TRAINING_PAIRS, per_pair=4, temperature=1.2, seed=seed
    )
    warm.run(scale.full_steps - half, part=2, title="4 and its own answers")
    losses = warm.losses
    stride = max(20, len(losses) // 10)
    figures = {
        "command": f"python -m rubric_rl.tiny.make_checkpoint --out DIR --seed {seed} --scale {scale_name}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "scale": asdict(scale),
        "steps": len(losses),
        "training_seconds": round(warm.seconds),
        "loss": {
            step: round(sum(losses[step - 20 : step]) / 20, 4)
            for step in range(20, len(losses) + 1, stride)
        },
        "seconds": round(time.perf_counter() - start),
    }
    return model, tokenizer, figures


def save(
    out: Path, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, figures: dict
) -> None:
    """Writes the whole directory beside `out` and moves it into place: no half-written checkpoint is ever read."""
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        ends = {
            "eos_token_id": model.config.eos_token_id,
            "pad_token_id": model.config.pad_token_id,
        }
        model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, **ends)
        model.save_pretrained(work)
        tokenizer.save_pretrained(work)
        (work / "making.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        work.chmod(0o755)
        for file in work.iterdir():
            file.chmod(0o644)  # whatever the umask: a served checkpoint is read by other users too
        if out.exists():
            shutil.rmtree(out)
        os.replace(work, out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def main(argv: list[str] | None = None) -> int:
    """Makes, measures and saves; an existing --out is replaced only at the very end, and only if it is a checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--scale",
        choices=sorted(SCALES),
        default="shipped",
        help="small: half a minute, grades badly",
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(
        1
    )  # a second thread barely helps a model of this size, and one makes sums reproducible
    try:
        if args.out.exists() and not (args.out / "making.json").is_file():
            raise UserError(f"{args.out} exists and is no tiny checkpoint; choose another --out")
        model, tokenizer, figures = make(args.seed, args.scale)
        sample = SCALES[args.scale].sample
        command = f"python -m rubric_rl.tiny.measure_checkpoint --model DIR --sample {sample}"
        figures["measured"] = {"command": command} | measure(model, tokenizer, sample)
        save(args.out, model, tokenizer, figures)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(figures["measured"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
