"""The supervised warm start of the tiny checkpoint: it learns to grade and, a little, to answer.

Three parts follow each other, each with its own mix of training sequences:

    answering       patients and mediocre answers alone
    short grading   mostly grading, without the grader prompt's long instructions, easy answers
                    first: to match a criterion with a sentence is learned here
    full grading    grading with the real prompt, and some answering so that it is not forgotten
"""

import math
import time
from dataclasses import dataclass
from enum import IntEnum

import torch
from tqdm import tqdm
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

from rubric_rl.tiny.training_sequences import SequenceWriter, TrainingSequence, collate


class Part(IntEnum):
    """The parts of the warm start, in their order."""

    ANSWERING = 0
    SHORT_GRADING = 1
    FULL_GRADING = 2


@dataclass(frozen=True)
class Scale:
    """Size of the model and length of its warm start."""

    hidden: int
    layers: int
    mlp: int
    # Answering comes first, and alone: mixed with grading from the start, it is not learned in so
    # few steps.
    answering_steps: int
    short_steps: int
    full_steps: int
    batch: int  # sequences in a step of the last part
    length: int  # tokens in each of them, about
    sample: int  # rows of each split that the finished checkpoint is measured on
    lr: float = 0.008  # in such small batches 0.02 learns neither answers nor one-token verdicts
    answering: tuple[float, float, float] = (1.0, 0.1, 0.25)  # their share of each part's sequences


SCALES = {
    "shipped": Scale(
        hidden=128,
        layers=5,
        mlp=384,
        answering_steps=120,
        short_steps=240,
        full_steps=480,
        batch=6,
        length=640,
        sample=80,
    ),
    "small": Scale(
        hidden=64,
        layers=2,
        mlp=128,
        answering_steps=10,
        short_steps=20,
        full_steps=20,
        batch=4,
        length=512,
        sample=3,
    ),
}

LOW = 2  # layers below the states that learn to look back
HEAD_SIZE = 32
QUERIES_PER_KEY = 2  # query heads that share one key head
NORM_WEIGHT = 1.6


