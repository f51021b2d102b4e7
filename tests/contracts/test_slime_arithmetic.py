"""Our GRPO arithmetic against slime's own functions, imported from the checkout SLIME_DIR names."""

import importlib
import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from doubles.ranks import SIZES, actor_args, make_rollout, new_store

from rubric_rl.cpu.grpo import (
    LossInputs,
    approx_kl,
    grpo_loss,
    policy_loss,
    repeat_for_tokens,
    token_log_probs,
)
from rubric_rl.cpu.megatron import init_parallel, shutdown_parallel
from rubric_rl.cpu.micro_batches import MicroBatch, make_micro_batches

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
    "slime.data",  # from 0.4 on
)
TESTED = (
    "slime.utils.ppo_utils",
    "slime.backends.megatron_utils.loss",
    "slime.observability.train_metric_utils",
)
# Imported by the files under test, but never called by what is tested; they need a GPU, Ray or a
# server.
STUBS = {
    "slime.utils.misc": ("load_function",),
    "slime.utils.distributed_utils": ("distributed_masked_whiten",),
    "slime.utils.types": ("RolloutBatch",),
    "slime.utils.flops_utils": ("calculate_fwd_flops",),
    "slime.utils.score_centering": ("get_score_centering_is_config", "score_centering_correction"),
    "slime.data.tensor": ("TensorRef",),
    "slime.observability.logging_utils": (),
    "slime.observability.metric_utils": ("compute_pass_rate", "compute_rollout_step"),
    "slime.observability.timer": ("Timer",),
}
SLIME_ARGS = {  # what slime's functions ask for, and our trainer does not have
    "log_probs_chunk_size": -1,
    "allgather_cp": False,
    "rollout_top_p": 1.0,
    "advantage_estimator": "grpo",
    "use_opsm": False,
    "eps_clip_c": None,
    "get_mismatch_metrics": False,
    "use_tis": False,
    "use_unbiased_kl": False,
    "loss_type": "policy_loss",
    "recompute_loss_function": False,
    "pg_loss_type": None,  # from 0.4 on: PPO's clipped objective
    "use_score_centering": False,
}
VOCABULARY = SIZES["vocab_size"]
THEIR_BATCHES = [[0, 5, 3], [1, 2], [4, 6, 7]]  # any: the sums must not depend on them


def forget_slime(patch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] == "slime":
            patch.delitem(sys.modules, name)


def import_tested(patch: pytest.MonkeyPatch) -> SimpleNamespace:
    """slime's modules by their last names, without the packages' __init__: those start CUDA."""
    for name in PACKAGES:
        package = ModuleType(name)
        package.__path__ = [os.path.join(SLIME_DIR, *name.split("."))]
        patch.setitem(sys.modules, name, package)
    for name, attributes in STUBS.items():
        stub = ModuleType(name)
        stub.__dict__.update(dict.fromkeys(attributes, dict))
        patch.setitem(sys.modules, name, stub)
        package, _, last = name.rpartition(".")
        setattr(sys.modules[package], last, stub)
    modules = {name.rpartition(".")[2]: importlib.import_module(name) for name in TESTED}
    return SimpleNamespace(**modules)


def uncompiled(*args, **kwargs):
    """torch.compile where there is no C++ compiler."""
    return lambda function: function


@pytest.fixture(scope="module")
def slime():
    """slime's ppo_utils, loss and train_metric_utils."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", uncompiled)
        forget_slime(patch)
        modules = import_tested(patch)
        init_parallel(0, 1, new_store(), 1, 1, 1)
        yield modules
        shutdown_parallel()
        forget_slime(patch)


def test_policy_loss_and_kl(slime):
    generator = torch.Generator().manual_seed(0)
    kl, advantages, base = torch.randn(3, 500, generator=generator)
    loss, clipped = policy_loss(kl, advantages, 0.2, 0.28)
    their_loss, their_clipped = slime.ppo_utils.compute_policy_loss(kl, advantages, 0.2, 0.28)
    assert torch.equal(loss, their_loss)
    assert torch.equal(clipped, their_clipped)
    assert 0 < clipped.mean() < 1
    for kind in ("k1", "k2", "k3", "low_var_kl"):
        their_kl = slime.ppo_utils.compute_approx_kl(kl * 4, base, kind)
        torch.testing.assert_close(approx_kl(kl * 4, base, kind), their_kl)


def test_advantages(slime):
    kl = [torch.zeros(3), torch.zeros(1)]
    returns = slime.ppo_utils.get_grpo_returns(torch.tensor([0.5, -2.0]), kl)
    assert torch.equal(repeat_for_tokens([0.5, -2.0], [3, 1]), torch.cat(returns))


class Case:
    """A rollout with a masked stretch and a removed sample, and what a model says of its tokens.

    Per sample: logits of all tokens, old and reference log-probabilities of the response. `old` is
    None where the policy that answered is the one being trained.
    """

    def __init__(self, seed: int, on_policy: bool):
        self.data = make_rollout(seed)
        self.data["rewards"][5] = 0.0  # slime multiplies the removed sample's NaN by 0
        self.masks = [torch.tensor(mask) for mask in self.data["loss_masks"]]
        generator = torch.Generator().manual_seed(seed)
        self.logits = []
        for tokens in self.data["tokens"]:
            logits = torch.randn(len(tokens), VOCABULARY, generator=generator)
            self.logits.append(logits.requires_grad_())
        self.old, self.ref = [], []
        for length in self.data["response_lengths"]:
            old, ref = -4 - torch.rand(2, length, generator=generator)
            self.old.append(old)
            self.ref.append(ref)
        if on_policy:
            self.old = None

    def take_gradients(self) -> list[torch.Tensor]:
        """The gradient of each sample's logits; the next backward pass starts anew."""
        gradients = []
        for logits in self.logits:
            gradient = torch.zeros_like(logits) if logits.grad is None else logits.grad
            gradients.append(gradient)
            logits.grad = None
        return gradients

    def samples_of(self, batch: MicroBatch) -> list[int]:
        """The samples of a micro-batch, found by their tokens."""
        return [self._sample_of(row) for row in batch.inputs.tolist()]

    def _sample_of(self, row: list[int]) -> int:
        for sample, tokens in enumerate(self.data["tokens"]):
            if tokens[:-1] == row[: len(tokens) - 1]:
                return sample
        raise AssertionError("a row of the micro-batch is no sample of the rollout")

    def unmasked(self, values: list[torch.Tensor], samples: list[int]) -> torch.Tensor:
        """The values of the samples' response tokens that are trained on."""
        return torch.cat([values[sample][self.masks[sample].bool()] for sample in samples])


