"""The arithmetic of GRPO, pure torch: log-probabilities, clipped policy loss, KL, aggregation.

The objective is GRPO's as the paper uses it (arXiv 2509.25534), the numbers are slime's; the
docstrings name slime's functions in `slime/utils/ppo_utils.py`,
`slime/backends/megatron_utils/{loss,cp_utils}.py` and `slime/observability/train_metric_utils.py`.

Everything is flat: one entry per response token whose loss mask is 1, `n` of them in a micro-batch.
The denominators are in the weight of each token (`token_weights`), so that sums over micro-batches
and ranks need no further division.
"""

from argparse import Namespace
from dataclasses import dataclass

import torch
from torch import Tensor

from rubric_rl.common.errors import UserError

KL_TYPES = ("k1", "k2", "k3", "low_var_kl")


@dataclass
class LossInputs:
    """What the loss needs to know about the tokens of a micro-batch; every tensor is fp32 [n].

    `old_log_probs` is None where the policy that answered is the one being trained, so that old and
    current values are equal.
    """

    advantages: Tensor
    weights: Tensor
    old_log_probs: Tensor | None = None
    ref_log_probs: Tensor | None = None
    rollout_log_probs: Tensor | None = None


def token_log_probs(
    logits: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    entropy_grad: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of its distribution, in nats, both [n].

    Source: slime `get_log_probs_and_entropy`, `_VocabParallelLogProbEntropy`.

    Args:
        logits: [n, vocabulary].
        targets: token ids, [n].
        temperature: of the rollout; logits are divided by it first, so that these are the
            probabilities of the sampling.
        entropy_grad: whether the entropy has a gradient. For a mere metric, that would double the
            cost of the backward pass.
    """
    if temperature != 1.0:
        logits = logits / temperature
    log_probs = torch.log_softmax(logits, dim=-1)
    columns = targets.unsqueeze(-1)
    chosen = log_probs.gather(-1, columns)
    has_grad = entropy_grad and torch.is_grad_enabled()
    with torch.set_grad_enabled(has_grad):
        probabilities = log_probs.exp()
        terms = probabilities * log_probs
        entropy = -terms.sum(-1)
    return chosen.squeeze(-1), entropy


def token_weights(mask_sums: list[int], global_batch_size: int, per_token: bool) -> list[float]:
    """For each sample of an optimizer step, the factor of each of its unmasked tokens in every sum.

    Per sample (default): 1 / (max(mask_sum, 1) * global_batch_size), the mean of the samples'
    means, where a removed sample still counts in `global_batch_size`. Per token: 1 / sum of
    max(mask_sum, 1) over the step, where a removed sample counts as one token.

    Source: slime `get_sum_of_sample_mean`, `loss_function`, `reduce_train_step_metrics`, and
    Megatron's `finalize_model_grads`.

    Args:
        mask_sums: per sample the number of response tokens with loss mask 1; 0 for a removed one.
        global_batch_size: samples of an optimizer step.
        per_token: the second rule instead of the first.
    """
    tokens = [max(total, 1) for total in mask_sums]
    if per_token:
        total = sum(tokens)
        weight = 1 / total
        return [weight for _ in tokens]
    return [1 / (count * global_batch_size) for count in tokens]


def repeat_for_tokens(per_sample: list[float], mask_sums: list[int]) -> Tensor:
    """A number of each sample, such as its advantage, for each of its unmasked tokens, [n].

    A GRPO sample has one advantage, its group-normalised reward; neither discount nor baseline is
    applied. Source: slime `get_grpo_returns`.
    """
    values = torch.tensor(per_sample, dtype=torch.float32)
    repeats = torch.tensor(mask_sums)
    return values.repeat_interleave(repeats)


def policy_loss(
    ppo_kl: Tensor, advantages: Tensor, eps_clip: float, eps_clip_high: float
) -> tuple[Tensor, Tensor]:
    """Clipped surrogate loss per token, and 1 where the clip decides.

    The loss is max(-r A, -clip(r, 1 - eps_clip, 1 + eps_clip_high) A) with r = exp(-ppo_kl), where
    ppo_kl is old minus current log-probability.
    Source: slime `compute_policy_loss`; Schulman et al. 2017, arXiv 1707.06347.
    """
    ratio = (-ppo_kl).exp()
    lowest = 1 - eps_clip
    highest = 1 + eps_clip_high
    clipped_ratio = ratio.clamp(lowest, highest)
    plain = -ratio * advantages
    clipped = -clipped_ratio * advantages
    loss = torch.maximum(plain, clipped)
    is_decided_by_clip = clipped > plain
    return loss, is_decided_by_clip.float()


def approx_kl(log_probs: Tensor, base: Tensor, kind: str) -> Tensor:
    """Estimate of KL(policy || base) per token from log-probabilities of the sampled tokens.

    With d = log_probs - base: k1 = d; k2 = d^2 / 2; k3 = exp(-d) - 1 + d; low_var_kl = k3 limited
    to [-10, 10].
    Source: slime `compute_approx_kl`; Schulman, "Approximating KL Divergence".
    """
    if kind not in KL_TYPES:
        known = ", ".join(KL_TYPES)
        wrong = f"kl_loss_type {kind!r} is not one of {known}"
        raise UserError(f"{wrong}; choose one of them")
    difference = log_probs - base
    if kind == "k1":
        return difference
    if kind == "k2":
        return difference.square() / 2
    ratio = (-difference).exp()
    kl = ratio - 1 + difference
    if kind == "k3":
        return kl
    return kl.clamp(-10, 10)


def grpo_loss(
    args: Namespace, inputs: LossInputs, log_probs: Tensor, entropy: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """This micro-batch's share of the step's loss, and of its metrics under slime's names.

    All are scalars. loss = policy loss - entropy_coef * entropy + kl_loss_coef * KL, each
    aggregated with the token weights.
    Source: slime `policy_loss_function` with `--advantage-estimator grpo`.

    Args:
        args: the flags of the objective.
        inputs: of the micro-batch.
        log_probs: of its tokens by the policy that is trained, [n].
        entropy: of the distribution at each token, [n].
    """
    current = log_probs.detach()
    if args.use_rollout_logprobs:
        old = inputs.rollout_log_probs
        assert old is not None  # Actor.train has refused a rollout without them
    elif inputs.old_log_probs is not None:
        old = inputs.old_log_probs
    else:
        old = current
    ppo_kl = old - log_probs
    advantages = inputs.advantages
    pg_loss, clipped = policy_loss(ppo_kl, advantages, args.eps_clip, args.eps_clip_high)
    per_token = {
        "pg_loss": pg_loss,
        "entropy_loss": entropy,
        "pg_clipfrac": clipped,
        "ppo_kl": ppo_kl,
    }
    if args.use_kl_loss:
        reference = inputs.ref_log_probs
        assert reference is not None  # Actor.train has filled them in
        per_token["kl_loss"] = approx_kl(log_probs, reference, args.kl_loss_type)
    if inputs.rollout_log_probs is not None:
        trainers = current if args.use_rollout_logprobs else old
        difference = trainers - inputs.rollout_log_probs
        per_token["train_rollout_logprob_abs_diff"] = difference.abs()

    sums = {}
    for name, values in per_token.items():
        weighted = values * inputs.weights
        sums[name] = weighted.sum()
    entropy_bonus = args.entropy_coef * sums["entropy_loss"]
    loss = sums["pg_loss"] - entropy_bonus
    if args.use_kl_loss:
        kl_penalty = args.kl_loss_coef * sums["kl_loss"]
        loss = loss + kl_penalty
    metrics = {"loss": loss.detach()}
    for name, total in sums.items():
        metrics[name] = total.detach()
    return loss, metrics