def new_model(vocabulary: int, scale: Scale, eos: int, pad: int) -> Qwen3ForCausalLM:
    """A randomly initialised Qwen3 in fp32."""
    heads = scale.hidden // HEAD_SIZE
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=scale.hidden,
        intermediate_size=scale.mlp,
        num_hidden_layers=scale.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // QUERIES_PER_KEY,
        head_dim=HEAD_SIZE,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=pad,
    )
    config._attn_implementation = "sdpa"
    model = Qwen3ForCausalLM(config).float()
    for layer in model.model.layers:
        attention = layer.self_attn
        assert isinstance(attention, Qwen3Attention)
        _attend_to_copies(attention, key_heads=heads // QUERIES_PER_KEY)
    return model


def _attend_to_copies(attention: Qwen3Attention, key_heads: int) -> None:
    """Lets half of the heads begin by attending to copies of the current token.

    So criterion and sentence match from the start: in each pair of query heads the first one gets
    the weights of its key head.
    """
    keys = attention.k_proj.weight.detach().view(key_heads, HEAD_SIZE, -1)
    queries = attention.q_proj.weight.detach().view(key_heads, QUERIES_PER_KEY, HEAD_SIZE, -1)
    queries[:, 0] = keys
    # Qwen3 normalises queries and keys. With 32 dimensions and norm weights of 1 no head could pick
    # one word out of a prompt of hundreds.
    for norm in (attention.q_norm, attention.k_norm):
        torch.nn.init.constant_(norm.weight, NORM_WEIGHT)


def weighted_loss(
    model: Qwen3ForCausalLM, batch: dict[str, torch.Tensor], looking_back: float = 0.0
) -> torch.Tensor:
    """Cross entropy of a batch of `collate`, in nats per unit of weight; a scalar.

    The hints' cross entropy is added to it. They are read off at a middle layer, so that the layers
    above can compare what those below have found. `looking_back` is the weight of a third one, in
    nats per token: a low layer learns to tell at each token of the prefix which token stood before
    it. What is said of a word ("avoid codeine") is known by nothing else.
    """
    output = model.model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=batch["attention_mask"],
        use_cache=False,
        output_hidden_states=True,
    )
    states = output.hidden_states  # the embeddings, then one a layer; the last one is normalised
    middle = model.model.norm(states[(len(states) + 1) // 2])
    # The state at each token predicts the next one.
    targets, hints, weights = (batch[key][:, 1:] for key in ("targets", "hints", "weights"))
    is_hinted = (hints > 0).float()
    total = _summed_loss(model, states[-1], targets, weights)
    total = total + _summed_loss(model, middle, hints, is_hinted)
    loss = total / weights.sum()
    if looking_back:
        loss = loss + looking_back * _loss_of_tokens_before(model, states[LOW], batch)
    return loss


def _loss_of_tokens_before(
    model: Qwen3ForCausalLM, states: torch.Tensor, batch: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Mean cross entropy of the token before each one; `states` is [batch, length, hidden]."""
    tokens = batch["input_ids"]
    places = torch.arange(tokens.shape[1])
    # Later branches go on from the prefix: the token before theirs in the row is another branch's.
    is_in_a_row = (batch["position_ids"] == places)[:, 1:]
    logits = model.lm_head(model.model.norm(states)[:, 1:][is_in_a_row])
    return torch.nn.functional.cross_entropy(logits, tokens[:, :-1][is_in_a_row])


def _summed_loss(
    model: Qwen3ForCausalLM, states: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Weighted sum over tokens; `states` is [batch, length, hidden], the rest [batch, length - 1].

    The logits of tokens without weight are never computed.
    """
    chosen = weights > 0
    logits = model.lm_head(states[:, :-1][chosen])
    losses = torch.nn.functional.cross_entropy(logits, targets[chosen], reduction="none")
    return (losses * weights[chosen]).sum()


def optimizers(model: Qwen3ForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for embeddings and norms.

    Muon needs about half of AdamW's steps here.
    """
    matrices = []
    others = []
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embed" not in name:
            matrices.append(parameter)
        else:
            others.append(parameter)
    return [
        torch.optim.Muon(matrices, lr=lr, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=lr / 2, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def learning_rate(step: int, steps: int) -> float:
    """Share of the peak rate: 20 steps of warm-up, then flat, a linear decay over the last 45%."""
    warm_up = (step + 1) / 20
    decay = max(0.02, (steps - step) / (0.45 * steps))
    return min(1.0, warm_up, decay)


class WarmStart:
    """The steps of a scale.

    They are taken in several runs, so that the policy's own answers can join the graded ones on the
    way.
    """

    def __init__(
        self,
        model: Qwen3ForCausalLM,
        writer: SequenceWriter,
        scale: Scale,
        looking_back: float = 0.0,  # weight in the loss, see `weighted_loss`
    ):
        self.model = model
        self.writer = writer
        self.scale = scale
        self.looking_back = looking_back
        self.total_steps = scale.answering_steps + scale.short_steps + scale.full_steps
        self.losses: list[float] = []  # one per step taken
        self.seconds = 0.0
        self.optimizers = optimizers(model, scale.lr)
        self.peak_rates = [
            [group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers
        ]

    def run(self, steps: int, part: Part, title: str) -> None:
        """Takes `steps` optimizer steps of a part.

        Raises:
            FloatingPointError: when the loss is not finite.
        """
        self.model.train()
        start = time.perf_counter()
        bar = tqdm(range(steps), desc=title, mininterval=1)
        for step in bar:
            is_easy_first = part == Part.SHORT_GRADING
            self.writer.difficulty = 0.1 + 0.9 * step / steps if is_easy_first else 1.0
            loss = self._step(part)
            if not math.isfinite(loss):
                number = len(self.losses) + 1
                raise FloatingPointError(
                    f"warm start: the loss is {loss} at step {number}; try another --seed"
                )
            self.losses.append(loss)
            latest = self.losses[-20:]
            bar.set_postfix(loss=f"{sum(latest) / len(latest):.3f}")
        self.seconds += time.perf_counter() - start

    def _step(self, part: Part) -> float:
        self._set_learning_rates(learning_rate(len(self.losses), self.total_steps))
        batch = collate(self._sequences(part))
        loss = weighted_loss(self.model, batch, self.looking_back)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def _set_learning_rates(self, share: float) -> None:
        for optimizer, peaks in zip(self.optimizers, self.peak_rates, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share

    def _sequences(self, part: Part) -> list[TrainingSequence]:
        """The sequences of one step."""
        writer = self.writer
        if part == Part.FULL_GRADING:
            writer.length = self.scale.length
            count = self.scale.batch
        else:
            writer.length = self.scale.length * 2 // 5
            # Short sequences need twice the number for about as many tokens.
            count = self.scale.batch * (2 if part == Part.SHORT_GRADING else 1)
        sequences = []
        for _ in range(count):
            if writer.rng.random() < self.scale.answering[part]:
                sequences.append(writer.answering())
            else:
                full = part == Part.FULL_GRADING and writer.rng.random() < 0.9
                sequences.append(writer.grading(full))
        return sequences
