"""GRPO's arithmetic against cases computed by hand, and its laws."""

import math

import pytest
import torch
from doubles.ranks import actor_args, make_rollout
from hypothesis import given, settings
from hypothesis import strategies as st

from rubric_rl.common.errors import UserError
from rubric_rl.cpu.grpo import (
    LossInputs,
    approx_kl,
    grpo_loss,
    policy_loss,
    repeat_for_tokens,
    token_log_probs,
    token_weights,
)
from rubric_rl.cpu.micro_batches import check_rollout, make_micro_batches, pack
from rubric_rl.cpu.optimizer import build_optimizer, build_scheduler

FINITE = st.floats(-3, 3, allow_nan=False, width=32)


def close(found, expected):
    torch.testing.assert_close(torch.as_tensor(found), torch.tensor(expected), rtol=1e-5, atol=1e-6)


def loss_args(**changes):
    return actor_args(**({"entropy_coef": 0.0} | changes))


def test_log_probs_and_entropy_at_a_temperature():
    logits = torch.tensor([[0.0, math.log(4.0)]])  # at T 0.5 the odds are 16 : 1, at T 1 4 : 1
    log_prob, entropy = token_log_probs(logits, torch.tensor([1]), 0.5)
    close(log_prob, [math.log(16 / 17)])
    likely, rare = 16 / 17, 1 / 17
    close(entropy, [-likely * math.log(likely) - rare * math.log(rare)])
    close(token_log_probs(logits, torch.tensor([0]))[0], [math.log(0.2)])


def test_entropy_has_a_gradient_only_on_request():
    logits = torch.randn(3, 5, requires_grad=True)
    assert not token_log_probs(logits, torch.tensor([0, 1, 2]))[1].requires_grad
    assert token_log_probs(logits, torch.tensor([0, 1, 2]), entropy_grad=True)[1].requires_grad


@pytest.mark.parametrize(
    "ratio,advantage,loss,clipped",
    [
        (1.1, 2.0, -2.2, 0),  # inside the clip range
        (1.5, 2.0, -1.28 * 2, 1),  # a good token, already much likelier: no more gain
        (0.5, 2.0, -1.0, 0),  # a good token that became rare: full gradient
        (0.5, -2.0, 1.6, 1),  # a bad token, already much rarer
        (1.5, -2.0, 3.0, 0),  # a bad token that became likely: full gradient
    ],
)
def test_policy_loss_by_hand(ratio, advantage, loss, clipped):
    found, fraction = policy_loss(
        torch.tensor([-math.log(ratio)]), torch.tensor([advantage]), 0.2, 0.28
    )
    close(found, [loss])
    close(fraction, [float(clipped)])


@pytest.mark.parametrize(
    "kind,expected",
    [
        ("k1", 0.5),
        ("k2", 0.125),
        ("k3", math.exp(-0.5) - 0.5),
        ("low_var_kl", math.exp(-0.5) - 0.5),
    ],
)
def test_kl_by_hand(kind, expected):
    close(approx_kl(torch.tensor([-1.0]), torch.tensor([-1.5]), kind), [expected])


def test_only_low_var_kl_is_limited():
    far = torch.tensor([-10.0]), torch.tensor([-1.0])
    assert approx_kl(*far, "low_var_kl").item() == 10
    close(approx_kl(*far, "k3"), [math.exp(9) - 1 - 9])
    with pytest.raises(UserError, match="'k4' is not one of k1, k2, k3, low_var_kl"):
        approx_kl(*far, "k4")


def test_weights_per_sample_and_per_token():
    # 3 tokens, a removed sample, 1 token. The removed one counts in the batch size (per sample) or
    # as one token.
    assert token_weights([3, 0, 1], 3, per_token=False) == [1 / 9, 1 / 3, 1 / 3]
    assert token_weights([3, 0, 1], 3, per_token=True) == [1 / 5] * 3


def test_advantages_are_repeated_for_each_unmasked_token():
    assert repeat_for_tokens([0.5, float("nan"), -1.0], [2, 0, 1]).tolist() == [0.5, 0.5, -1.0]


