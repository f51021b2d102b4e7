"""Cuts a rollout into optimizer steps, data-parallel shares and padded micro-batches."""

from argparse import Namespace
from dataclasses import dataclass

import torch

from rubric_rl.common.errors import UserError
from rubric_rl.cpu.grpo import LossInputs, repeat_for_tokens, token_weights

# Padded tokens per micro-batch: larger ones cost memory and are no faster on a CPU.
DEFAULT_TOKENS = 1024


@dataclass(kw_only=True)
class MicroBatch(LossInputs):
    """Samples of similar length.

    The actor fills in `old_log_probs` and `ref_log_probs` when it needs them. `inputs` is
    [samples, length], padded on the right with 0. Of the n response tokens with loss mask 1,
    targets[i] is predicted by the logits at (rows[i], columns[i]).
    """

    inputs: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    targets: torch.Tensor


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
    tokens = rollout["tokens"]
    step_size = args.global_batch_size
    if len(tokens) < step_size:
        raise UserError(
            f"the rollout has {len(tokens)} samples, global_batch_size is {step_size}; "
            "lower it or sample more"
        )
    mask_sums = [sum(mask) for mask in rollout["loss_masks"]]
    steps = []
    for start in range(0, len(tokens) - step_size + 1, step_size):
        end = start + step_size
        samples = range(start, end)
        weights = token_weights(mask_sums[start:end], step_size, args.calculate_per_token_loss)
        weight_of = dict(zip(samples, weights, strict=True))
        active = [i for i in samples if mask_sums[i] > 0]
        longest_first = sorted(active, key=lambda i: len(tokens[i]), reverse=True)
        # Neighbours in length go to different ranks: equal work without a search.
        share = longest_first[dp_rank::dp_size]
        groups = pack(args, rollout, share)
        steps.append([collate(rollout, group, weight_of) for group in groups])
    return steps


def check_rollout(rollout: dict) -> None:
    """Raises RuntimeError for a rollout whose lists do not fit together: a defect of its maker.

    slime asserts the same when it builds them.
    """
    per_token = ["loss_masks"]
    if rollout.get("rollout_log_probs"):
        per_token.append("rollout_log_probs")
    per_sample = ["tokens", "response_lengths", "rewards", *per_token]
    samples = {name: len(rollout[name]) for name in per_sample}
    if len(set(samples.values())) != 1:
        raise RuntimeError(f"the rollout's lists differ in length ({samples})")
    for i, response in enumerate(rollout["response_lengths"]):
        tokens = len(rollout["tokens"][i])
        entries = {name: len(rollout[name][i]) for name in per_token}
        fitting = set(entries.values()) == {response}
        if not 0 <= response < tokens or not fitting:
            raise RuntimeError(
                f"sample {i} of the rollout does not fit together: {tokens} tokens, "
                f"response_length {response}, entries per response token {entries}"
            )


def pack(args: Namespace, rollout: dict, samples: list[int]) -> list[list[int]]:
    """Groups samples, longest first; padded, a group holds at most max_tokens_per_gpu tokens.

    This bounds memory only: the sums over groups are the same for every grouping.
    """
    budget = args.max_tokens_per_gpu or DEFAULT_TOKENS
    groups: list[list[int]] = []
    longest = 0  # tokens of the last group's first sample
    for i in samples:
        last = groups[-1] if groups else []
        padded_tokens = (len(last) + 1) * longest
        if last and padded_tokens <= budget:
            last.append(i)
        else:
            groups.append([i])
            longest = len(rollout["tokens"][i])
    return groups


def collate(rollout: dict, samples: list[int], weight_of: dict[int, float]) -> MicroBatch:
    """Tensors of one micro-batch (`samples` longest first)."""
    tokens_of = rollout["tokens"]
    responses = rollout["response_lengths"]
    masks = rollout["loss_masks"]
    log_probs_of = rollout.get("rollout_log_probs")

    longest = samples[0]
    width = len(tokens_of[longest]) - 1  # nothing is predicted from the last token
    inputs = torch.zeros(len(samples), width, dtype=torch.long)
    columns = []
    targets = []
    counts = []  # of unmasked tokens
    rollout_log_probs = []
    for row, i in enumerate(samples):
        tokens = torch.tensor(tokens_of[i])
        length = len(tokens)
        inputs[row, : length - 1] = tokens[:-1]
        prompt = length - responses[i]
        # Counted from the first response token.
        unmasked = torch.tensor(masks[i]).nonzero().squeeze(1)
        counts.append(len(unmasked))
        columns.append(prompt - 1 + unmasked)
        targets.append(tokens[prompt + unmasked])
        if log_probs_of:
            log_probs = torch.tensor(log_probs_of[i])
            rollout_log_probs.append(log_probs[unmasked])
    rows = torch.arange(len(samples))
    advantages = [rollout["rewards"][i] for i in samples]
    weights = [weight_of[i] for i in samples]
    return MicroBatch(
        inputs=inputs,
        rows=rows.repeat_interleave(torch.tensor(counts)),
        columns=torch.cat(columns),
        targets=torch.cat(targets),
        advantages=repeat_for_tokens(advantages, counts),
        weights=repeat_for_tokens(weights, counts),
        rollout_log_probs=torch.cat(rollout_log_probs) if log_probs_of else None,
    )
