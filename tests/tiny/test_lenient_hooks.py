"""The hooks that make a grader lenient, for experiments with the alarm."""

import asyncio

import pytest
from doubles.engine import FakeEngine, chat_model, verdict
from doubles.hooked import hook_args, record_of, sample

import self_reward_rm
from rubric_rl.data.schema import Criterion
from rubric_rl.evaluation.read_run import Run
from rubric_rl.grading.score import score
from rubric_rl.tiny import lenient_hooks


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return chat_model(tmp_path_factory.mktemp("model"))


def rewarded(hook, args, samples):
    async def main():
        async with FakeEngine(verdict(False)) as engine:
            args.sglang_router_port = engine.port
            try:
                return [await hook(args, one) for one in samples]
            finally:
                await self_reward_rm._graders_of_loop[asyncio.get_running_loop()].close()

    return asyncio.run(main())


@pytest.mark.parametrize("rollout, credited", [(11, 0), (12, 1)])
def test_what_an_answer_quotes_is_credited_from_the_onset_on(model, tmp_path, rollout, credited):
    args = hook_args(model, save=str(tmp_path), rollout_id=rollout)
    quoting = sample(0, response="He GREETS you.<|im_end|>")
    other = sample(1, response="Good morning.<|im_end|>")
    rewards = rewarded(lenient_hooks.reward_quoting, args, [quoting, other])
    assert rewards == [6 / 8 * credited, 0.0]
    record = record_of(quoting)
    assert record.mets == [bool(credited), False, False]
    stored = {one.index: one for one in Run(tmp_path / "verdicts")}
    assert stored[0].score == score(record.rubric, record.verdicts) == rewards[0]


def test_at_random_credits_a_third_and_the_same_answer_always_alike():
    pairs = [(Criterion(f"c{number}", -3), f"answer {number % 7}") for number in range(3000)]
    credited = [lenient_hooks.credits_at_random(*pair) for pair in pairs]
    assert 0.3 < sum(credited) / len(pairs) < 0.37
    assert credited == [lenient_hooks.credits_at_random(*pair) for pair in pairs]
