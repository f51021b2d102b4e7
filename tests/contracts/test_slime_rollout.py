"""slime's rollout loop with this repository's hooks: an engine that fails, the real one on the CPU.

The small rollouts have PROMPTS groups of GROUP answers, with three criteria each.
"""

import itertools
import json
import re
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest
from faulty_engine import FaultyEngine

from rubric_rl.common.hash_share import share_of
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.cpu import engine as cpu
from rubric_rl.grading.health import CHECK

pytestmark = pytest.mark.contract

LOOP = Path(__file__).parent / "slime_loop.py"
PROMPTS, GROUP = 4, 4
ANSWERS = PROMPTS * GROUP
POINTS = (5, 3, -2)
FAULTS = (500, 429, "reset", "garbage", 503)
HOURS = 7200.0  # seconds; a test that waits for them fails

FLAGS = f"""
--debug-rollout-only --rollout-num-gpus 1
--custom-rollout-log-function-path self_reward_rm.log_rollout
--custom-eval-rollout-log-function-path self_reward_rm.log_eval
--rollout-batch-size {PROMPTS} --n-samples-per-prompt {GROUP}
--global-batch-size {ANSWERS}
"""
DROP_FLAT_GROUPS = "--dynamic-sampling-filter-path self_reward_rm.keep_informative"


def make_row(number: int) -> dict:
    """A row with a question of its own."""
    messages = [{"role": "user", "content": f"question {number}"}]
    rubrics = []
    for i, points in enumerate(POINTS):
        criterion = f"criterion {i}"
        rubrics.append({"criterion": criterion, "points": points, "tags": ["axis:accuracy"]})
    metadata = {
        "prompt_id": f"id{number}",
        "messages": messages,
        "rubrics": rubrics,
        "theme": "t",
    }
    return {"prompt": messages, "metadata": metadata}


def row_of(text: str) -> int | None:
    """The row that a grading request is about; None for the check question."""
    found = re.search(r"question (\d+)", text)
    return int(found[1]) if found else None


def by_group(values: list, size: int = GROUP) -> list[list]:
    """The values of a rollout's samples, group by group."""
    starts = range(0, len(values), size)
    return [values[start : start + size] for start in starts]


def indices(rollout: dict) -> set[int]:
    """The samples of a rollout."""
    return {index for group in rollout["groups"] for index in group}


def on_disk(rows: Path, split: str) -> list[dict]:
    """The records of a run's training or evaluation."""
    records = []
    for path in (rows / "run" / "verdicts").glob("*.jsonl"):
        records += [json.loads(line) for line in path.read_text().splitlines()]
    return [record for record in records if record["split"] == split]


def graders_on_disk(rows: Path, split: str) -> list[str]:
    """Who graded each of them."""
    return [record["grader"] for record in on_disk(rows, split)]


def assert_whole(rollout: dict, group: int = GROUP) -> None:
    """Every group has all its answers, and every answer its reward."""
    sizes = [len(members) for members in rollout["groups"]]
    assert sizes == [group] * PROMPTS
    assert None not in rollout["rewards"]


def assert_advantages_cancel(rollout: dict, group: int = GROUP) -> None:
    """The advantages of each group sum to 0."""
    assert len(rollout["advantages"]) == PROMPTS * group
    for advantages in by_group(rollout["advantages"], group):
        assert abs(sum(advantages)) < 1e-4


@pytest.fixture
def rows(tmp_path):
    """Folder with 16 training and 4 evaluation rows of three criteria each."""
    easy = [make_row(number) for number in range(16)]
    hard = [make_row(number) for number in range(16, 20)]
    write_jsonl(tmp_path / "healthbench_easy.jsonl", easy)
    write_jsonl(tmp_path / "healthbench_hard.jsonl", hard)
    return tmp_path


@pytest.fixture
def model(tiny_model) -> str:
    """The folder of the tokenizer."""
    return str(tiny_model)


@pytest.fixture
def loop(slime, rows, tiny_model):
    """Function: rollouts of slime's loop at a port, with the tiny run's own flags.

    It returns what slime_loop.py prints, or its stderr where it has to fail.
    """

    def run(
        port: int,
        flags: str = "",
        rollouts: int = 1,
        grader: str = "grader_timeout: 20\n",
        fails: bool = False,
    ):
        config = rows / "grader.yaml"
        config.write_text("grader_mode: direct\ngrader_retries: 2\n" + grader)
        env = {
            "BACKEND": "slime",
            "HF_CKPT_PATH": str(tiny_model),
            "PROMPT_DATA_PATH": str(rows / "healthbench_easy.jsonl"),
            "EVAL_DATA_PATH": str(rows / "healthbench_hard.jsonl"),
            "SAVE_PATH": str(rows / "run"),
            "GRADER_CONFIG": str(config),
        }
        own = f"{FLAGS} {flags}".split()
        words = slime.arguments("run_qwen3_tiny.sh", env, *own)
        done = slime.run(LOOP, "127.0.0.1", port, rollouts, *words, **env)
        if fails:
            assert done.returncode != 0
            return done.stderr
        assert done.returncode == 0, done.stderr[-4000:]
        last_line = done.stdout.strip().splitlines()[-1]
        return json.loads(last_line)

    return run


