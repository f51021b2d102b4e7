"""The rollout loop against an engine with faults: retries, groups, filters, training data."""

import asyncio
import gc
import math

import pytest
from doubles.trainer import Words, answering_engine, make_args, write_rows

from rubric_rl.common.errors import UserError
from rubric_rl.cpu import generate
from rubric_rl.cpu.generate import GenerationFailed
from rubric_rl.cpu.rollout import Rollout, run_log_hook, train_data
from rubric_rl.cpu.samples import DataSource, Sample, load_prompts


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(generate, "FIRST_PAUSE", 0.0)


def prompts(tmp_path, count=8):
    path = write_rows(tmp_path / "rows.jsonl", count)
    return load_prompts(
        str(path), Words(), input_key="prompt", metadata_key="metadata", apply_chat_template=True
    )


def run_rollout(tmp_path, engine, *more: str):
    """One rollout against the engine; returns args, samples, metrics, data source."""

    async def go():
        async with engine:
            args = make_args("--sglang-router-port", str(engine.port), *more)
            args.rollout_engine_urls = [f"http://127.0.0.1:{engine.port}"]
            source, rollout = DataSource(args, prompts(tmp_path)), Rollout(args, Words())
            try:
                samples, metrics = await rollout.rollout(source)
            finally:
                await rollout.close()
            return args, samples, metrics, source

    return asyncio.run(asyncio.wait_for(go(), 20))


def test_samples_come_in_order_with_tokens_logprobs_and_weight_version(tmp_path):
    engine = answering_engine()
    _, samples, metrics, _ = run_rollout(tmp_path, engine)
    assert [s.index for s in samples] == list(range(8))
    assert [s.group_index for s in samples] == [0, 0, 1, 1, 2, 2, 3, 3]
    for sample in samples:
        prompt_ids = Words().encode(sample.prompt)
        assert sample.tokens == prompt_ids + [7] * sample.response_length
        assert len(sample.rollout_log_probs) == len(sample.loss_mask) == sample.response_length > 0
        assert sample.weight_versions == ["0"] and sample.status is Sample.Status.COMPLETED
    assert (
        len(set(engine.routing_keys)) == 8 and None not in engine.routing_keys
    )  # every answer has its own engine key
    assert (
        engine.bodies[0]["sampling_params"]["no_stop_trim"] and engine.bodies[0]["return_logprob"]
    )
    assert metrics["rollout/raw_reward"] == pytest.approx(
        sum(s.response_length for s in samples) / 8
    )
    assert metrics["rollout/response_len/max"] == max(s.response_length for s in samples)
    assert metrics["perf/rollout_time"] == pytest.approx(
        metrics["perf/generation_time"] + metrics["perf/grading_tail_time"]
    )
    assert (
        metrics["perf/grading_tail_time"]
        < metrics["perf/grading_time"]
        < metrics["perf/rollout_time"]
    )


@pytest.mark.parametrize(
    "fault", [500, 503, 409, 425, 429, "drop", "empty", "abort", "html", "nan", "textless"]
)
def test_transient_faults_are_retried(tmp_path, fault):
    engine = answering_engine(faults=[fault, fault])
    _, samples, _, _ = run_rollout(tmp_path, engine)
    assert len(samples) == 8 and len(engine.bodies) == 10


def test_a_hanging_request_is_given_up_and_asked_again(tmp_path):
    engine = answering_engine(faults=["hang"])
    _, samples, _, _ = run_rollout(tmp_path, engine, "--sglang-router-request-timeout-secs", "1")
    assert len(samples) == 8 and len(engine.bodies) == 9


def test_a_refused_request_fails_at_once_with_the_engines_words(tmp_path):
    engine = answering_engine(faults=[400])
    with pytest.raises(GenerationFailed, match="HTTP 400 the engine says no"):
        run_rollout(tmp_path, engine)
    assert len(engine.bodies) <= 8


