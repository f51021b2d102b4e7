"""slime's rollout loop with this repository's hooks: an engine that fails, the real SGLang on the CPU (contract)."""

import json
from pathlib import Path

import pytest
from faulty_engine import ANSWER, FaultyEngine
from test_slime_args import command
from tokenizers import Tokenizer

from rubric_rl.cpu import engine as cpu
from rubric_rl.grading.graders import share_of
from rubric_rl.jsonl import write_jsonl

PROMPTS, GROUP = 4, 4
pytestmark = pytest.mark.contract


@pytest.fixture
def rows(tmp_path):
    """Folder with 16 training and 4 evaluation rows of three criteria each."""

    def row(number):
        messages = [{"role": "user", "content": f"question {number}"}]
        rubrics = [
            {"criterion": f"criterion {i}", "points": points, "tags": ["axis:accuracy"]}
            for i, points in enumerate((5, 3, -2))
        ]
        return {
            "prompt": messages,
            "metadata": {
                "prompt_id": f"id{number}",
                "messages": messages,
                "rubrics": rubrics,
                "theme": "t",
            },
        }

    write_jsonl(tmp_path / "healthbench_easy.jsonl", map(row, range(16)))
    write_jsonl(tmp_path / "healthbench_hard.jsonl", map(row, range(16, 20)))
    return tmp_path


@pytest.fixture
def tokens(tiny_model):
    return (
        Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
        .encode(ANSWER, add_special_tokens=False)
        .ids
    )


@pytest.fixture
def loop(slime, rows, tiny_model):
    """Function: rollouts of slime's loop at a host and port, with the tiny run's own flags.

    It returns what slime_loop.py prints.
    """

    def run(
        port: int,
        *flags: str,
        rollouts: int = 1,
        grader: str = "",
        fails: bool = False,
        host: str = "127.0.0.1",
    ):
        config = rows / "grader.yaml"
        config.write_text("grader_mode: direct\ngrader_retries: 2\ngrader_timeout: 20\n" + grader)
        env = {
            "BACKEND": "slime",
            "HF_CKPT_PATH": str(tiny_model),
            "PROMPT_DATA_PATH": str(rows / "healthbench_easy.jsonl"),
            "EVAL_DATA_PATH": str(rows / "healthbench_hard.jsonl"),
            "SAVE_PATH": str(rows / "run"),
            "GRADER_CONFIG": str(config),
        }
        words = command(slime, "run_qwen3_tiny.sh", env, "--debug-rollout-only", "--rollout-num-gpus", "1",
                        "--custom-rollout-log-function-path", "self_reward_rm.log_rollout",
                        "--custom-eval-rollout-log-function-path", "self_reward_rm.log_eval",
                        "--rollout-batch-size", str(PROMPTS), "--n-samples-per-prompt", str(GROUP),
                        "--global-batch-size", "16", *flags)  # fmt: skip
        done = slime.run(
            Path(__file__).parent / "slime_loop.py", host, port, rollouts, *words, **env
        )
        if fails:
            assert done.returncode != 0
            return done.stderr
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run


