"""Fully asynchronous training, on doubles: event loops and processes that grade side by side.

slime's own worker is in test_slime_rollout.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from async_worker import GROUPS, LOOPS, SIZE
from doubles.engine import chat_model
from doubles.hooked import RUBRICS
from faulty_engine import ANSWER, FaultyEngine

from rubric_rl import ROOT
from rubric_rl.data.parse import record_from_json
from rubric_rl.data.schema import Record
from rubric_rl.evaluation.rollout_metrics import grading_metrics
from rubric_rl.grading.health import CHECK

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
PROCESSES = 2
ANSWERS = PROCESSES * LOOPS * GROUPS * SIZE
HELD = 60.0  # seconds, or until an abort


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return chat_model(tmp_path_factory.mktemp("model"))


def is_check(text: str) -> bool:
    """Whether a grader's question is its check question."""
    return CHECK.messages[0]["content"] in text


def work(engine: FaultyEngine, model: str, folder: Path, aborted: bool = False) -> list[dict]:
    """What the processes print, which all work at the same time."""
    paths = [str(ROOT), str(ROOT / "tests"), str(HERE)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    env.pop("RUBRIC_RL_RUN", None)
    running = []
    for number in range(PROCESSES):
        words = [number, engine.port, model, folder, int(aborted)]
        command = [sys.executable, str(HERE / "async_worker.py"), *map(str, words)]
        running.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE))
    try:
        printed = [process.communicate(timeout=300)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * PROCESSES
    return [json.loads(line) for line in printed]


def stored(folder: Path) -> list[Record]:
    """All records; those of a file are of one process, and each process has its own."""
    records = []
    runs = []
    for path in folder.glob("*.jsonl"):
        of_file = [record_from_json(json.loads(line)) for line in path.read_text().splitlines()]
        (run,) = {record.run for record in of_file}
        runs.append(run)
        records += of_file
    assert len(set(runs)) == PROCESSES
    return records


def assert_each_is_graded_once(results: list[dict], folder: Path) -> list[Record]:
    """The records of all answers."""
    for result in results:
        assert result["graders"] == LOOPS, "no loop has the clients of another one"
        assert result["rewards"] == [8 / 8] * (ANSWERS // PROCESSES)
        assert set(result["responses"]) == {ANSWER}, "nothing was written on after its end"
    records = stored(folder)
    assert sorted(record.index for record in records) == list(range(ANSWERS))
    for record in records:
        assert record.status == "graded"
        assert record.answer == ANSWER.removesuffix("<|im_end|>")
        assert len(record.verdicts) == len(RUBRICS)
    return records


def met_if_helpful(text: str, number: int) -> float:
    return 0.1 if "Insults." in text or "codeine" in text else 0.9


def test_gradings_aborted_by_an_update_of_the_weights_are_asked_again_of_the_new_ones(
    model, tmp_path
):
    engine = FaultyEngine(model, p=met_if_helpful, update_at=ANSWERS)
    engine.fault = lambda text, number: None if engine.version or is_check(text) else HELD
    with engine:
        results = work(engine, model, tmp_path)
    assert [result["without_reward"] for result in results] == [0] * PROCESSES
    assert engine.generated == ANSWERS
    records = assert_each_is_graded_once(results, tmp_path)
    for record in records:
        assert (record.weight_version, record.grader_versions) == ("0", ["1"])
    assert grading_metrics(records)["grader_age"] == 1


def test_gradings_that_slime_aborts_have_no_reward_and_are_graded_once_later(model, tmp_path):
    engine = FaultyEngine(model, p=met_if_helpful)
    engine.fault = lambda text, number: None if engine.aborts or is_check(text) else HELD
    with engine:
        results = work(engine, model, tmp_path, aborted=True)
    again = sum(result["without_reward"] for result in results)
    assert again > 0
    assert engine.generated == ANSWERS + again, "each of them was answered anew"
    assert_each_is_graded_once(results, tmp_path)