def test_retries_are_bounded(tmp_path):
    engine = answering_engine(faults=[500] * 1000)
    with pytest.raises(GenerationFailed, match=f"no answer in {generate.ATTEMPTS} attempts"):
        run_rollout(tmp_path, engine)
    assert len(engine.bodies) <= 8 * generate.ATTEMPTS


def test_echoes_of_a_failure_make_no_noise(tmp_path, caplog):
    with pytest.raises(GenerationFailed):
        run_rollout(tmp_path, answering_engine(faults=[400] * 8))
    gc.collect()  # asyncio complains of a failed task that nobody looked at when it is collected
    assert "never retrieved" not in caplog.text


def test_truncated_answers_are_marked(tmp_path):
    _, samples, metrics, _ = run_rollout(tmp_path, answering_engine(faults=["length"] * 4))
    assert sum(s.status is Sample.Status.TRUNCATED for s in samples) == 4
    assert metrics["rollout/truncated_ratio"] == 0.5


def test_filter_drops_groups_and_draws_more(tmp_path):
    _, samples, metrics, source = run_rollout(
        tmp_path, answering_engine(), "--dynamic-sampling-filter-path", "doubles.trainer.keep_even"
    )
    assert [s.group_index for s in samples][::2] == [0, 2, 4, 6]
    assert metrics["rollout/dynamic_filter/drop_unnamed"] >= 3
    assert source.sample_group_index % 4 == 0  # drawn in units of --over-sampling-batch-size


def test_surplus_groups_are_cancelled_grading_included(tmp_path):
    engine = answering_engine()
    _, samples, _, source = run_rollout(
        tmp_path,
        engine,
        "--over-sampling-batch-size",
        "6",
        "--custom-rm-path",
        "doubles.trainer.endless",
    )
    assert [s.group_index for s in samples][::2] == [0, 1, 2, 3]
    assert source.sample_group_index == 6 and engine.aborts == 1


def test_a_hook_that_returns_nothing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"doubles.trainer.nothing returned None"):
        run_rollout(tmp_path, answering_engine(), "--custom-rm-path", "doubles.trainer.nothing")


def test_a_hook_that_returns_a_dict_without_the_reward_key_is_named(tmp_path):
    with pytest.raises(UserError, match=r"doubles.trainer.other_key returned {'other': 1.0}"):
        run_rollout(
            tmp_path,
            answering_engine(),
            "--custom-rm-path",
            "doubles.trainer.other_key",
            "--reward-key",
            "score",
        )


def test_a_hook_that_cannot_be_imported_is_named(tmp_path):
    with pytest.raises(UserError, match=r"hook nowhere.reward cannot be imported"):
        run_rollout(tmp_path, answering_engine(), "--custom-rm-path", "nowhere.reward")


def test_training_data_and_group_advantages(tmp_path):
    args, samples, _, _ = run_rollout(tmp_path, answering_engine())
    samples[0].reward, samples[1].reward = 1.0, 3.0
    data = train_data(args, samples)
    assert data["rewards"][:2] == pytest.approx(
        [-1 / math.sqrt(2), 1 / math.sqrt(2)], abs=1e-5
    )  # std of {1, 3} is sqrt 2
    assert data["response_lengths"] == [s.response_length for s in samples]
    assert {len(values) for values in data.values()} == {8}


def test_ungraded_answers_leave_loss_and_mean(tmp_path):
    args, samples, metrics, _ = run_rollout(
        tmp_path, answering_engine(), "--custom-rm-path", "doubles.trainer.ungraded"
    )
    data = train_data(args, samples)
    assert metrics["rollout/ungraded"] == 4 and metrics["rollout/raw_reward"] == 1.0
    assert all(sum(mask) == 0 for mask in data["loss_masks"][1::2]) and all(
        sum(mask) for mask in data["loss_masks"][::2]
    )
    assert data["rewards"] == [0.0] * 8