def test_the_whole_loss_by_hand():
    log_probs, entropy = torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([1.0, 2.0, 3.0])
    batch = LossInputs(
        advantages=torch.tensor([1.0, 1.0, -1.0]),
        weights=torch.tensor([0.25, 0.25, 0.5]),  # two samples, of 2 tokens and 1
        old_log_probs=torch.tensor([-1.1, -2.0, -0.5]),
        ref_log_probs=torch.tensor([-1.0, -3.0, -0.5]),
        rollout_log_probs=torch.tensor([-1.3, -2.0, -0.5]),
    )
    args = loss_args(entropy_coef=0.1, use_kl_loss=True, kl_loss_coef=0.5, kl_loss_type="k1")
    loss, metrics = grpo_loss(args, batch, log_probs, entropy)
    policy = -math.exp(0.1) * 0.25 - 0.25 + 0.5
    expected = {
        "pg_loss": policy,
        "entropy_loss": 2.25,
        "kl_loss": 0.25,
        "ppo_kl": -0.1 * 0.25,
        "pg_clipfrac": 0.0,
    }
    expected |= {
        "train_rollout_logprob_abs_diff": 0.2 * 0.25,
        "loss": policy - 0.1 * 2.25 + 0.5 * 0.25,
    }
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        close(metrics[name], value)
    close(loss, expected["loss"])


def test_without_old_log_probs_the_ratio_is_one_and_the_gradient_is_the_policy_gradient():
    log_probs = torch.tensor([-1.0, -2.0], requires_grad=True)
    batch = LossInputs(torch.tensor([2.0, -1.0]), torch.tensor([0.5, 0.5]))
    loss, metrics = grpo_loss(loss_args(), batch, log_probs, torch.zeros(2))
    loss.backward()
    assert (
        log_probs.grad.tolist() == [-1.0, 0.5]
        and metrics["ppo_kl"] == 0
        and metrics["pg_loss"] == -0.5
    )


def test_use_rollout_logprobs_takes_the_engines_values_as_old():
    log_probs, rollout = torch.tensor([-1.0]), torch.tensor([-1.1])
    batch = LossInputs(
        torch.tensor([1.0]), torch.tensor([1.0]), torch.tensor([-9.0]), None, rollout
    )
    metrics = grpo_loss(loss_args(use_rollout_logprobs=True), batch, log_probs, torch.zeros(1))[1]
    close(metrics["ppo_kl"], -0.1)
    close(metrics["train_rollout_logprob_abs_diff"], 0.1)


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=20))
def test_the_clipped_loss_is_never_below_the_plain_one_and_bounded_for_good_tokens(tokens):
    kl, advantages = torch.tensor(tokens).unbind(1)
    loss, fraction = policy_loss(kl, advantages, 0.2, 0.28)
    assert (loss >= -(-kl).exp() * advantages - 1e-5).all()
    assert (loss >= -1.28 * advantages - 1e-5)[advantages >= 0].all()
    assert set(fraction.tolist()) <= {0.0, 1.0}
    assert (fraction[((-kl).exp() > 0.81) & ((-kl).exp() < 1.27)] == 0).all()


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=20))
def test_k2_and_k3_are_never_negative_and_all_vanish_on_equal_policies(tokens):
    left, right = torch.tensor(tokens).unbind(1)
    for kind in ("k2", "k3", "low_var_kl"):
        assert (approx_kl(left, right, kind) >= -1e-6).all()
    for kind in ("k1", "k2", "k3", "low_var_kl"):
        assert (approx_kl(left, left, kind) == 0).all()


@given(st.integers(1, 9), st.integers(1, 30))
def test_per_sample_and_per_token_agree_when_lengths_are_equal(samples, length):
    sums = [length] * samples
    per_sample, per_token = token_weights(sums, samples, False), token_weights(sums, samples, True)
    assert per_sample == pytest.approx(per_token)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_weights_sum_to_the_share_that_is_not_removed(sums):
    kept = sum(total > 0 for total in sums)
    per_sample = sum(
        w * total for w, total in zip(token_weights(sums, len(sums), False), sums, strict=True)
    )
    assert per_sample == pytest.approx(kept / len(sums))
    per_token = sum(
        w * total for w, total in zip(token_weights(sums, len(sums), True), sums, strict=True)
    )
    assert per_token == pytest.approx(sum(sums) / (sum(sums) + len(sums) - kept))


def sample_in(inputs: list[int], data: dict) -> int:
    """Which sample of the rollout a row of inputs holds."""
    found = []
    for number, tokens in enumerate(data["tokens"]):
        if inputs[: len(tokens) - 1] == tokens[:-1]:
            found.append(number)
    [sample] = found
    return sample


