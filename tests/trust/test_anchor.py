"""An anchor grades the same answers as the policy, and nothing depends on it."""

import asyncio
import math
import re
import time
from argparse import Namespace

import pytest
from doubles.engine import Fail, FakeEngine, Say, chat_model, verdict
from doubles.hooked import RUBRICS, hook_args, record_of, sample

import self_reward_rm as hooks
from rubric_rl.common.errors import UserError
from rubric_rl.common.hash_share import share_of
from rubric_rl.cpu.samples import Sample
from rubric_rl.evaluation.read_run import Run
from rubric_rl.grading.graders import load_other, make_grader
from rubric_rl.grading.health import CHECK
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.trust.anchor import Anchor


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def args(model, tmp_path) -> Namespace:
    return hook_args(
        model,
        save=str(tmp_path / "run"),
        grader_retries=0,
        grader_anchor_share=1.0,
        grader_anchor_seconds=5.0,
    )


def rewarded(policy: FakeEngine, anchor: FakeEngine, args, tmp_path, samples, more: str = ""):
    """The rewards by the policy's engine, with the anchor's behind grader_anchor."""

    async def main():
        async with policy, anchor:
            args.sglang_router_port = policy.port
            file = tmp_path / "anchor.yaml"
            settings = "grader_api: openai\ngrader_model: judge\ngrader_retries: 0\n"
            file.write_text(f"{settings}grader_url: {anchor.url}\n{more}")
            args.grader_anchor = str(file)
            try:
                return await hooks.reward(args, samples)
            finally:
                await hooks._graders_of_loop[asyncio.get_running_loop()].close()

    return asyncio.run(main())


def refuses_to_speak_of_insults(prompt: str) -> Say:
    """What it cannot read would count as not met, and its level fall."""
    return Say("I can't help with that.") if "Insults." in prompt else verdict(True)


def answer_in(prompt: str) -> str:
    """The answer as it stands in a grader's prompt, with its delimiters."""
    return prompt.partition("<answer ")[2].partition("</answer ")[0]


def test_grades_the_same_answers_and_touches_no_reward(args, tmp_path):
    policy, anchor = FakeEngine(verdict(True)), FakeEngine(verdict(False))
    samples = [sample(0), sample(1), sample(2, group=None)]
    rewards = rewarded(policy, anchor, args, tmp_path, samples)
    assert rewards == [(6 - 4 + 2) / 8] * 3
    for one in samples:
        anchored = record_of(one).anchored
        assert anchored is not None
        assert (anchored.grader, anchored.error) == ("judge", "")
        assert [each.met for each in anchored.verdicts] == [False] * 3
        assert anchored.score == 0.0
        assert anchored.tokens.prompt > 0
    graded = [answer_in(prompt) for prompt in policy.prompts]
    assert graded == [answer_in(prompt) for prompt in anchor.prompts]
    assert len(graded) == 3 * len(RUBRICS)
    stored = list(Run(tmp_path / "run/verdicts"))
    assert [each.anchored.score for each in stored] == [0.0] * 3


def test_grades_whole_groups_of_a_share_of_the_prompts_and_every_evaluation(args, tmp_path):
    args.grader_anchor_share = 0.5
    samples = [sample(number, group=number // 2) for number in range(16)]
    samples += [sample(20, group=None)]
    rewarded(FakeEngine(), FakeEngine(), args, tmp_path, samples)
    for one in samples:
        in_share = one.group_index is None or share_of(f"p{one.group_index}", "anchor") < 0.5
        assert (record_of(one).anchored is not None) == in_share
    in_training = {record_of(one).anchored is not None for one in samples[:-1]}
    assert in_training == {True, False}


@pytest.mark.parametrize(
    "anchor, reason",
    [
        (FakeEngine(Fail(500)), "HTTP 500"),
        (FakeEngine(Fail(reset=True)), "disconnected|reset"),
        (FakeEngine(Fail(401, "no credit"), checked=False), "no credit"),
        (FakeEngine(Say("hm"), checked=False), "failed its check question"),
        (FakeEngine(Say("hm")), "3 of 3 verdicts are unreadable"),  # falls ill after it
        (FakeEngine(refuses_to_speak_of_insults), "1 of 3 verdicts are unreadable"),
        (FakeEngine(Say(seconds=30)), "no verdicts within grader_anchor_seconds"),
    ],
)
def test_that_fails_or_is_slow_costs_its_own_word_alone(args, tmp_path, anchor, reason):
    args.grader_anchor_seconds = 3.0
    samples = [sample(number) for number in range(4)]
    start = time.monotonic()
    rewards = rewarded(FakeEngine(verdict(True)), anchor, args, tmp_path, samples)
    assert time.monotonic() - start < 20
    assert rewards == [0.5] * 4
    for one in samples:
        anchored = record_of(one).anchored
        assert anchored is not None
        assert anchored.verdicts == []
        assert math.isnan(anchored.score)
        assert re.search(reason, anchored.error)


def test_whose_check_question_was_aborted_is_asked_it_again(model):
    aborting = True

    async def main():
        nonlocal aborting
        async with FakeEngine(verdict(True)) as engine:
            keys = {"grader_url": engine.url, "grader_api": "openai", "grader_model": "judge"}
            settings = GraderSettings.load(keys)
            grader = make_grader(settings, "judge", "", model, lambda: aborting)
            anchor = Anchor(grader, seconds=5.0)
            first = await anchor.judge(CHECK, "Hello.", "key")
            aborting = False
            second = await anchor.judge(CHECK, "Hello.", "key")
            await grader.client.close()
            return first.error, second.error

    assert asyncio.run(main()) == ("aborted", "")


def test_whose_check_question_hangs_is_asked_it_again(model):
    """It is back after the first answer; nobody waits until the hanging request gives up."""
    hanging = True

    def act(prompt: str) -> Say:
        return Say(seconds=30.0 if hanging else 0.0)

    async def main():
        nonlocal hanging
        async with FakeEngine(act, checked=False) as engine:
            keys = {"grader_url": engine.url, "grader_api": "openai", "grader_model": "judge"}
            settings = GraderSettings.load(keys)
            grader = make_grader(settings, "judge", "", model, lambda: False)
            anchor = Anchor(grader, seconds=0.5)
            first = await asyncio.gather(*(anchor.judge(CHECK, "Hi.", "key") for _ in range(3)))
            hanging = False
            later = await anchor.judge(CHECK, "Hello.", "key")
            await grader.client.close()
            return [one.error for one in first], later.error

    limit = "no verdicts within grader_anchor_seconds (0.5)"
    assert asyncio.run(main()) == ([limit] * 3, "")


def test_is_not_asked_about_what_the_policy_does_not_grade(args, tmp_path):
    anchor = FakeEngine()
    cut = sample(0, status=Sample.Status.TRUNCATED)
    empty = sample(1, response="<think>hm")
    failed = sample(2, status=Sample.Status.FAILED)
    rewarded(FakeEngine(), anchor, args, tmp_path, [cut, empty, failed])
    assert anchor.bodies == []
    assert [record_of(one).anchored for one in (cut, empty, failed)] == [None] * 3


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("grader_mode: direct\n", "needs grader_url or grader_engine"),
        ("grader_url: http://h\ngrader_anchor: other.yaml\n", "no teacher, anchor or engine"),
    ],
)
def test_an_anchor_is_somebody_else_and_has_none_itself(tmp_path, text, complaint):
    file = tmp_path / "anchor.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=f"anchor.yaml: .*{complaint}"):
        load_other(str(file), "anchor")
