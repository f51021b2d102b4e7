"""The probe: the policy judges labelled rows once per evaluation, whoever grades."""

import asyncio
import math
from argparse import Namespace
from pathlib import Path

import pytest
from doubles.engine import Fail, FakeEngine, Say, chat_model, verdict
from doubles.hooked import hook_args, sample

import self_reward_rm as hooks
from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.serving.question import Aborted
from rubric_rl.trust.evaluations import stored

ROWS = 6  # of three prompts; the even ones are labelled met


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def args(model, tmp_path) -> Namespace:
    rows = []
    for number in range(ROWS):
        row = {
            "prompt_id": f"q{number // 2}",
            "prompt": [{"role": "user", "content": "PROBE"}],
            "completion": "An answer.",
            "rubric": f"Criterion {number}.",
            "category": "c",
            "binary_labels": [number % 2 == 0],
        }
        rows.append(row)
    write_jsonl(tmp_path / "probe.jsonl", rows)
    save = str(tmp_path / "run")
    return hook_args(model, save=save, grader_probe=str(tmp_path / "probe.jsonl"), rollout_id=0)


def evaluated(engine: FakeEngine, args, number: int = 4, weights: str = "0", **of_set) -> dict:
    """What an evaluation logs: the reward hook on samples at once, then the log hook."""

    async def main():
        async with engine:
            args.sglang_router_port = engine.port
            samples = [
                sample(index, group=None, weight_versions=[weights]) for index in range(number)
            ]
            try:
                calls = [hooks.reward(args, one) for one in samples]
                rewards = await asyncio.gather(*calls)
            finally:
                await hooks._graders_of_loop[asyncio.get_running_loop()].close()
            return {"held": {"rewards": rewards, "samples": samples}}

    metrics: dict = {}
    hooks.log_eval(args.rollout_id, args, asyncio.run(main()), metrics)
    return metrics


def probe_prompts(engine: FakeEngine) -> list[str]:
    return [prompt for prompt in engine.prompts if "PROBE" in prompt]


def even(prompt: str) -> Say:
    """Met where the number of the probe's criterion is even."""
    return verdict(any(f"Criterion {number}." in prompt for number in (0, 2, 4)))


def test_is_asked_once_per_evaluation_and_logged(args):
    engine = FakeEngine(even)
    metrics = evaluated(engine, args)
    assert len(probe_prompts(engine)) == ROWS
    assert metrics["eval/probe/accuracy"] == metrics["eval/probe/kappa"] == 1.0
    assert metrics["eval/probe/false_positive_rate"] == 0.0
    assert metrics["eval/probe/tokens_prefilled"] > 0


def asked_in_turn(args, *steps: tuple[int, list]) -> int:
    """How many rows are judged, where the answers of each step are rewarded at a rollout."""
    engine = FakeEngine(even)

    async def main():
        async with engine:
            args.sglang_router_port = engine.port
            for rollout, samples in steps:
                args.rollout_id = rollout
                await asyncio.gather(*(hooks.reward(args, one) for one in samples))
            await hooks._graders_of_loop[asyncio.get_running_loop()].close()

    asyncio.run(main())
    return len(probe_prompts(engine))


def held_out(*weights: str) -> list:
    """Answers of an evaluation, by engines with these weights; "": by one that names none."""
    versions = [[version] if version else [] for version in weights]
    return [sample(n, group=None, weight_versions=each) for n, each in enumerate(versions)]


def test_engines_that_tell_other_versions_bring_no_second_one(args):
    assert asked_in_turn(args, (5, held_out("", "3", "", "4", "3"))) == ROWS


def test_each_evaluation_has_its_own_also_the_two_of_rollout_0(args):
    steps = [(0, held_out("0")), (0, [sample(0)]), (0, held_out("1")), (1, held_out("2"))]
    assert asked_in_turn(args, *steps) == 3 * ROWS