def test_rollouts_rewards_advantages_metrics_and_evaluation(loop, tokens, rows):
    with FaultyEngine(tokens) as engine:
        result = loop(engine.port, rollouts=2)
    first, second = result["rollouts"]
    assert [len(group) for group in first["groups"]] == [GROUP] * PROMPTS and set(
        first["statuses"]
    ) == {"completed"}
    assert not {index for group in first["groups"] for index in group} & {
        index for group in second["groups"] for index in group
    }
    assert (
        None not in first["rewards"]
        and not any(first["removed"])
        and first["raw_reward"] == first["rewards"]
    )
    for start in range(0, PROMPTS * GROUP, GROUP):
        assert abs(sum(first["advantages"][start : start + GROUP])) < 1e-4
    assert first["metrics"]["grading/ungraded"] == 0 and "grading/axis/accuracy" in first["metrics"]
    assert "rollout/response_len/mean" in first["metrics"]  # slime's own figures stay
    assert result["eval"]["eval/held_out"] is not None
    records = [
        json.loads(line)
        for path in (rows / "run" / "verdicts").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert sum(record["split"] == "train" for record in records) == 2 * PROMPTS * GROUP
    assert {record["grader"] for record in records} == {"policy"}


FAULTS = (500, 429, "reset", "garbage", 503)


def test_passing_faults_of_the_grader_change_no_reward(loop, tokens):
    with FaultyEngine(
        tokens,
        fault=lambda text, number: FAULTS[number // 7 % 5] if number % 7 == 0 else None,
        p=lambda text, number: 0.9,
    ) as engine:
        (rollout,) = loop(engine.port)["rollouts"]
    assert rollout["rewards"] == [pytest.approx((5 + 3 - 2) / 8)] * PROMPTS * GROUP and not any(
        rollout["removed"]
    )


def test_ungraded_answers_leave_their_group_and_the_loss(loop, tokens):
    """Partial groups: answers whose criterion the engine refuses stay ungraded; the others are compared."""
    with FaultyEngine(
        tokens, fault=lambda text, number: 400 if number % 11 == 0 else None
    ) as engine:
        (rollout,) = loop(engine.port)["rollouts"]
    ungraded = [reward is None for reward in rollout["rewards"]]
    assert 0 < sum(ungraded) < PROMPTS * GROUP and rollout["removed"] == ungraded
    assert [sums == 0 for sums in rollout["mask_sums"]] == ungraded
    assert all(advantage == 0 for advantage, out in zip(rollout["advantages"], ungraded) if out)
    for start in range(0, PROMPTS * GROUP, GROUP):
        assert abs(sum(rollout["advantages"][start : start + GROUP])) < 1e-4
    assert rollout["metrics"]["grading/ungraded"] == pytest.approx(sum(ungraded) / len(ungraded))
    assert None not in rollout["raw_reward"]


def test_a_grader_that_is_down_ends_the_run_with_its_reason(loop, tokens):
    with FaultyEngine(tokens, fault=lambda text, number: 400) as engine:
        assert "no answer of this rollout could be graded: " in loop(engine.port, fails=True)


def test_surplus_groups_are_aborted_during_grading_and_the_next_rollout_is_whole(loop, tokens):
    """Twice as many groups as needed, half of them graded slowly: slime aborts them while they are being graded.

    The first 16 prompts are two rollouts' worth: the second has the second half of them, and nothing of the first.
    """
    slow = [f"question {number}<" for number in range(0, 16, 2)]

    def fault(text, number):
        return 60.0 if any(question in text.replace("\n", "<") for question in slow) else None

    flags = (
        "--over-sampling-batch-size",
        "8",
        "--dynamic-sampling-filter-path",
        "self_reward_rm.keep_informative",
    )
    with FaultyEngine(tokens, fault=fault) as engine:
        result = loop(engine.port, *flags, rollouts=2)
        assert engine.aborts > 0
    for rollout in result["rollouts"]:
        assert [len(group) for group in rollout["groups"]] == [
            GROUP
        ] * PROMPTS and None not in rollout["rewards"]
        assert set(rollout["statuses"]) == {"completed"} and not any(rollout["removed"])
    first, second = (
        {index for group in rollout["groups"] for index in group} for rollout in result["rollouts"]
    )
    assert not first & second and result["eval"]["eval/held_out"] is not None


def test_flat_groups_are_dropped_and_replaced(loop, tokens):
    """Prompts whose answers all get the same reward give way to others."""
    flat = [f"question {number}\n" for number in range(8)]

    def p(text: str, number: int) -> float:
        same = any(
            question.strip() + "\n" in text or question.strip() + "<" in text for question in flat
        )
        return 0.9 if same else 0.05 + 0.9 * (number % 2)

    flags = (
        "--over-sampling-batch-size",
        "4",
        "--dynamic-sampling-filter-path",
        "self_reward_rm.keep_informative",
    )
    with FaultyEngine(tokens, p=p) as engine:
        (rollout,) = loop(engine.port, *flags)["rollouts"]
        assert engine.generated >= PROMPTS * GROUP
    for start in range(0, PROMPTS * GROUP, GROUP):
        assert len(set(rollout["rewards"][start : start + GROUP])) > 1


@pytest.mark.stack
def test_two_engines_behind_the_real_router_share_the_answers_but_not_the_criteria_of_one(
    loop, tokens, tmp_path
):
    """Router policy `manual`: an answer's criteria stay together, whichever engine wrote it."""
    port = cpu.free_port()
    with (
        FaultyEngine(tokens) as one,
        FaultyEngine(tokens) as two,
        cpu.start_router([one.url, two.url], port, tmp_path),
    ):
        result = loop(port, "--over-sampling-batch-size", "4", rollouts=1)
    assert (
        None not in result["rollouts"][0]["rewards"] and result["eval"]["eval/held_out"] is not None
    )
    assert one.generated and two.generated and one.keys and two.keys
    assert not set(one.keys) & set(two.keys) and "" not in one.keys + two.keys
    assert set((one.keys + two.keys).values()) == {3}


def test_answers_that_fan_out_are_all_graded_and_filtered_as_one_group(loop, tokens):
    flags = ("--custom-generate-function-path", "fan_out.generate", "--over-sampling-batch-size", "4",
             "--dynamic-sampling-filter-path", "self_reward_rm.keep_informative")  # fmt: skip
    with FaultyEngine(tokens) as engine:
        (rollout,) = loop(engine.port, *flags)["rollouts"]
    assert [len(group) for group in rollout["groups"]] == [
        2 * GROUP
    ] * PROMPTS and None not in rollout["rewards"]
    for start in range(0, 2 * PROMPTS * GROUP, 2 * GROUP):
        assert len(set(rollout["rewards"][start : start + 2 * GROUP])) > 1
        assert abs(sum(rollout["advantages"][start : start + 2 * GROUP])) < 1e-4


def test_a_teacher_grades_whole_groups_of_its_share_and_no_evaluation(
    loop, tokens, rows, monkeypatch
):
    monkeypatch.setenv("TEACHER_KEY", "k")
    with FaultyEngine(tokens) as engine, FaultyEngine(tokens) as teacher:
        (rows / "teacher.yaml").write_text(
            f"grader_api: openai\ngrader_url: {teacher.url}\ngrader_model: m\n"
        )
        grader = f"grader_teacher: {rows / 'teacher.yaml'}\ngrader_teacher_share: 0.5\n"
        result = loop(engine.port, grader=grader, rollouts=2)
    graders = dict(
        pair for rollout in result["rollouts"] for pair in map(tuple, rollout["graders"])
    )
    assert all(
        (share_of(prompt_id) < 0.5) == (name == "teacher") for prompt_id, name in graders.items()
    )
    assert set(graders.values()) == {"teacher", "policy"}
    assert all(
        dict(map(tuple, rollout["graders"]))[p] == name
        for rollout in result["rollouts"]
        for p, name in rollout["graders"]
    )


@pytest.mark.stack
def test_the_real_engine_answers_and_grades_in_slimes_loop(loop, engine):
    flags = ("--over-sampling-batch-size", "6", "--rollout-max-response-len", "24")
    result = loop(engine.router_port, *flags, rollouts=2)
    for rollout in result["rollouts"]:
        assert [len(group) for group in rollout["groups"]] == [
            GROUP
        ] * PROMPTS and None not in rollout["rewards"]
        assert rollout["metrics"]["grading/ungraded"] == 0
    assert "eval/held_out" in result["eval"]