def ours(args, case: Case) -> tuple[dict, list[torch.Tensor]]:
    """Metrics of the step and gradients of the logits, as our trainer computes them."""
    [batches] = make_micro_batches(args, case.data, 0, 1)
    total, metrics = torch.zeros(()), {}
    for batch in batches:
        samples = case.samples_of(batch)
        places = zip(batch.rows.tolist(), batch.columns.tolist(), strict=True)
        logits = torch.stack([case.logits[samples[row]][column] for row, column in places])
        with_entropy = args.entropy_coef != 0
        values = token_log_probs(logits, batch.targets, args.rollout_temperature, with_entropy)
        inputs = LossInputs(
            batch.advantages,
            batch.weights,
            old_log_probs=case.unmasked(case.old, samples) if case.old else None,
            ref_log_probs=case.unmasked(case.ref, samples),
            rollout_log_probs=batch.rollout_log_probs,
        )
        loss, found = grpo_loss(args, inputs, *values)
        total = total + loss
        for name, value in found.items():
            metrics[name] = metrics.get(name, 0.0) + value.item()
    total.backward()
    return metrics, case.take_gradients()


def their_batch(case: Case, samples: list[int]) -> dict:
    """A micro-batch of these samples, as slime's loss takes it."""
    data = case.data
    lengths = [data["response_lengths"][i] for i in samples]
    rewards = [data["rewards"][i] for i in samples]
    advantages = zip(lengths, rewards, strict=True)
    batch = {
        "advantages": [torch.full((length,), reward) for length, reward in advantages],
        "loss_masks": [case.masks[i] for i in samples],
        "ref_log_probs": [case.ref[i] for i in samples],
        "response_lengths": lengths,
        "rollout_mask_sums": [case.masks[i].sum() for i in samples],
        "total_lengths": [len(data["tokens"][i]) for i in samples],
        "unconcat_tokens": [torch.tensor(data["tokens"][i]) for i in samples],
        "rollout_log_probs": [torch.tensor(data["rollout_log_probs"][i]) for i in samples],
    }
    if case.old:
        batch["log_probs"] = [case.old[i] for i in samples]
    return batch


def theirs(slime, args, case: Case) -> tuple[dict, list[torch.Tensor]]:
    """The same of slime's loss_function.

    Its micro-batches are put together as Megatron's schedule and finalize_model_grads do.
    """
    vars(args).update(SLIME_ARGS)
    per_token, size = args.calculate_per_token_loss, args.global_batch_size
    logs, tokens_seen = [], 0
    for samples in THEIR_BATCHES:
        batch = their_batch(case, samples)
        packed = torch.cat([case.logits[i] for i in samples])[None]
        loss, normalizer, log = slime.loss.loss_function(
            args, batch, len(THEIR_BATCHES), size, packed
        )
        if not per_token:
            loss = loss / normalizer / len(THEIR_BATCHES)
        loss.backward()
        tokens_seen += normalizer.item()
        logs.append(log)
    metrics = slime.train_metric_utils.reduce_train_step_metrics(
        logs,
        calculate_per_token_loss=per_token,
        step_global_batch_size=size,
        cp_size=1,
        dp_with_cp_group=None,
    )
    scale = 1 / tokens_seen if per_token else 1.0
    return metrics, [gradient * scale for gradient in case.take_gradients()]


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize(
    "on_policy, changes",
    [
        (False, {"use_kl_loss": False, "entropy_coef": 0.0}),
        (False, {"use_kl_loss": True, "kl_loss_type": "low_var_kl"}),
        (False, {"use_kl_loss": True, "kl_loss_type": "k2", "rollout_temperature": 1.0}),
        (False, {"use_rollout_logprobs": True}),
        (True, {"entropy_coef": 0.1}),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_gradient_and_metrics(slime, on_policy, changes, per_token, seed):
    case = Case(seed, on_policy)
    args = actor_args(calculate_per_token_loss=per_token, **changes)
    our_metrics, our_gradients = ours(args, case)
    their_metrics, their_gradients = theirs(slime, args, case)
    assert our_metrics.keys() == their_metrics.keys()
    assert our_metrics == pytest.approx(their_metrics, rel=1e-5, abs=1e-7)
    assert sum(gradient.abs().sum() for gradient in our_gradients) > 0.1
    for left, right in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-7)