@pytest.mark.parametrize("sick", [False, True], ids=["aborted", "sick"])
def test_nothing_is_left_running_where_the_answer_is_not_graded(args, monkeypatch, sick):
    """The answer that brings it is aborted, or its grader fails the check question."""

    def act(prompt: str) -> Say:
        return Say("hm", seconds=1.0 if "PROBE" in prompt else 0.0)

    engine = FakeEngine(act, checked=not sick)
    if not sick:

        async def aborted(*_, **__):
            raise Aborted

        monkeypatch.setattr(hooks, "grade_beside", aborted)

    async def main():
        async with engine:
            args.sglang_router_port = engine.port
            (one,) = held_out("0")
            before = asyncio.all_tasks()
            outcome = await asyncio.gather(hooks.reward(args, one), return_exceptions=True)
            left = [task for task in asyncio.all_tasks() - before if "Probe" in repr(task)]
            await hooks._graders_of_loop[asyncio.get_running_loop()].close()
            return outcome, left, one.metadata

    (outcome,), left, metadata = asyncio.run(main())
    assert left == []
    assert isinstance(outcome, UserError) if sick else math.isnan(outcome)
    assert ("probe" in metadata) is not sick, "an aborted answer keeps the probe it has brought"


def test_a_lenient_grader_is_seen(args):
    metrics = evaluated(FakeEngine(verdict(True)), args)
    assert metrics["eval/probe/accuracy"] == 0.5
    assert metrics["eval/probe/kappa"] == 0.0
    assert metrics["eval/probe/false_positive_rate"] == 1.0
    assert (metrics["eval/probe/accuracy_low"], metrics["eval/probe/accuracy_high"]) == (0.5, 0.5)


def test_under_slime_each_figure_is_a_set_with_one_reward(args):
    async def main():
        async with FakeEngine(even) as engine:
            args.sglang_router_port = engine.port
            one = sample(0, group=None, weight_versions=["1"])
            reward = await hooks.reward(args, one)
            await hooks._graders_of_loop[asyncio.get_running_loop()].close()
            return {"held": {"rewards": [reward], "samples": [one]}}

    data = asyncio.run(main())
    hooks.log_eval(0, args, data, None)
    assert data["probe/accuracy"] == {"rewards": [1.0]}


def test_training_asks_no_probe(args):
    engine = FakeEngine(even)

    async def main():
        async with engine:
            args.sglang_router_port = engine.port
            await hooks.reward(args, [sample(0), sample(1)])
            await hooks._graders_of_loop[asyncio.get_running_loop()].close()

    asyncio.run(main())
    assert probe_prompts(engine) == []


def test_the_policy_judges_also_where_another_model_grades(args):
    policy = FakeEngine(even)

    async def main():
        async with policy, FakeEngine(verdict(True)) as other:
            args.sglang_router_port = policy.port
            args.grader_url, args.grader_api, args.grader_model = other.url, "openai", "judge"
            one = sample(0, group=None, weight_versions=["0"])
            await hooks.reward(args, one)
            await hooks._graders_of_loop[asyncio.get_running_loop()].close()
            return one

    one = asyncio.run(main())
    assert len(probe_prompts(policy)) == ROWS
    assert one.metadata["probe"]["figures"]["accuracy"] == 1.0
    assert one.metadata["grading"]["grader"] == "judge"


def test_a_probe_that_fails_ends_nothing(args):
    args.grader_retries = 0

    def failing(prompt: str):
        return Fail(500) if "PROBE" in prompt else verdict(True)

    metrics = evaluated(FakeEngine(failing), args)
    assert metrics["eval/probe/ungraded"] == 1.0
    assert "eval/probe/accuracy" not in metrics
    assert metrics["eval/held/grading/ungraded"] == 0.0


def test_is_kept_by_prompt_for_the_alarm(args):
    evaluated(FakeEngine(verdict(True)), args)
    (evaluation,) = stored(args.save)
    assert evaluation.probe == {f"q{number}": [1, 2] for number in range(3)}


def test_takes_no_more_rows_than_it_may(args):
    args.grader_probe_rows = 2
    engine = FakeEngine(even)
    evaluated(engine, args)
    assert len(probe_prompts(engine)) == 2


@pytest.mark.parametrize(
    "keys, complaint",
    [
        ({"probe": "rows.jsonl", "mode": "checklist"}, "grader_probe with grader_mode checklist"),
        ({"alarm": "warn"}, "sees nothing without grader_anchor or grader_probe"),
        ({"alarm": True}, "grader_alarm"),
    ],
)
def test_settings_that_cannot_work_are_refused(keys, complaint):
    with pytest.raises(UserError, match=complaint):
        GraderSettings.load({f"grader_{key}": value for key, value in keys.items()})


def test_off_is_what_yaml_makes_of_it(tmp_path: Path):
    file = tmp_path / "grader.yaml"
    file.write_text("grader_alarm: off\n")
    assert GraderSettings.load(file).trust.alarm == "off"