def test_rollouts_rewards_advantages_metrics_and_evaluation(loop, model, rows):
    with FaultyEngine(model) as engine:
        result = loop(engine.port, rollouts=2)
    first, second = result["rollouts"]
    assert_whole(first)
    assert set(first["statuses"]) == {"completed"}
    assert not indices(first) & indices(second)
    assert not any(first["removed"])
    assert first["raw_reward"] == first["rewards"]
    assert_advantages_cancel(first)
    metrics = first["metrics"]
    assert metrics["grading/ungraded"] == 0
    assert "grading/axis/accuracy" in metrics
    assert "rollout/response_len/mean" in metrics  # slime's own figures stay
    assert result["eval"]["eval/held_out"] is not None

    training = graders_on_disk(rows, "train")
    assert training == ["policy"] * 2 * ANSWERS
    assert set(graders_on_disk(rows, "eval")) == {"policy"}


def test_passing_faults_of_the_grader_change_no_reward(loop, model):
    def fault(text, number):
        """Every other one of the first requests fails; what is sent again comes after them."""
        turn, phase = divmod(number, 2)
        if number < ANSWERS and phase == 0:
            return FAULTS[turn % len(FAULTS)]
        return None

    with FaultyEngine(model, fault, p=lambda text, number: 0.9) as engine:
        (rollout,) = loop(engine.port)["rollouts"]
    all_met = sum(POINTS) / (5 + 3)
    assert rollout["rewards"] == pytest.approx([all_met] * ANSWERS)
    assert not any(rollout["removed"])


def test_ungraded_answers_leave_their_group_and_the_loss(loop, model):
    """Answers of which the engine refuses a criterion stay ungraded; the others are compared."""
    turns = itertools.count()

    def fault(text, number):
        """Refuses every third answer's first criterion, which is asked by itself."""
        asked_first = "criterion 0" in text
        return 400 if asked_first and next(turns) % 3 == 0 else None

    with FaultyEngine(model, fault) as engine:
        (rollout,) = loop(engine.port)["rollouts"]
    ungraded = [reward is None for reward in rollout["rewards"]]
    assert 0 < sum(ungraded) < ANSWERS
    assert rollout["removed"] == ungraded
    masked_out = [mask_sum == 0 for mask_sum in rollout["mask_sums"]]
    assert masked_out == ungraded
    for advantage, is_out in zip(rollout["advantages"], ungraded, strict=True):
        assert advantage == 0 or not is_out
    assert_advantages_cancel(rollout)
    share = sum(ungraded) / len(ungraded)
    assert rollout["metrics"]["grading/ungraded"] == pytest.approx(share)
    assert None not in rollout["raw_reward"]


def test_a_grader_that_is_down_ends_the_run_with_its_reason(loop, model):
    with FaultyEngine(model, fault=lambda text, number: 400) as engine:
        stderr = loop(engine.port, fails=True)
    assert "no answer of this rollout could be graded: " in stderr


def test_the_grading_of_surplus_groups_ends_with_the_rollout(loop, model):
    """Twice as many groups as needed, and only the first ones are ever graded.

    slime 0.3 has the engines abort the others, 0.4 nobody: the hook ends its questions itself.
    """
    needed: set[int] = set()
    held: Counter[int] = Counter()

    def fault(text, number):
        row = row_of(text)
        if row not in range(16):  # of an evaluation, or none
            return None
        if len(needed) < PROMPTS:
            needed.add(row)
        if row in needed:
            return None
        held[row] += 1
        return HOURS

    flags = f"--over-sampling-batch-size {2 * PROMPTS}"
    with FaultyEngine(model, fault) as engine:
        (rollout,) = loop(engine.port, flags, grader=f"grader_timeout: {HOURS}\n")["rollouts"]
    assert_whole(rollout)
    assert len(held) == PROMPTS


def test_surplus_groups_are_aborted_during_grading_and_the_next_rollout_is_whole(loop, model):
    """Twice as many groups as needed, half of them graded slowly: slime aborts those meanwhile.

    The first 16 prompts are two rollouts' worth: the second has the second half of them, and
    nothing of the first.
    """

    def fault(text, number):
        return 60.0 if row_of(text) in range(0, 16, 2) else None

    flags = f"--over-sampling-batch-size {2 * PROMPTS} {DROP_FLAT_GROUPS}"
    with FaultyEngine(model, fault) as engine:
        result = loop(engine.port, flags, rollouts=2)
    for rollout in result["rollouts"]:
        assert [len(members) for members in rollout["groups"]] == [GROUP] * PROMPTS
        assert set(rollout["statuses"]) == {"completed"}
        # Where a flat group made room for a slow one, that was asked about in vain: it is kept.
        assert rollout["removed"] == [reward is None for reward in rollout["rewards"]]
        assert not all(rollout["removed"])
    first, second = result["rollouts"]
    assert not indices(first) & indices(second)
    assert result["eval"]["eval/held_out"] is not None