def test_evaluation_uses_the_data_sets_own_settings(tmp_path):
    rows = write_rows(tmp_path / "held.jsonl", 3)
    engine = answering_engine()

    async def go():
        async with engine:
            more = [
                "--eval-prompt-data",
                "held",
                str(rows),
                "--n-samples-per-eval-prompt",
                "2",
                "--eval-temperature",
                "0.5",
            ]
            args = make_args("--sglang-router-port", str(engine.port), *more)
            args.rollout_id = 0
            rollout = Rollout(args, Words())
            try:
                return await rollout.evaluate(args.eval_datasets, {"held": prompts(tmp_path, 3)})
            finally:
                await rollout.close()

    data, metrics = asyncio.run(go())
    assert len(data["held"]["samples"]) == 6 and [s.index for s in data["held"]["samples"]] == list(
        range(6)
    )
    assert (
        data["held"]["samples"][0].group_index is None
    )  # as in slime: how hooks tell evaluation from training
    assert engine.bodies[0]["sampling_params"]["temperature"] == 0.5
    assert metrics["eval/held"] == pytest.approx(sum(data["held"]["rewards"]) / 6)


SEEDED = "--sglang-enable-deterministic-inference"


def rollout_seeds(tmp_path, *flags: str) -> list[int | None]:
    """What the engine was given as seeds of a rollout, in the order of the samples' keys."""
    engine = answering_engine()
    run_rollout(tmp_path, engine, *flags)
    return sorted(body["sampling_params"].get("sampling_seed") for body in engine.bodies)


def evaluation_seeds(tmp_path, *flags: str, rollout_id: int) -> list[int]:
    rows = write_rows(tmp_path / "held.jsonl", 3)
    engine = answering_engine()

    async def go():
        async with engine:
            more = ["--eval-prompt-data", "held", str(rows), *flags]
            args = make_args("--sglang-router-port", str(engine.port), *more)
            args.rollout_id = rollout_id
            rollout = Rollout(args, Words())
            try:
                await rollout.evaluate(args.eval_datasets, {"held": prompts(tmp_path, 3)})
            finally:
                await rollout.close()

    asyncio.run(go())
    return sorted(body["sampling_params"]["sampling_seed"] for body in engine.bodies)


def test_every_answer_of_a_seeded_rollout_has_a_seed_of_its_own_by_the_runs_seed(tmp_path):
    seeds = rollout_seeds(tmp_path, SEEDED, "--rollout-seed", "1")
    assert len(set(seeds)) == 8 and all(0 <= seed < 2**31 for seed in seeds)
    assert rollout_seeds(tmp_path, SEEDED, "--rollout-seed", "1") == seeds
    assert not set(rollout_seeds(tmp_path, SEEDED, "--rollout-seed", "2")) & set(seeds)


def test_evaluations_of_all_runs_are_sampled_alike_and_of_each_rollout_anew(tmp_path):
    seeds = evaluation_seeds(tmp_path, SEEDED, "--rollout-seed", "1", rollout_id=5)
    assert len(set(seeds)) == 3
    assert evaluation_seeds(tmp_path, SEEDED, "--rollout-seed", "2", rollout_id=5) == seeds
    later = evaluation_seeds(tmp_path, SEEDED, "--rollout-seed", "1", rollout_id=11)
    assert not set(later) & set(seeds)


def test_without_the_flag_no_request_has_a_seed(tmp_path):
    engine = answering_engine()
    run_rollout(tmp_path, engine)
    assert all("sampling_seed" not in body["sampling_params"] for body in engine.bodies)


def test_log_hooks_are_called_like_slimes():
    seen = []
    from doubles import trainer as doubles

    doubles.log = lambda *arguments: seen.append(arguments)
    run_log_hook("doubles.trainer.log", 3, "args", [], {}, 1.0)
    run_log_hook(None, 3)
    assert seen == [(3, "args", [], {}, 1.0)]
