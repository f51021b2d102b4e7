"""Cuts a rollout into optimizer steps, data-parallel shares and padded micro-batches."""

from argparse import Namespace
from dataclasses import dataclass

import torch
from torch import Tensor

from rubric_rl.common.errors import UserError
from rubric_rl.cpu.grpo import LossInputs, repeat_for_tokens, token_weights

# Padded tokens per micro-batch: larger ones cost memory and are no faster on a CPU.
DEFAULT_TOKENS = 1024

Samples = list[int]  # by their place in the rollout


@dataclass(kw_only=True)
class MicroBatch(LossInputs):
    """Samples of similar length.

    The actor fills in `old_log_probs` and `ref_log_probs` when it needs them. `inputs` is
    [samples, length], padded on the right with 0. Of the n response tokens with loss mask 1,
    targets[i] is predicted by the logits at (rows[i], columns[i]).
    """

    inputs: Tensor
    rows: Tensor
    columns: Tensor
    targets: Tensor


def make_micro_batches(
    args: Namespace, rollout: dict, dp_rank: int, dp_size: int
) -> list[list[MicroBatch]]:
    """The micro-batches of DP rank `dp_rank`, for each optimizer step of the rollout.

    As in slime, a step takes the next `global_batch_size` samples and a remainder is dropped.
    Samples without an unmasked token need no forward pass: they only count in the denominators
    (`token_weights`).

    Raises:
        UserError: when the batch is smaller than global_batch_size.
        RuntimeError: when the rollout's lists do not fit together.
    """
    check_rollout(rollout)
    total = len(rollout["tokens"])
    step_size = args.global_batch_size
    if total < step_size:
        sizes = f"the rollout has {total} samples, global_batch_size is {step_size}"
        raise UserError(f"{sizes}; lower it or sample more")
    mask_sums = [sum(mask) for mask in rollout["loss_masks"]]
    last_start = total - step_size
    steps = []
    for start in range(0, last_start + 1, step_size):
        end = start + step_size
        step_sums = mask_sums[start:end]
        weights = token_weights(step_sums, step_size, args.calculate_per_token_loss)
        weight_of = dict(enumerate(weights, start))
        active = [i for i in range(start, end) if mask_sums[i] > 0]
        _sort_longest_first(active, rollout)
        # Neighbours in length go to different ranks: equal work without a search.
        share = active[dp_rank::dp_size]
        groups = pack(args, rollout, share)
        steps.append([collate(rollout, group, weight_of) for group in groups])
    return steps


def _sort_longest_first(samples: Samples, rollout: dict) -> None:
    def length(i: int) -> int:
        return len(rollout["tokens"][i])

    samples.sort(key=length, reverse=True)


def check_rollout(rollout: dict) -> None:
    """Raises RuntimeError for a rollout whose lists do not fit together: a defect of its maker.

    slime asserts the same when it builds them.
    """
    per_token = ["loss_masks"]
    if rollout.get("rollout_log_probs"):
        per_token.append("rollout_log_probs")
    per_sample = ["tokens", "response_lengths", "rewards", *per_token]
    samples = {name: len(rollout[name]) for name in per_sample}
    sizes = set(samples.values())
    if len(sizes) > 1:
        raise RuntimeError(f"the rollout's lists differ in length ({samples})")
    for i, response in enumerate(rollout["response_lengths"]):
        tokens = len(rollout["tokens"][i])
        entries = {}
        for name in per_token:
            values = rollout[name][i]
            entries[name] = len(values)
        is_shorter = 0 <= response < tokens
        counts = set(entries.values())
        if not is_shorter or counts != {response}:
            response_found = f"response_length {response}, entries per response token {entries}"
            found = f"{tokens} tokens, {response_found}"
            raise RuntimeError(f"sample {i} of the rollout does not fit together: {found}")


def pack(args: Namespace, rollout: dict, samples: Samples) -> list[Samples]:
    """Groups samples, longest first; padded, a group holds at most max_tokens_per_gpu tokens.

    This bounds memory only: the sums over groups are the same for every grouping.
    """
    budget = args.max_tokens_per_gpu or DEFAULT_TOKENS
    groups: list[Samples] = []
    last: Samples = []  # the last group
    longest = 0  # tokens of its first sample
    for i in samples:
        size = len(last) + 1
        padded_tokens = size * longest
        if last and padded_tokens <= budget:
            last.append(i)
        else:
            last = [i]
            groups.append(last)
            tokens = rollout["tokens"][i]
            longest = len(tokens)
    return groups


def collate(rollout: dict, samples: Samples, weight_of: dict[int, float]) -> MicroBatch:
    """Tensors of one micro-batch (`samples` longest first)."""
    tokens_of = rollout["tokens"]
    responses = rollout["response_lengths"]
    masks = rollout["loss_masks"]
    rewards = rollout["rewards"]
    log_probs_of = rollout.get("rollout_log_probs")

    size = len(samples)
    longest = tokens_of[samples[0]]
    width = len(longest) - 1  # nothing is predicted from the last token
    inputs = torch.zeros(size, width, dtype=torch.long)
    columns = []
    targets = []
    counts = []  # of unmasked tokens
    rollout_log_probs = []
    for row, i in enumerate(samples):
        tokens = torch.tensor(tokens_of[i])
        length = len(tokens)
        inputs[row, : length - 1] = tokens[:-1]
        mask = torch.tensor(masks[i])
        unmasked = mask.nonzero().squeeze(1)  # counted from the first response token
        counts.append(len(unmasked))
        prompt = length - responses[i]
        positions = prompt + unmasked
        columns.append(positions - 1)
        targets.append(tokens[positions])
        if log_probs_of:
            log_probs = torch.tensor(log_probs_of[i])
            rollout_log_probs.append(log_probs[unmasked])
    rows = torch.arange(size)
    repeats = torch.tensor(counts)
    advantages = [rewards[i] for i in samples]
    weights = [weight_of[i] for i in samples]
    return MicroBatch(
        inputs=inputs,
        rows=rows.repeat_interleave(repeats),
        columns=torch.cat(columns),
        targets=torch.cat(targets),
        advantages=repeat_for_tokens(advantages, counts),
        weights=repeat_for_tokens(weights, counts),
        rollout_log_probs=torch.cat(rollout_log_probs) if log_probs_of else None,
    )
