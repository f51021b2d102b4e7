"""A start that grades better: the shipped checkpoint after more practice in grading.

python experiments/practised_start.py --out DIR   and says nothing if DIR is there

It reads its own answers, whole and damaged, and is told the oracle's verdicts. Some answering goes
on beside, so that the answers stay as they are. About ten minutes on two cores.
"""

import random
import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rubric_rl import ROOT
from rubric_rl.common.command_line import CommandParser, exit_status

MODEL = ROOT / "rubric_rl" / "tiny" / "model"
STEPS = 400
LEARNING_RATE = 0.003
ANSWERING = 0.25  # share of the sequences that keep the answering
TEMPERATURES = (1.0, 1.3)  # of its own answers: as in a run, and wilder
PER_PAIR = 4  # answers at each temperature
DAMAGED = 0.4  # share of the sentences in the damaged copy of an answer
CROSSED = 0.5  # of these, those that begin with another sentence's first word
SEED = 0


def make_practised_start(out: Path, steps: int = STEPS) -> None:
    """Writes the checkpoint into `out`, whole or not at all; one that is there is kept.

    The same seed on the same machine gives the same weights.
    """
    if out.is_dir():
        return
    # Here, so that the commands that need no model start fast.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rubric_rl.tiny.make_checkpoint import save
    from rubric_rl.tiny.measure_checkpoint import Policy
    from rubric_rl.tiny.training_sequences import SequenceWriter
    from rubric_rl.tiny.warm_start import SCALES, Part, WarmStart

    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_pretrained(MODEL, attn_implementation="sdpa").float()
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    rng = random.Random(SEED)
    encode = partial(tokenizer.encode, add_special_tokens=False)
    writer = SequenceWriter(encode, rng)
    writer.own_answers = _own_answers(Policy(model, tokenizer), rng)
    scale = replace(
        SCALES["shipped"],
        answering_steps=0,
        short_steps=0,
        full_steps=steps,
        lr=LEARNING_RATE,
        answering=(ANSWERING,) * len(Part),
    )
    practice = WarmStart(model, writer, scale)
    practice.run(steps, Part.FULL_GRADING, "practice in grading")
    figures = {
        "command": f"python experiments/practised_start.py --out DIR --steps {steps}",
        "seconds": round(practice.seconds),
    }
    save(out, model, tokenizer, figures)


def _own_answers(policy, rng: random.Random) -> list:
    """Pairs and answers: what the policy says to them, and the same with damaged sentences."""
    from rubric_rl.tiny.measure_checkpoint import sampled_answers
    from rubric_rl.tiny.world import TRAINING_PAIRS

    whole = []
    for seed, temperature in enumerate(TEMPERATURES):
        whole += sampled_answers(policy, TRAINING_PAIRS, PER_PAIR, temperature, seed)
    damaged = [(pair, _damaged(answer, rng)) for pair, answer in whole]
    return whole + damaged


def _damaged(answer: str, rng: random.Random) -> str:
    """The answer with some of its sentences damaged."""
    sentences = re.findall(r"[^.]*\w[^.]*", answer)
    sentences = [sentence.strip() + "." for sentence in sentences]
    written = []
    for sentence in sentences:
        if rng.random() < DAMAGED:
            sentence = _damaged_sentence(sentence, rng.choice(sentences), rng)
        written.append(sentence)
    return " ".join(written) or answer


def _damaged_sentence(sentence: str, other: str, rng: random.Random) -> str:
    """The sentence garbled, or begun as the other one begins.

    The latter ("Please helps to get rest.") is where the answers of a self-graded run moved to.
    """
    from rubric_rl.tiny.example_answers import garbled

    if rng.random() < CROSSED:
        first_word, _, _ = other.partition(" ")
        _, space, rest = sentence.partition(" ")
        return first_word + space + rest
    return garbled(rng, sentence, other)


def main() -> int:
    """Exit status: 0 done, 2 something to fix."""
    parser = CommandParser("python experiments/practised_start.py", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint's folder")
    parser.add_argument("--steps", type=int, default=STEPS, help="of practice")
    args = parser.parse_args()
    return exit_status(lambda: make_practised_start(args.out, args.steps) or 0)


if __name__ == "__main__":
    sys.exit(main())
