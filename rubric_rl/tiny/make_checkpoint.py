"""Makes a tiny Qwen3 checkpoint: tokenizer, warm start, figures, files.

python -m rubric_rl.tiny.make_checkpoint --out DIR --seed 0

The shipped one has practised grading after it, twice: practice.py, then contrasts.py.

making.json says how a checkpoint was made and measured, in the words of its day. The shipped one's
"command" names rubric_rl.tiny.checkpoint, as this command was called then.
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

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import UserError
from rubric_rl.tiny.make_tokenizer import corpus, train_tokenizer
from rubric_rl.tiny.measure_checkpoint import Policy, measure, sampled_answers
from rubric_rl.tiny.training_sequences import SequenceWriter
from rubric_rl.tiny.warm_start import SCALES, Part, WarmStart, new_model
from rubric_rl.tiny.world import TRAINING_PAIRS


def make(seed: int, scale_name: str) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast, dict]:
    """The checkpoint and the figures of its making.

    The same seed on the same machine gives the same weights.
    """
    start = time.perf_counter()
    scale = SCALES[scale_name]
    torch.manual_seed(seed)
    texts = corpus(seed)
    tokenizer = train_tokenizer(texts)
    eos = tokenizer.eos_token_id
    pad = tokenizer.pad_token_id
    assert isinstance(eos, int)
    assert isinstance(pad, int)
    model = new_model(len(tokenizer), scale, eos, pad)
    encode = partial(tokenizer.encode, add_special_tokens=False)
    rng = random.Random(seed)
    writer = SequenceWriter(encode, rng)
    warm_start = WarmStart(model, writer, scale)
    warm_start.run(scale.answering_steps, Part.ANSWERING, "1 answering")
    warm_start.run(scale.short_steps, Part.SHORT_GRADING, "2 grading, short prompts")
    half = scale.full_steps // 2
    warm_start.run(half, Part.FULL_GRADING, "3 grading and answering")
    # The grader meets its own policy's sentences, good and broken, before GRPO does.
    policy = Policy(model, tokenizer)
    writer.own_answers = sampled_answers(
        policy, TRAINING_PAIRS, per_pair=4, temperature=1.2, seed=seed
    )
    warm_start.run(scale.full_steps - half, Part.FULL_GRADING, "4 and its own answers")
    command = "python -m rubric_rl.tiny.make_checkpoint --out DIR"
    sizes = [parameter.numel() for parameter in model.parameters()]
    seconds = time.perf_counter() - start
    figures = {
        "command": f"{command} --seed {seed} --scale {scale_name}",
        "parameters": sum(sizes),
        "scale": asdict(scale),
        "steps": len(warm_start.losses),
        "training_seconds": round(warm_start.seconds),
        "loss": _loss_curve(warm_start.losses),
        "seconds": round(seconds),
    }
    return model, tokenizer, figures


def _loss_curve(losses: list[float]) -> dict[int, float]:
    """About ten points: step -> mean loss of the 20 steps up to it."""
    steps = len(losses)
    stride = max(20, steps // 10)
    curve = {}
    for end in range(20, steps + 1, stride):
        start = end - 20
        mean = sum(losses[start:end]) / 20
        curve[end] = round(mean, 4)
    return curve


def save(
    out: Path, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, figures: dict
) -> None:
    """Writes the whole directory beside `out` and moves it into place.

    So no half-written checkpoint is ever read.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.")
    unfinished = Path(folder)
    try:
        model.generation_config = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            eos_token_id=model.config.eos_token_id,
            pad_token_id=model.config.pad_token_id,
        )
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        making = json.dumps(figures, indent=1) + "\n"
        making_file = unfinished / "making.json"
        making_file.write_text(making, encoding="utf-8")
        # Whatever the umask: a served checkpoint is read by other users too.
        unfinished.chmod(0o755)
        for file in unfinished.iterdir():
            file.chmod(0o644)
        if out.exists():
            shutil.rmtree(out)
        os.replace(unfinished, out)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def main(argv: list[str] | None = None) -> int:
    """Makes, measures and saves.

    An existing --out is replaced only at the very end, and only if it is a checkpoint of this kind.
    """
    parser = CommandParser("python -m rubric_rl.tiny.make_checkpoint", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory of the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--scale",
        choices=sorted(SCALES),
        default="shipped",
        help="small: half a minute, grades badly",
    )
    return exit_status(lambda: _make_and_save(parser.parse_args(argv)))


def _make_and_save(args: argparse.Namespace) -> int:
    # A second thread barely helps a model of this size, and one makes sums reproducible.
    torch.set_num_threads(1)
    out = args.out
    making = out / "making.json"
    if out.exists() and not making.is_file():
        raise UserError(f"{out} exists and is no tiny checkpoint; choose another --out")
    model, tokenizer, figures = make(args.seed, args.scale)
    sample = SCALES[args.scale].sample
    command = f"python -m rubric_rl.tiny.measure_checkpoint --model DIR --sample {sample}"
    policy = Policy(model, tokenizer)
    measured = {"command": command, **measure(policy, sample)}
    figures["measured"] = measured
    save(out, model, tokenizer, figures)
    text = json.dumps(measured, indent=1)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
