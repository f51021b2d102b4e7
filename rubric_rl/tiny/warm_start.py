"""The supervised warm start of the tiny checkpoint: it learns to grade and, a little, to answer (stages 2-3)."""

import math
import time
from dataclasses import dataclass

import torch
from tqdm import tqdm
from transformers import Qwen3Config, Qwen3ForCausalLM

from rubric_rl.tiny.training_sequences import Sequence, Writer, collate


@dataclass(frozen=True)
class Scale:
    """Model size and length of the warm start; a step is `batch` sequences of about `length` tokens."""

    hidden: int
    layers: int
    mlp: int
    answering_steps: (
        int  # answering alone: mixed with grading from the start, it is not learned in so few steps
    )
    short_steps: int  # grading without the long instructions: matching criterion and sentence is learned here
    full_steps: int  # the real grader prompt
    batch: int
    length: int
    sample: int  # rows of each split that the finished checkpoint is measured on
    lr: float = 0.008  # with batches as small as these, 0.02 learns neither answering nor one-token verdicts
    answering: tuple[float, float, float] = (
        1.0,
        0.1,
        0.25,
    )  # share of answering sequences in each of the three parts


SCALES = {
    "shipped": Scale(
        128,
        5,
        384,
        answering_steps=120,
        short_steps=240,
        full_steps=480,
        batch=6,
        length=640,
        sample=80,
    ),
    "small": Scale(
        64, 2, 128, answering_steps=10, short_steps=20, full_steps=20, batch=4, length=512, sample=3
    ),
}


def new_model(vocabulary: int, scale: Scale, eos: int, pad: int) -> Qwen3ForCausalLM:
    """A randomly initialised Qwen3 in fp32; heads have 32 dimensions, two query heads share a key head."""
    heads = scale.hidden // 32
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=scale.hidden, intermediate_size=scale.mlp, num_hidden_layers=scale.layers,
        num_attention_heads=heads, num_key_value_heads=heads // 2, head_dim=32, max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=eos, pad_token_id=pad,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    model = Qwen3ForCausalLM(config).float()
    for layer in model.model.layers:
        attention = layer.self_attn
        # Half of the heads begin by attending to copies of the current token, so that criterion and sentence match from
        # the start. Qwen3 normalises queries and keys; with 32 dimensions and weights of 1 no head could pick one word
        # out of a prompt of hundreds.
        keys = attention.k_proj.weight.detach().view(heads // 2, 32, -1)
        attention.q_proj.weight.detach().view(heads // 2, 2, 32, -1)[:, 0] = keys
        for norm in (attention.q_norm, attention.k_norm):
            torch.nn.init.constant_(norm.weight, 1.6)
    return model


def weighted_loss(model: Qwen3ForCausalLM, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross entropy in nats per unit of weight; the logits of unweighted tokens are never computed.

    Hints are read off at a middle layer, so that the layers above can compare what those below have found.
    """
    inputs = {key: batch[key] for key in ("input_ids", "position_ids", "attention_mask")}
    states = model.model(**inputs, use_cache=False, output_hidden_states=True).hidden_states
    weights, hints = batch["weights"][:, 1:], batch["hints"][:, 1:]
    middle = model.model.norm(states[(len(states) + 1) // 2])
    total = 0.0
    for hidden, targets, taught in (
        (states[-1], batch["targets"][:, 1:], weights),
        (middle, hints, (hints > 0).float()),
    ):
        chosen = taught > 0
        logits = model.lm_head(hidden[:, :-1][chosen])
        losses = torch.nn.functional.cross_entropy(logits, targets[chosen], reduction="none")
        total = total + (losses * taught[chosen]).sum()
    return total / weights.sum()


def optimizers(model: Qwen3ForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices (it needs about half of AdamW's steps here), AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=lr, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=lr / 2, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def learning_rate(step: int, steps: int) -> float:
    """Factor of the peak rate: 20 steps of warm-up, then flat, then a linear decay over the last 45%."""
    return min(1.0, (step + 1) / 20, max(0.02, (steps - step) / (0.45 * steps)))


class WarmStart:
    """The steps of a scale, run in parts, so that the policy's own answers can join the graded ones on the way."""

    def __init__(self, model: Qwen3ForCausalLM, writer: Writer, scale: Scale):
        self.model, self.writer, self.scale = model, writer, scale
        self.total = scale.answering_steps + scale.short_steps + scale.full_steps
        self.done, self.losses, self.seconds = 0, [], 0.0
        self.optimizers = optimizers(model, scale.lr)
        self.rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]

    def run(self, steps: int, part: int, title: str) -> None:
        """Takes `steps` optimizer steps of part 0 (answering), 1 (grading, short prompts) or 2 (both, real prompts).

        Raises:
            FloatingPointError: when the loss is not finite.
        """
        self.model.train()
        start = time.perf_counter()
        bar = tqdm(range(steps), desc=title, mininterval=1)
        for step in bar:
            self.writer.difficulty = 0.1 + 0.9 * step / steps if part == 1 else 1.0
            loss = self._step(part)
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"warm start: the loss is {loss} at step {self.done}; try another --seed"
                )
            self.losses.append(loss)
            bar.set_postfix(loss=f"{sum(self.losses[-20:]) / len(self.losses[-20:]):.3f}")
        self.seconds += time.perf_counter() - start

    def _step(self, part: int) -> float:
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * learning_rate(self.done, self.total)
        loss = weighted_loss(self.model, collate(self._sequences(part)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return loss.item()

    def _sequences(self, part: int) -> list[Sequence]:
        writer, rng, count = self.writer, self.writer.rng, self.scale.batch
        writer.length = self.scale.length
        if part < 2:  # short sequences, and part 1 as many tokens in them as part 2
            writer.length, count = self.scale.length * 2 // 5, count * (2 if part else 1)
        share = self.scale.answering[part]
        return [
            writer.answering()
            if rng.random() < share
            else writer.grading(full=part == 2 and rng.random() < 0.9)
            for _ in range(count)
        ]
