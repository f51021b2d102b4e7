"""The hooks, called exactly as slime calls them."""

import asyncio
import inspect
import json
import math
import os
import sys
import types
from argparse import Namespace
from dataclasses import dataclass

import pytest
from doubles.engine import TEMPLATE, Fail, FakeEngine, Say, chat_model, skip_pauses, verdict
from doubles.hooked import MESSAGES, by_answer, hook_args, record_of, reward, sample

import self_reward_rm as hooks
from rubric_rl.common.errors import UserError
from rubric_rl.cpu.samples import Sample
from rubric_rl.data.schema import Record
from rubric_rl.evaluation.read_run import Run


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def args(model, tmp_path) -> Namespace:
    return hook_args(model, grader_records=str(tmp_path / "verdicts"))


def test_loops_that_run_side_by_side_keep_their_clients(args):
    """A closed loop's are dropped; one that runs in another thread goes on with its own."""

    async def graders() -> object:
        return hooks._graders(args)

    args.sglang_router_port = 1
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    one = first.run_until_complete(graders())
    two = second.run_until_complete(graders())
    assert one is not two
    assert first.run_until_complete(graders()) is one
    first.close()
    third = asyncio.new_event_loop()
    third.run_until_complete(graders())
    assert first not in hooks._graders_of_loop and second in hooks._graders_of_loop
    second.close()
    third.close()


