"""Cuts a rollout into optimizer steps, data-parallel shares and padded micro-batches (stage 5, GRPO update)."""

from argparse import Namespace
from dataclasses import dataclass

import torch

from rubric_rl.cpu.grpo import Tokens, broadcast_advantages, token_weights
from rubric_rl.errors import UserError

DEFAULT_TOKENS = (
    1024  # padded tokens per micro-batch: larger ones cost memory and are no faster on a CPU
)


@dataclass(kw_only=True)
class MicroBatch(Tokens):
    """Samples of similar length; the actor fills in `old_log_probs` and `ref_log_probs` when it needs them.

    `inputs` is [samples, length], padded on the right with 0. Of the n response tokens with loss mask 1, targets[i] is
    predicted by the logits at (rows[i], columns[i]).
    """

    inputs: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    targets: torch.Tensor


def plan(args: Namespace, data: dict, dp_rank: int, dp_size: int) -> list[list[MicroBatch]]:
    """The micro-batches of DP rank `dp_rank`, for each optimizer step of the rollout.

    As in slime, a step takes the next `global_batch_size` samples and a remainder is dropped. Samples without an
    unmasked token need no forward pass: they only count in the denominators (`token_weights`).

    Raises:
        UserError: when the batch is smaller than global_batch_size or its lists do not fit together.
    """
    check(data)
    size, total = args.global_batch_size, len(data["tokens"])
    if total < size:
        raise UserError(
            f"the rollout has {total} samples, global_batch_size is {size}; lower it or sample more"
        )
    mask_sums = [sum(mask) for mask in data["loss_masks"]]
    steps = []
    for start in range(0, total - size + 1, size):
        samples = range(start, start + size)
        weights = token_weights(
            [mask_sums[i] for i in samples], size, args.calculate_per_token_loss
        )
        weight_of = dict(zip(samples, weights, strict=True))
        active = [i for i in samples if mask_sums[i]]
        by_length = sorted(active, key=lambda i: len(data["tokens"][i]), reverse=True)
        mine = by_length[
            dp_rank::dp_size
        ]  # neighbours in length go to different ranks: equal work without a search
        steps.append([collate(data, group, weight_of) for group in pack(args, data, mine)])
    return steps


def check(data: dict) -> None:
    """Raises UserError for a rollout whose lists do not fit together; slime asserts the same when it builds them."""
    names = ("tokens", "response_lengths", "rewards", "loss_masks", "rollout_log_probs")
    lengths = {
        name: len(data[name]) for name in names if name != "rollout_log_probs" or data.get(name)
    }
    if len(set(lengths.values())) != 1:
        raise UserError(
            f"the rollout's lists differ in length ({lengths}); this is a defect of the rollout stage"
        )
    for i, response in enumerate(data["response_lengths"]):
        tokens, mask = len(data["tokens"][i]), len(data["loss_masks"][i])
        log_probs = len(data["rollout_log_probs"][i]) if data.get("rollout_log_probs") else response
        if not 0 <= response < tokens or mask != response or log_probs != response:
            found = f"{tokens} tokens, response_length {response}, {mask} loss mask entries, {log_probs} rollout "
            found += "log-probabilities do not fit"
            raise UserError(
                f"sample {i} of the rollout: {found}; this is a defect of the rollout stage"
            )


def pack(args: Namespace, data: dict, samples: list[int]) -> list[list[int]]:
    """Groups samples, longest first, so that a padded group holds at most max_tokens_per_gpu tokens.

    This bounds memory only: the sums over groups are the same for every grouping.
    """
    budget = args.max_tokens_per_gpu or DEFAULT_TOKENS
    groups: list[list[int]] = []
    for i in samples:
        if groups and (len(groups[-1]) + 1) * len(data["tokens"][groups[-1][0]]) <= budget:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def collate(data: dict, samples: list[int], weight_of: dict[int, float]) -> MicroBatch:
    """Tensors of one micro-batch (`samples` longest first)."""
    tokens = [torch.tensor(data["tokens"][i]) for i in samples]
    prompts = [len(data["tokens"][i]) - data["response_lengths"][i] for i in samples]
    masked = [
        torch.tensor(data["loss_masks"][i]).nonzero().squeeze(1) for i in samples
    ]  # response offsets
    counts = [len(offsets) for offsets in masked]
    inputs = torch.zeros(
        len(samples), len(tokens[0]) - 1, dtype=torch.long
    )  # nothing is predicted from the last token
    for row, sequence in enumerate(tokens):
        inputs[row, : len(sequence) - 1] = sequence[:-1]
    rollout = None
    if log_probs := data.get("rollout_log_probs"):
        rollout = torch.cat(
            [
                torch.tensor(log_probs[i])[offsets]
                for i, offsets in zip(samples, masked, strict=True)
            ]
        )
    return MicroBatch(
        inputs=inputs,
        rows=torch.arange(len(samples)).repeat_interleave(torch.tensor(counts)),
        columns=torch.cat(
            [prompt - 1 + offsets for prompt, offsets in zip(prompts, masked, strict=True)]
        ),
        targets=torch.cat(
            [x[p + offsets] for x, p, offsets in zip(tokens, prompts, masked, strict=True)]
        ),
        advantages=broadcast_advantages([data["rewards"][i] for i in samples], counts),
        weights=broadcast_advantages([weight_of[i] for i in samples], counts),
        rollout_log_probs=rollout,
    )