def test_micro_batches_point_at_the_right_tokens():
    data = make_rollout()
    seen = {}
    for rank in range(2):
        [step] = make_micro_batches(actor_args(), data, rank, 2)
        for batch in step:
            assert batch.inputs.numel() <= 64
            for row in range(len(batch.inputs)):
                sample = sample_in(batch.inputs[row].tolist(), data)
                mine = batch.rows == row
                seen[sample] = (
                    batch.columns[mine].tolist(),
                    batch.targets[mine].tolist(),
                    batch.weights[mine].tolist(),
                )
    assert sorted(seen) == [0, 1, 2, 3, 4, 6, 7]  # the removed sample 5 needs no forward pass
    for sample, (columns, targets, weights) in seen.items():
        tokens, mask = data["tokens"][sample], data["loss_masks"][sample]
        prompt = len(tokens) - data["response_lengths"][sample]
        kept = [j for j, bit in enumerate(mask) if bit]
        assert columns == [prompt - 1 + j for j in kept] and targets == [
            tokens[prompt + j] for j in kept
        ]
        assert weights == pytest.approx([1 / len(kept) / 8] * len(kept))


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 200), st.integers(0, 5))
def test_every_sample_is_trained_once_whatever_the_cut(ranks, budget, seed):
    data = make_rollout(seed, count=9)  # one more than the steps take: dropped, as in slime
    args = actor_args(global_batch_size=4, max_tokens_per_gpu=budget)
    shares = [make_micro_batches(args, data, rank, ranks) for rank in range(ranks)]
    assert {len(share) for share in shares} == {2}
    targets = sorted(
        t for share in shares for step in share for batch in step for t in batch.targets.tolist()
    )
    expected = []
    for i in range(8):
        response = data["tokens"][i][-data["response_lengths"][i] :]
        expected += [
            token for token, bit in zip(response, data["loss_masks"][i], strict=True) if bit
        ]
    assert targets == sorted(expected)


def test_a_group_never_exceeds_the_budget_unless_one_sample_does():
    data = {"tokens": [[0] * n for n in (50, 30, 20, 20, 10, 10)]}
    groups = pack(actor_args(max_tokens_per_gpu=60), data, [0, 1, 2, 3, 4, 5])
    assert groups == [[0], [1, 2], [3, 4, 5]]
    assert pack(actor_args(max_tokens_per_gpu=1), data, [0, 1]) == [[0], [1]]


def test_a_rollout_smaller_than_a_step_is_refused():
    with pytest.raises(UserError, match="8 samples, global_batch_size is 9"):
        make_micro_batches(actor_args(global_batch_size=9), make_rollout(), 0, 1)


def test_a_rollout_that_does_not_fit_together_is_a_defect_and_not_the_users_mistake():
    rollout = make_rollout()
    wrong = rollout | {"response_lengths": [*rollout["response_lengths"]]}
    wrong["response_lengths"][3] = 99
    cases = [
        (wrong, "sample 3 of the rollout"),
        (rollout | {"rollout_log_probs": [[-1.0]] * 8}, "sample 0 of the rollout"),
        (rollout | {"rewards": [0.0]}, "differ in length"),
    ]
    for case, said in cases:
        with pytest.raises(RuntimeError, match=said) as raised:
            check_rollout(case)
        assert not isinstance(raised.value, UserError)


def rates(steps, **changes):
    """The learning rate of each step.

    For groups of 4 x 2 samples in steps of 8 and a run of 10 steps.
    """
    args = actor_args(lr=1.0, min_lr=0.1, **changes)
    scheduler = build_scheduler(args, build_optimizer(args, torch.nn.Linear(2, 2)))
    found = []
    for _ in range(steps):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.step(increment=8)
    return found


def test_learning_rates_by_hand():
    assert rates(3) == [1.0, 1.0, 1.0]
    assert rates(6, lr_warmup_iters=4) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates(12, lr_decay_style="linear")[::5] == pytest.approx([1.0, 0.55, 0.1])
    cosine = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(9)]
    assert rates(12, lr_decay_style="cosine", lr_warmup_iters=2)[2:] == pytest.approx(
        [*cosine, 0.1]
    )
    assert rates(5, lr_decay_style="linear", lr_decay_iters=4)[4] == pytest.approx(0.1)


def test_a_warm_up_as_long_as_the_run_is_refused():
    with pytest.raises(
        UserError,
        match="--lr-warmup-iters: 10 optimizer steps of warm-up are not below the run's 10",
    ):
        rates(1, lr_warmup_iters=10)


def test_norms_and_biases_have_no_weight_decay():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    optimizer = build_optimizer(actor_args(), model)
    build_scheduler(actor_args(), optimizer)
    assert [(len(g["params"]), g["weight_decay"]) for g in optimizer.param_groups] == [
        (1, 0.1),
        (3, 0.0),
    ]