class TestSickGrader:
    """One whose replies cannot be read would lower every reward alike: the run ends instead."""

    def test_is_found_by_its_check_question_before_any_answer_is_graded(self, args):
        engine = FakeEngine(Say("hm", reason="length"), checked=False)
        with pytest.raises(UserError, match=r"failed its check question: .* grader_max_tokens"):
            reward(engine, args, [sample(0), sample(1)])
        assert len(engine.bodies) == 2 * 2, "two criteria, each reply finished"

    def test_ends_the_run_where_slime_drops_what_fails_and_goes_on(self, args):
        path = "slime.rollout.fully_async_rollout.generate_rollout_fully_async"
        args.rollout_function_path = path
        engine = FakeEngine(Say("hm", reason="length"), checked=False)
        samples = [sample(0), sample(1)]
        values = reward(engine, args, samples)
        for one, value in zip(samples, values, strict=True):
            assert math.isnan(value)
            one.reward = value
        with pytest.raises(UserError, match=r"could be graded: .* failed its check question"):
            hooks.post_process(args, samples)

    def test_one_that_falls_ill_ends_the_rollout_before_the_update(self, args):
        samples = [sample(index, group=index // 2) for index in range(4)]
        values = reward(FakeEngine(Say("hm", reason="length")), args, samples)
        for one, value in zip(samples, values, strict=True):
            one.reward = value
        with pytest.raises(UserError, match="the grader of this rollout is sick: 12 of 12 "):
            hooks.post_process(args, samples)
        args.grader_most_unreadable = 1.0
        assert hooks.post_process(args, samples)[1] == [0.0] * 4

    def test_one_that_cannot_be_reached_leaves_its_answers_ungraded(self, args):
        engine = FakeEngine(Fail(400, "no such model"), checked=False)
        values = reward(engine, args, [sample(0), sample(1)])
        assert all(math.isnan(value) for value in values)

    def test_the_check_question_is_asked_once(self, args):
        engine = FakeEngine(verdict(True), checked=False)
        reward(engine, args, [sample(index) for index in range(4)])
        asked = [prompt for prompt in engine.prompts if "My head hurts" in prompt]
        assert len(asked) == 2


def stored(folder) -> list[Record]:
    return list(Run(folder, every=True))


class TestReward:
    def test_of_one_sample_is_a_float_with_a_record_in_memory_and_on_disk(self, args):
        one = sample(weight_versions=["4", "5"])
        assert reward(FakeEngine(by_answer), args, one) == 6 / 8
        record = record_of(one)
        assert record.mets == [True, False, False]
        assert (record.weight_version, record.split, record.index) == ("5", "train", 0)
        assert record.grader == "policy"
        assert stored(args.grader_records) == [record]
        assert json.loads(json.dumps(one.metadata["grading"])) == record.to_json()

    def test_keeps_the_conversation_in_the_record(self, args):
        one = sample()
        reward(FakeEngine(by_answer), args, one)
        assert one.metadata["grading"]["messages"] == MESSAGES

    def test_of_a_list_is_a_list_in_its_order(self, args):
        impolite = sample(1, response="Go away.<|im_end|>")
        thinking = sample(2, response="<think>hm")
        samples = [sample(0), impolite, thinking]
        assert reward(FakeEngine(by_answer), args, samples) == [6 / 8, 0.0, 0.0]
        statuses = [record_of(one).status for one in samples]
        assert statuses == ["graded", "graded", "no_answer"]

    def test_under_a_reward_key_is_a_dict(self, args):
        args.reward_key = "score"
        assert reward(FakeEngine(by_answer), args, sample()) == {"score": 6 / 8}

    def test_keeps_no_client_of_an_event_loop_that_has_ended(self, args):
        for _ in range(3):
            reward(FakeEngine(by_answer), args, sample())
        assert len(hooks._graders_of_loop) == 1

    @pytest.mark.parametrize("reward_key", [None, "score"])
    def test_without_metadata_or_router_is_a_number(self, reward_key):
        bare = Namespace(reward_key=reward_key) if reward_key else Namespace()
        value = asyncio.run(hooks.reward(bare, Sample(index=1, metadata={})))
        assert math.isnan(value["score"] if reward_key else value)

    def test_of_a_truncated_answer_is_zero_without_a_call(self, args):
        engine = FakeEngine()
        cut = sample(status=Sample.Status.TRUNCATED)
        finished = sample(1, response="")
        assert reward(engine, args, [cut, finished]) == [0.0, 0.0]
        assert engine.bodies == []

    def test_of_an_answer_whose_generation_failed_is_nan_without_a_call(self, args):
        engine, one = FakeEngine(), sample(status=Sample.Status.FAILED)
        assert math.isnan(reward(engine, args, one))
        assert engine.bodies == []
        assert (record_of(one).status, record_of(one).answer) == ("ungraded", None)
        assert "FAILED" in record_of(one).error

    def test_of_no_response_at_all_is_zero_without_a_call(self, args):
        engine, one = FakeEngine(), sample(response=None)
        assert reward(engine, args, one) == 0.0
        assert engine.bodies == []
        assert record_of(one).status == "no_answer"

    @pytest.mark.parametrize("api", ["sglang", "openai"])
    def test_is_of_what_follows_a_thought_in_the_marks_of_the_policys_family(
        self, args, tmp_path, api
    ):
        """However it is asked; a policy that writes another family's hides nothing."""
        family = "{{ '[THINK][/THINK]' if false }}"
        args.hf_checkpoint = chat_model(tmp_path / "other", TEMPLATE + family)
        answers = ["[THINK]rude[/THINK]Hello.", "<seed:think>rude</seed:think>Hello."]
        samples = [sample(number, response=text) for number, text in enumerate(answers)]
        args.grader_api, args.grader_model = api, "m"
        reward(FakeEngine(by_answer), args, samples)
        assert [record_of(one).answer for one in samples] == ["Hello.", answers[1]]

    def test_sends_each_answer_whole_to_one_engine(self, args):
        engine = FakeEngine(by_answer)
        unnamed = sample(1, group=None, session_id=None)  # as in evaluation
        reward(engine, args, [sample(0), unnamed])
        assert engine.requests == [3, 3]
        assert sorted(engine.routing_keys) == ["pNone-1", "session-0"]
        assert record_of(unnamed).split == "eval"

    def test_of_a_failing_grader_is_nan_with_its_reason(self, args):
        one = sample()
        assert math.isnan(reward(FakeEngine(Fail(404, "no such model")), args, one))
        assert "no such model" in record_of(one).error
        (record,) = stored(args.grader_records)
        assert record.to_json()["score"] is None

    def test_goes_to_another_grader_when_one_is_named(self, args):
        other = FakeEngine(verdict(True))

        async def main():
            async with other:
                args.grader_url = other.url + "/v1/"
                args.grader_api, args.grader_model = "openai", "org/judge"
                one = sample()
                value = await hooks.reward(args, one)
                await hooks._graders_of_loop[asyncio.get_running_loop()].close()
                return value, record_of(one)

        value, record = asyncio.run(main())
        assert value == 4 / 8
        assert other.bodies[0]["model"] == "org/judge"
        assert record.grader == "org-judge"

    def test_records_go_to_the_run_when_no_folder_is_set(self, args, tmp_path):
        args.grader_records, args.save = "", str(tmp_path / "run")
        reward(FakeEngine(by_answer), args, sample())
        assert len(stored(tmp_path / "run" / "verdicts")) == 1

    @pytest.mark.parametrize(
        "change, complaint",
        [
            ({"grader_mod": "direct"}, "did you mean grader_mode"),
            ({"partial_rollout": True}, "--partial-rollout"),
            ({"hf_checkpoint": "/nowhere"}, "no usable tokenizer"),
        ],
    )
    def test_settings_that_cannot_work_are_refused(self, args, change, complaint):
        vars(args).update(change)
        with pytest.raises(UserError, match=complaint):
            asyncio.run(hooks.reward(args, sample()))

    def test_a_row_that_cannot_be_scored_is_named(self, args):
        broken = sample(7)
        broken.metadata["rubrics"] = []
        with pytest.raises(UserError, match="sample 7, prompt_id p0: rubrics"):
            asyncio.run(hooks.reward(args, broken))

    def test_leaves_the_keys_that_slime_consumes_alone(self, args):
        one = sample()
        reward(FakeEngine(by_answer), args, one)
        assert not {"raw_reward", "round_number"} & one.metadata.keys()


class TestAborted:
    """slime aborts a rollout, and its grading with it."""

    @pytest.fixture(autouse=True)
    def aborted(self, monkeypatch):
        skip_pauses(monkeypatch)
        module = types.ModuleType("slime.rollout.sglang_rollout")
        module.GenerateState = lambda args: Namespace(aborted=True)
        monkeypatch.setitem(sys.modules, module.__name__, module)

    @pytest.mark.parametrize("reward_key", [None, "score"])
    def test_a_sample_is_marked_and_has_no_reward_so_that_slime_asks_again(self, args, reward_key):
        args.reward_key = reward_key
        engine, one = FakeEngine(Say(reason="abort")), sample()
        assert reward(engine, args, one) is None
        assert one.status is Sample.Status.ABORTED
        assert "grading" not in one.metadata
        assert engine.bodies == []

    def test_its_answer_is_dropped_so_that_slime_does_not_write_on_after_its_end(self, args):
        one = sample(tokens=[1, 2, 3], response_length=2, loss_mask=[1, 1], weight_versions=["4"])
        one.rollout_log_probs = [-0.1, -0.2]
        reward(FakeEngine(), args, one)
        fresh = sample(status=Sample.Status.ABORTED, response="")
        assert one == fresh

    def test_so_is_what_a_newer_slime_keeps_of_an_answer_but_not_whose_answer_it_is(self, args):
        @dataclass
        class Newer(Sample):
            rollout_topk_log_probs: list | None = None

        one = Newer(**vars(sample()), rollout_topk_log_probs=[[-0.1]])
        one.rollout_id = 5
        reward(FakeEngine(), args, one)
        assert (one.rollout_topk_log_probs, one.rollout_id) == (None, 5)

    def test_nobody_trains_on_it(self, args):
        samples = [sample(0, reward=0.0), sample(1, reward=1.0), sample(2)]
        samples[2].reward = reward(FakeEngine(), args, samples[2])
        _, advantages = hooks.post_process(args, samples)
        assert [one.remove_sample for one in samples] == [False, False, True]
        assert advantages[2] == 0

    def test_what_slime_does_not_take_up_again_gets_a_number(self, args):
        held_out = sample(group=None)
        parts = [sample(0), sample(1)]
        assert math.isnan(reward(FakeEngine(), args, held_out))
        assert all(math.isnan(value) for value in reward(FakeEngine(), args, parts))
        assert {one.status for one in [held_out, *parts]} == {Sample.Status.ABORTED}
        assert parts[0].response == sample().response

    @pytest.mark.parametrize("group, asked_again", [(0, True), (None, False)])
    def test_half_an_answer_is_not_graded_and_stays_to_be_written_on(
        self, args, monkeypatch, group, asked_again
    ):
        """With --group-rm slime asks for the reward of one that the engine has aborted."""
        monkeypatch.delitem(sys.modules, "slime.rollout.sglang_rollout")
        engine = FakeEngine(by_answer)
        one = sample(0, group, status=Sample.Status.ABORTED, response="I am sor")
        value = reward(engine, args, one)
        assert value is None if asked_again else math.isnan(value)
        assert (one.status, one.response) == (Sample.Status.ABORTED, "I am sor")
        assert engine.bodies == [] and "grading" not in one.metadata

    def test_an_earlier_grading_does_not_stay(self, args):
        """It would be counted among the rollout's."""
        one = sample()
        one.metadata["grading"] = {"status": "graded"}
        reward(FakeEngine(), args, one)
        assert "grading" not in one.metadata

    def test_a_group_that_is_graded_together_is_taken_up_again(self, args):
        args.group_rm = True
        assert reward(FakeEngine(), args, [sample(0), sample(1)]) == [None, None]


class TestProvenance:
    def test_the_launcher_names_the_run(self, args, monkeypatch):
        monkeypatch.setenv("RUBRIC_RL_RUN", "8B-20261122-101112-7")
        one = sample()
        reward(FakeEngine(by_answer), args, one)
        assert record_of(one).run == "8B-20261122-101112-7"

    def test_a_process_without_a_launcher_is_a_run_of_its_own(self, args, monkeypatch):
        monkeypatch.delenv("RUBRIC_RL_RUN", raising=False)
        one, two = sample(0), sample(1)
        reward(FakeEngine(by_answer), args, [one, two])
        assert f".{os.getpid()}-" in record_of(one).run
        assert record_of(one).run == record_of(two).run

    @pytest.mark.parametrize(
        "told, expected",
        [
            ({}, None),
            ({"_current_rollout_id": 7}, 7),
            ({"_current_rollout_id": 7, "_task_rollout_id": Namespace(get=lambda: 8)}, 8),
            ({"_current_rollout_id": 7, "_task_rollout_id": Namespace(get=lambda: None)}, 7),
        ],
    )
    def test_the_rollout_is_the_one_that_slime_tells(self, args, monkeypatch, told, expected):
        module = types.ModuleType("slime.rollout.sample_hooks")
        vars(module).update(told)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        one = sample()
        reward(FakeEngine(by_answer), args, one)
        assert record_of(one).rollout == expected

    def test_the_trainer_without_a_gpu_tells_it_in_its_flags(self, args):
        args.rollout_id, one = 3, sample()
        reward(FakeEngine(by_answer), args, one)
        assert record_of(one).rollout == 3


@pytest.mark.parametrize(
    "hook, names",
    [
        (hooks.reward, ["args", "sample"]),
        (hooks.post_process, ["args", "samples"]),
        (hooks.keep_informative, ["args", "samples"]),
        (
            hooks.log_rollout,
            ["rollout_id", "args", "samples", "extra_metrics", "rollout_time"],
        ),
        (hooks.log_eval, ["rollout_id", "args", "data", "extra_metrics"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_names_of_the_arguments_are_slimes(hook, names):
    assert list(inspect.signature(hook).parameters)[: len(names)] == names
    assert inspect.iscoroutinefunction(hook) is (hook is hooks.reward)
