"""The supervised warm start of the tiny checkpoint: it learns to grade and, a little, to answer (stages 2-3)."""

import math
import time
from dataclasses import dataclass

import torch
from tqdm import tqdm
from transformers import Qwen3Config, Qwen3ForCausalLM

from rubric_rl.tiny.batches import Writer, collate


@dataclass(frozen=True)
class Scale:
    """Model size and length of the warm start; a step is `batch` sequences of about `length` tokens."""

    hidden: int
    layers: int
    mlp: int
    short_steps: int  # grading without the long instructions: the matching of criterion and sentence is learned here
    full_steps: int  # the product's prompt
    second_steps: int  # the same again, with fresh optimizers at half the rate and the policy's own answers
    batch: int
    length: int
    lr: float = 0.02
    answering: float = 0.2  # share of the sequences that answer patients


SCALES = {
    "shipped": Scale(128, 5, 384, short_steps=240, full_steps=320, second_steps=360, batch=6, length=640),
    "small": Scale(64, 2, 128, short_steps=20, full_steps=16, second_steps=4, batch=4, length=512),
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
        # Half of the heads begin by looking for the token they stand on: the match of criterion and sentence is then there
        # from the start (it took 500 steps to be found). Qwen3 normalises queries and keys; with 32 dimensions and weights
        # of 1 no head could pick one word out of a prompt of hundreds.
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
    for hidden, targets, taught in ((states[-1], batch["targets"][:, 1:], weights), (middle, hints, (hints > 0).float())):
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
        torch.optim.AdamW(others, lr=lr / 4, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def learning_rate(step: int, steps: int) -> float:
    """Factor of the peak rate: 20 steps of warm-up, then flat, then a linear decay over the last 40%."""
    return min(1.0, (step + 1) / 20, max(0.02, (steps - step) / (0.4 * steps)))


class WarmStart:
    """One cycle of the learning rate, run in parts, so that the policy's own answers can join the graded ones on the way."""

    def __init__(self, model: Qwen3ForCausalLM, writer: Writer, scale: Scale, steps: int, lr: float):
        self.model, self.writer, self.scale = model, writer, scale
        self.total, self.done, self.losses, self.seconds = steps, 0, [], 0.0
        self.optimizers = optimizers(model, lr)
        self.rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]

    def run(self, steps: int, full: bool, title: str) -> None:
        """`steps` optimizer steps; with `full`, the product's prompt and the answering of patients.

        Raises:
            FloatingPointError: when the loss is not finite.
        """
        self.model.train()
        start = time.perf_counter()
        bar = tqdm(range(steps), desc=title, mininterval=1)
        for _ in bar:
            loss = self._step(full)
            if not math.isfinite(loss):
                raise FloatingPointError(f"warm start: the loss is {loss} at step {self.done}; try another --seed")
            self.losses.append(loss)
            bar.set_postfix(loss=f"{sum(self.losses[-20:]) / len(self.losses[-20:]):.3f}")
        self.seconds += time.perf_counter() - start

    def _step(self, full: bool) -> float:
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * learning_rate(self.done, self.total)
        rng, writer = self.writer.rng, self.writer
        writer.difficulty = 1.0 if full else 0.1 + 0.9 * self.done / self.scale.short_steps
        share = self.scale.answering if full else self.scale.answering / 2
        writer.length, count = (self.scale.length, self.scale.batch) if full else (self.scale.length * 2 // 5, self.scale.batch * 5 // 2)
        sequences = [
            writer.answering() if rng.random() < share else writer.grading(full and rng.random() < 0.9)
            for _ in range(count)
        ]
        loss = weighted_loss(self.model, collate(sequences))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return loss.item()
