"""Our GRPO arithmetic against slime's own functions, run from a checkout named by SLIME_DIR (stage 5)."""

import importlib
import os
import sys
from types import ModuleType

import pytest
import torch
from doubles.ranks import actor_args, make_rollout, new_store

from rubric_rl.cpu.grpo import (
    LossInputs,
    approx_kl,
    grpo_loss,
    policy_loss,
    repeat_for_tokens,
    token_log_probs,
)
from rubric_rl.cpu.megatron import init_parallel, shutdown_parallel
from rubric_rl.cpu.micro_batches import make_micro_batches

SLIME_DIR = os.environ.get("SLIME_DIR")
pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(not SLIME_DIR, reason="SLIME_DIR does not name a checkout of slime"),
]
PACKAGES = (
    "slime",
    "slime.utils",
    "slime.backends",
    "slime.backends.megatron_utils",
    "slime.observability",
)
TESTED = (
    "slime.utils.ppo_utils",
    "slime.backends.megatron_utils.loss",
    "slime.observability.train_metric_utils",
)
STUBS = {  # imported by the files under test, but never called by what is tested; they need a GPU, Ray or a server
    "slime.utils.misc": ("load_function",),
    "slime.utils.distributed_utils": ("distributed_masked_whiten",),
    "slime.utils.types": ("RolloutBatch",),
    "slime.utils.flops_utils": ("calculate_fwd_flops",),
    "slime.observability.logging_utils": (),
    "slime.observability.metric_utils": ("compute_pass_rate", "compute_rollout_step"),
    "slime.observability.timer": ("Timer",),
}
ARGS = dict(
    log_probs_chunk_size=-1, allgather_cp=False, rollout_top_p=1.0, advantage_estimator="grpo", use_opsm=False,
    eps_clip_c=None, get_mismatch_metrics=False, use_tis=False, use_unbiased_kl=False, loss_type="policy_loss",
    recompute_loss_function=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def slime():
    """slime's modules ppo_utils, loss, train_metric_utils, without the packages' __init__ (they start CUDA)."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if name.split(".")[0] == "slime"]:
            patch.delitem(sys.modules, name)
        for name in PACKAGES:
            package = ModuleType(name)
            package.__path__ = [os.path.join(SLIME_DIR, *name.split("."))]
            patch.setitem(sys.modules, name, package)
        for name, attributes in STUBS.items():
            stub = ModuleType(name)
            stub.__dict__.update(dict.fromkeys(attributes, dict))
            patch.setitem(sys.modules, name, stub)
            setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], stub)
        patch.setattr(
            torch, "compile", lambda *args, **kwargs: lambda function: function
        )  # no C++ compiler needed
        loaded = [importlib.import_module(name) for name in TESTED]
        init_parallel(0, 1, new_store(), 1, 1, 1)
        yield loaded
        shutdown_parallel()
        for name in [name for name in sys.modules if name.split(".")[0] == "slime"]:
            patch.delitem(sys.modules, name)


def test_policy_loss_and_kl(slime):
    generator = torch.Generator().manual_seed(0)
    kl, advantages, base = torch.randn(3, 500, generator=generator)
    ours, theirs = (
        policy_loss(kl, advantages, 0.2, 0.28),
        slime[0].compute_policy_loss(kl, advantages, 0.2, 0.28),
    )
    assert all(torch.equal(left, right) for left, right in zip(ours, theirs, strict=True))
    assert 0 < ours[1].mean() < 1
    for kind in ("k1", "k2", "k3", "low_var_kl"):
        torch.testing.assert_close(
            approx_kl(kl * 4, base, kind), slime[0].compute_approx_kl(kl * 4, base, kind)
        )


def test_advantages(slime):
    kl = [torch.zeros(3), torch.zeros(1)]
    theirs = torch.cat(slime[0].get_grpo_returns(torch.tensor([0.5, -2.0]), kl))
    assert torch.equal(repeat_for_tokens([0.5, -2.0], [3, 1]), theirs)


def case(seed):
    """A rollout with a masked stretch and a removed sample, and logits, old and reference values for its tokens."""
    data = make_rollout(seed)
    data["rewards"][5] = 0.0  # slime multiplies the removed sample's NaN by 0
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(len(tokens), 101, generator=generator) for tokens in data["tokens"]]
    sample = [
        -4 - torch.rand(2, length, generator=generator) for length in data["response_lengths"]
    ]
    return data, logits, [x[0] for x in sample], [x[1] for x in sample]


def ours(args, data, logits, old, ref):
    logits = [x.clone().requires_grad_() for x in logits]
    active = lambda values, i: values[i][torch.tensor(data["loss_masks"][i]).bool()]  # noqa: E731
    [batches] = make_micro_batches(args, data, 0, 1)
    total, metrics = 0.0, {}
    for batch in batches:
        rows = batch.inputs.tolist()
        order = [
            next(i for i, x in enumerate(data["tokens"]) if x[:-1] == row[: len(x) - 1])
            for row in rows
        ]
        picked = torch.stack(
            [logits[order[r]][c] for r, c in zip(batch.rows, batch.columns, strict=True)]
        )
        values = token_log_probs(
            picked, batch.targets, args.rollout_temperature, args.entropy_coef != 0
        )
        tokens = LossInputs(
            batch.advantages, batch.weights, torch.cat([active(old, i) for i in order]) if old else None,
            torch.cat([active(ref, i) for i in order]), batch.rollout_log_probs,
        )  # fmt: skip
        loss, found = grpo_loss(args, tokens, *values)
        total = total + loss
        metrics = {name: metrics.get(name, 0.0) + value.item() for name, value in found.items()}
    total.backward()
    return metrics, [x.grad if x.grad is not None else torch.zeros_like(x) for x in logits]


def theirs(slime, args, data, logits, old, ref, groups):
    """slime's loss_function for each micro-batch, put together as Megatron's schedule and finalize_model_grads do."""
    vars(args).update(ARGS)
    logits = [x.clone().requires_grad_() for x in logits]
    pick = lambda values, group: [values[i] for i in group]  # noqa: E731
    masks = [torch.tensor(mask) for mask in data["loss_masks"]]
    advantages = [
        torch.full((n,), r) for n, r in zip(data["response_lengths"], data["rewards"], strict=True)
    ]
    logs, tokens_seen = [], 0
    for group in groups:
        batch = {
            "advantages": pick(advantages, group), "loss_masks": pick(masks, group), "ref_log_probs": pick(ref, group),
            "response_lengths": pick(data["response_lengths"], group),
            "rollout_mask_sums": [masks[i].sum() for i in group],
            "total_lengths": [len(data["tokens"][i]) for i in group],
            "unconcat_tokens": [torch.tensor(data["tokens"][i]) for i in group],
            "rollout_log_probs": [torch.tensor(data["rollout_log_probs"][i]) for i in group],
        }  # fmt: skip
        if old:
            batch["log_probs"] = pick(old, group)
        packed = torch.cat(pick(logits, group))[None]
        loss, normalizer, log = slime[1].loss_function(
            args, batch, len(groups), args.global_batch_size, packed
        )
        (loss if args.calculate_per_token_loss else loss / normalizer / len(groups)).backward()
        tokens_seen += normalizer.item()
        logs.append(log)
    metrics = slime[2].reduce_train_step_metrics(
        logs, calculate_per_token_loss=args.calculate_per_token_loss, step_global_batch_size=args.global_batch_size,
        cp_size=1, dp_with_cp_group=None,
    )  # fmt: skip
    scale = 1 / tokens_seen if args.calculate_per_token_loss else 1.0
    return metrics, [x.grad * scale for x in logits]


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        dict(use_kl_loss=False, entropy_coef=0.0),
        dict(use_kl_loss=True, kl_loss_type="low_var_kl"),
        dict(use_kl_loss=True, kl_loss_type="k2", rollout_temperature=1.0),
        dict(use_rollout_logprobs=True),
        dict(on_policy=True, entropy_coef=0.1),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_gradient_and_metrics(slime, changes, per_token, seed):
    changes = dict(changes)
    data, logits, old, ref = case(seed)
    if changes.pop("on_policy", False):
        old = None
    args = actor_args(calculate_per_token_loss=per_token, **changes)
    our_metrics, our_gradients = ours(args, data, logits, old, ref)
    their_metrics, their_gradients = theirs(
        slime, args, data, logits, old, ref, [[0, 5, 3], [1, 2], [4, 6, 7]]
    )
    assert our_metrics.keys() == their_metrics.keys()
    assert our_metrics == pytest.approx(their_metrics, rel=1e-5, abs=1e-7)
    assert sum(gradient.abs().sum() for gradient in our_gradients) > 0.1
    for left, right in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-7)
