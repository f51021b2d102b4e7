"""How far each update moved the policy: asked once per update, by answers that it gave before."""

import asyncio
import math
from argparse import Namespace

import pytest
from doubles.engine import Fail, FakeEngine, chat_model, verdict
from doubles.hooked import hook_args, sample
from hypothesis import given
from hypothesis import strategies as st

import self_reward_rm as hooks
from rubric_rl.common.errors import DataError
from rubric_rl.data.training_settings import Trust
from rubric_rl.trust.alarm import alarm_of
from rubric_rl.trust.evaluations import Evaluation
from rubric_rl.trust.moved import (
    AT_ONCE,
    FILE,
    KEPT,
    TOKENS,
    Move,
    drop_moves,
    keep,
    kept_moves,
    large_moves,
)

PROMPT = [1, 2, 3]
GROUP, GROUPS = 4, 16
OWN, BEFORE = 5, -0.5  # tokens of an answer, and the log-probability of each when it was drawn
LIMIT = Trust().alarm_moved


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def args(model, tmp_path) -> Namespace:
    watched = {"grader_probe": "tests/data/none.jsonl", "grader_alarm": "warn"}
    sizes = {"n_samples_per_prompt": GROUP, "rollout_batch_size": GROUPS}
    return hook_args(model, save=str(tmp_path), rollout_temperature=1.0, **watched, **sizes)


@pytest.fixture(autouse=True)
def no_probe(monkeypatch):
    """It has rows of its own, and tests of its own."""
    monkeypatch.setattr("rubric_rl.trust.watched_graders.probe_rows", lambda trust: [])