def test_flat_groups_are_dropped_and_replaced(loop, model):
    """Prompts whose answers all get the same reward give way to others."""

    def p(text: str, number: int) -> float:
        if row_of(text) in range(8):
            return 0.9
        return 0.95 if number % 2 else 0.05

    flags = f"--over-sampling-batch-size {PROMPTS} {DROP_FLAT_GROUPS}"
    with FaultyEngine(model, p=p) as engine:
        (rollout,) = loop(engine.port, flags)["rollouts"]
        assert engine.generated >= ANSWERS
    assert len(rollout["rewards"]) == ANSWERS
    for rewards in by_group(rollout["rewards"]):
        assert len(set(rewards)) > 1


@pytest.mark.stack
def test_two_engines_behind_the_real_router_share_the_answers_but_not_the_criteria_of_one(
    loop, model, tmp_path
):
    """Router policy `manual`: an answer's criteria stay together, whichever engine wrote it."""
    port = cpu.free_port()
    with (
        FaultyEngine(model) as one,
        FaultyEngine(model) as two,
        cpu.start_router([one.url, two.url], port, tmp_path),
    ):
        result = loop(port, f"--over-sampling-batch-size {PROMPTS}")
    (rollout,) = result["rollouts"]
    assert None not in rollout["rewards"]
    assert result["eval"]["eval/held_out"] is not None
    for engine in (one, two):
        assert engine.generated
        assert engine.keys
    assert not set(one.keys) & set(two.keys)
    requests = one.keys + two.keys
    assert requests.pop(quote(CHECK.prompt_id)) == len(CHECK.rubric)
    assert "" not in requests
    assert set(requests.values()) == {len(POINTS)}


def test_answers_that_fan_out_are_all_graded_and_filtered_as_one_group(loop, model):
    flags = f"--over-sampling-batch-size {PROMPTS} {DROP_FLAT_GROUPS}"
    fan_out = "--custom-generate-function-path fan_out.generate"
    with FaultyEngine(model) as engine:
        (rollout,) = loop(engine.port, f"{flags} {fan_out}")["rollouts"]
    assert_whole(rollout, 2 * GROUP)
    for rewards in by_group(rollout["rewards"], 2 * GROUP):
        assert len(set(rewards)) > 1
    assert_advantages_cancel(rollout, 2 * GROUP)


def test_a_teacher_grades_whole_groups_of_its_share_and_no_evaluation(loop, model, rows):
    with FaultyEngine(model) as engine, FaultyEngine(model) as teacher:
        path = rows / "teacher.yaml"
        path.write_text(f"grader_api: openai\ngrader_url: {teacher.url}\ngrader_model: m\n")
        grader = f"grader_teacher: {path}\ngrader_teacher_share: 0.5\n"
        result = loop(engine.port, grader=grader, rollouts=2)
    names = set()
    for rollout in result["rollouts"]:
        for prompt_id, name in rollout["graders"]:
            is_teachers = share_of(prompt_id, "teacher") < 0.5
            assert name == ("teacher" if is_teachers else "policy")
            names.add(name)
    assert names == {"teacher", "policy"}
    assert set(graders_on_disk(rows, "eval")) == {"policy"}


def test_the_fully_asynchronous_rollout_grades_on_over_an_update_of_the_weights(loop, model, rows):
    """The gradings in flight are aborted; the new weights grade the old ones' answers."""
    path = "--rollout-function-path slime.rollout.fully_async_rollout.generate_rollout_fully_async"
    engine = FaultyEngine(model, update_at=GROUP)

    def fault(text, number):
        of_an_answer = re.search(r"question \d", text)
        return 60.0 if of_an_answer and not engine.version else None

    engine.fault = fault
    with engine:
        result = loop(engine.port, f"{path} --sglang-server-concurrency {GROUP}", rollouts=2)
    first, second = result["rollouts"]
    for rollout in (first, second):
        assert_whole(rollout)
        assert set(rollout["statuses"]) == {"completed"}
        assert not any(rollout["removed"])
        assert_advantages_cancel(rollout)
        assert rollout["metrics"]["grading/ungraded"] == 0
        assert "rollout/response_len/mean" in rollout["metrics"]  # slime's own figures stay
    assert 0 < first["metrics"]["grading/grader_age"] <= 1
    assert second["metrics"]["grading/grader_age"] < 1

    assert not indices(first) & indices(second)
    records = on_disk(rows, "train")
    graded = [record["index"] for record in records]
    assert len(graded) == len(set(graded))
    assert indices(first) | indices(second) <= set(graded)
    assert all(record["grader_versions"] == ["1"] for record in records)


@pytest.mark.stack
def test_the_real_engine_answers_and_grades_in_slimes_loop(loop, engine):
    flags = "--over-sampling-batch-size 6 --rollout-max-response-len 24"
    result = loop(engine.router_port, flags, rollouts=2)
    for rollout in result["rollouts"]:
        assert_whole(rollout)
        assert rollout["metrics"]["grading/ungraded"] == 0
    assert "eval/held_out" in result["eval"]