def drawn(number: int, version: str, **changes):
    """An answer of training as the trainers hand it over."""
    fields = {
        "index": number,
        "tokens": PROMPT + list(range(10, 10 + OWN)),
        "response_length": OWN,
        "rollout_log_probs": [BEFORE] * OWN,
        "loss_mask": [1] * OWN,
        "weight_versions": [version],
    }
    return sample(group=number // GROUP, **fields | changes)


def rollout(version: str, **changes) -> list:
    return [drawn(index, version, **changes) for index in range(GROUP * GROUPS)]


def graded(engine: FakeEngine, args, *rollouts: list) -> list[dict]:
    """What is logged of each rollout; the engine's weights are those of its last answer."""
    logged = []

    async def main():
        async with engine:
            args.sglang_router_port = engine.port
            for number, samples in enumerate(rollouts):
                args.rollout_id = number
                engine.version = ([str(number), *samples[-1].weight_versions])[-1]
                calls = [hooks.reward(args, one) for one in samples]
                rewards = await asyncio.gather(*calls)
                assert all(math.isfinite(reward) for reward in rewards)
                metrics: dict = {}
                used = samples[GROUP:]  # a filter may drop the group whose answer asked
                hooks.log_rollout(number, args, used, metrics, 1.0)
                logged.append(metrics)
            await hooks._graders_of_loop[asyncio.get_running_loop()].close()

    asyncio.run(main())
    return logged


def engine_with(log_prob: float, rescore: Fail | None = None) -> FakeEngine:
    engine = FakeEngine(verdict(True))
    engine.log_prob, engine.rescore = log_prob, rescore
    return engine


def test_is_what_the_tokens_of_the_rollout_before_have_lost(args):
    engine = engine_with(-0.8)
    logged = graded(engine, args, rollout("0"), rollout("1"), rollout("2"))
    assert "grading/moved" not in logged[0], "nothing was updated yet"
    for metrics in logged[1:]:
        assert metrics["grading/moved"] == pytest.approx(0.3)
    tokens = KEPT * OWN
    assert [(move.rollout, move.tokens) for move in kept_moves(args.save)] == [
        (0, tokens),
        (1, tokens),
    ]


def test_answers_of_the_whole_rollout_are_asked_about_their_own_tokens_alone(args):
    engine = engine_with(-0.5)
    samples = rollout("0")
    for one in samples:
        one.tokens = [one.group_index, *one.tokens]
    graded(engine, args, samples, rollout("1"))
    asked = sorted(body["input_ids"][0] for body in engine.rescored)
    assert asked == sorted(list(range(GROUPS)) * (KEPT // GROUPS))
    for body in engine.rescored:
        assert body["logprob_start_len"] == len(PROMPT), "of a prompt of one token more"
        assert body["sampling_params"]["max_new_tokens"] == 0


def test_no_more_answers_are_kept_than_twice_as_many(args):
    """A custom generate function may make many of one."""
    engine = engine_with(-0.6)
    graded(engine, args, rollout("0", index=0), rollout("1"))
    assert len(engine.rescored) == 2 * KEPT


def test_an_engine_is_asked_about_few_tokens_at_once(args):
    """It holds the logits of all of them, which for whole answers would need gigabytes."""
    engine = engine_with(-0.7)
    longer = {"tokens": PROMPT + [9] * 5000, "response_length": 5000, "loss_mask": [1] * 5000}
    *_, last = graded(
        engine,
        args,
        rollout("0", rollout_log_probs=[BEFORE] * 256 + [-9.0] * 4744, **longer),
        rollout("1"),
    )
    assert last["grading/moved"] == pytest.approx(0.2)
    assert {len(body["input_ids"]) for body in engine.rescored} == {len(PROMPT) + TOKENS}
    assert engine.peak_of_rescored <= AT_ONCE


def test_tokens_of_a_tool_say_nothing(args):
    def called(version: str) -> list:
        return rollout(version, rollout_log_probs=[BEFORE, 0, 0, 0, 0], loss_mask=[1, 0, 0, 0, 0])

    *_, last = graded(engine_with(-0.6), args, called("0"), called("1"))
    assert last["grading/moved"] == pytest.approx(0.1)
    assert kept_moves(args.save)[-1].tokens == KEPT


@pytest.mark.parametrize(
    "changes",
    [
        {"rollout_log_probs": None},
        {"weight_versions": []},
        {"weight_versions": ["0", "1"]},
        {"rollout_log_probs": [BEFORE] * (OWN - 1)},
        {"tokens": [], "response_length": 0, "rollout_log_probs": []},
        {"loss_mask": [1]},
        {"loss_mask": [0] * OWN},
    ],
    ids=[
        "none",
        "of weights that nobody names",
        "of two weights",
        "of a part",
        "no token",
        "short mask",
        "no own token",
    ],
)
def test_answers_without_log_probabilities_of_their_own_are_not_asked_about(args, changes):
    *_, last = graded(engine_with(-0.6), args, rollout("0", **changes), rollout("1"))
    assert "grading/moved" not in last
    assert kept_moves(args.save) == []


def test_where_nothing_was_updated_nothing_has_moved(args):
    *_, last = graded(engine_with(-0.6), args, rollout("0"), rollout("0"))
    assert "grading/moved" not in last


@pytest.mark.parametrize(
    "rescore, log_prob",
    [
        (Fail(500), 0.0),
        (Fail(200, "words"), 0.0),
        (Fail(200, '{"meta_info": {}}'), 0.0),
        (Fail(200, '{"meta_info": []}'), 0.0),
        (Fail(200, '{"meta_info": null}'), 0.0),
        (Fail(200, '{"meta_info": {"input_token_logprobs": 1}}'), 0.0),
        (
            Fail(200, '{"meta_info": {"input_token_logprobs": %s}}' % ([[None], *[[10**400]] * 5])),
            0.0,
        ),
        (Fail(200, "[" * 100_000), 0.0),
        (Fail(200, '{"meta_info": {"input_token_logprobs": []}}'), 0.0),
        (Fail(200, '{"meta_info": {"input_token_logprobs": [[null], [-1], [1], [1], [1]]}}'), 0.0),
        (Fail(200, "[]"), 0.0),
        (None, math.nan),
    ],
)
def test_a_policy_that_gives_no_answer_is_said_and_costs_nothing(args, caplog, rescore, log_prob):
    engine = engine_with(log_prob, rescore)
    *_, last = graded(engine, args, rollout("0"), rollout("1"))
    assert "grading/moved" not in last
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("how far the last update moved the policy is not known: ")


@pytest.mark.parametrize(
    "changes", [{"grader_alarm": "off"}, {"rollout_temperature": 0.7}, {"rollout_top_p": 0.9}]
)
def test_is_asked_for_the_alarm_alone_and_at_the_temperature_of_the_policy(args, changes):
    engine = engine_with(-0.8)
    graded(engine, Namespace(**vars(args) | changes), rollout("0"), rollout("1"))
    assert engine.rescored == []


def test_a_large_update_is_said_at_once(args, caplog):
    graded(engine_with(BEFORE - LIMIT - 0.01), args, rollout("0"), rollout("1"))
    assert "alarm after rollout 0: the policy is suddenly another one" in caplog.text
    assert f"moved the policy by {LIMIT + 0.01:.2f} nats a token" in caplog.text
    assert "a checkpoint before it in another SAVE_PATH with a smaller --lr" in caplog.text


def test_updates_of_a_killed_run_are_forgotten_when_it_goes_on(args, caplog):
    """Before one of them could end it: the run makes them again."""
    for number in range(4):
        keep(args.save, Move(number, LIMIT, 100))
    hooks.log_rollout(2, args, [], {}, 1.0)
    assert [move.rollout for move in kept_moves(args.save)] == [0, 1]


def test_an_aborted_rollout_is_not_asked_further(args, monkeypatch):
    monkeypatch.setattr(hooks, "is_aborting", lambda args: args.rollout_id == 1)
    engine = engine_with(-0.8)

    async def main():
        async with engine:
            args.sglang_router_port = engine.port
            for args.rollout_id in range(2):
                for one in rollout(str(args.rollout_id)):
                    await hooks.reward(args, one)
            await hooks._graders_of_loop[asyncio.get_running_loop()].close()

    asyncio.run(main())
    assert engine.rescored == []


def test_a_usual_update_is_not(args, caplog):
    graded(engine_with(BEFORE - LIMIT + 0.01), args, rollout("0"), rollout("1"))
    assert caplog.text == ""


def evaluated(*rollouts: int) -> list[Evaluation]:
    """Evaluations after these rollouts; -1: before the first."""
    return [Evaluation(max(each, 0), str(each + 1), is_start=each < 0) for each in rollouts]


@pytest.mark.parametrize("rollout", [5, 7, 10])
def test_stands_until_the_second_evaluation_after_it(rollout):
    large = [Move(rollout, LIMIT, 100)]
    seen = evaluated(-1, 5)
    for after in ([], [11]):
        alarm = alarm_of(seen + evaluated(*after), Trust(), large)
        assert alarm is not None and alarm.ends_a_run
        assert [finding.rule for finding in alarm.findings] == ["moved"]
        assert alarm.rollout == max([rollout, *after])
    assert alarm_of(seen + evaluated(11, 17), Trust(), large) is None


def test_the_first_update_counts_beside_the_evaluation_of_the_start():
    assert large_moves([Move(0, LIMIT, 100)], evaluated(-1, 0), LIMIT)


@given(st.lists(st.integers(0, 30)), st.integers(0, 30))
def test_what_is_kept_is_in_order_and_holds_each_rollout_once(tmp_path_factory, rollouts, start):
    save = tmp_path_factory.mktemp("run")
    for number, rollout in enumerate(rollouts):
        keep(save, Move(rollout, float(number), 1))
        kept = [move.rollout for move in kept_moves(save)]
        assert kept == sorted(set(kept)) and kept[-1] == rollout
        assert kept_moves(save)[-1].nats == number, "the later one counts"
    before = kept_moves(save)
    drop_moves(save, start)
    assert kept_moves(save) == [move for move in before if move.rollout < start]


@pytest.mark.parametrize("text", ['{"rollout": 3}', "words", '{"rollout":1,"nats":"x","tokens":2}'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / FILE).write_text(text + "\n")
    with pytest.raises(DataError, match=FILE):
        kept_moves(tmp_path)
