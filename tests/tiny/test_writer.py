"""The tiny writer's faults are found by the filters made for them; a killed run loses nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from rubric_rl import ROOT
from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.data.row_file import read_rows
from rubric_rl.data.schema import Criterion
from rubric_rl.generation.filters import Filters
from rubric_rl.generation.writer_prompt import writer_prompt
from rubric_rl.tiny.measure_filters import FilterCounts, measured
from rubric_rl.tiny.oracle import statement_asked_by, truth
from rubric_rl.tiny.prompts_and_answers import prompts_and_answers
from rubric_rl.tiny.world import Pair, pair_of, rows
from rubric_rl.tiny.writer import FAULTS, completion, pair_told_in, written_rubric

GOUT = "user: I have a hot swollen toe. I am a child. What should I do?"


@pytest.fixture(scope="module")
def counts() -> FilterCounts:
    return measured(seeds=1)


class TestFilters:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_catch_nine_in_ten_of_the_faults_made_for_them(self, counts, fault):
        assert counts.made[fault] >= 300
        assert counts.caught[fault] >= 0.9 * counts.made[fault]

    @pytest.mark.parametrize("name", list(FAULTS.values()))
    def test_drop_few_good_criteria(self, counts, name):
        assert counts.good_dropped[name] <= 0.05 * counts.good

    def test_drop_few_good_criteria_together(self, counts):
        assert counts.good_dropped.total() <= 0.05 * counts.good

    def test_switched_off_let_their_faults_pass(self):
        off = Filters(unsteady=False, disagreeing=False, always_met=False, never_met=False)
        counts = measured(seeds=1, answers=4, filters=off)
        for fault in ("vague", "wrong sign", "met by all", "unmeetable"):
            assert counts.caught[fault] == 0
            assert counts.by_others[fault] < 0.2 * counts.made[fault]


class TestWriter:
    def test_knows_every_patient_from_the_conversation(self):
        for held_out in (False, True):
            for row in rows(held_out):
                said = "\n\n".join(message["content"] for message in row.messages)
                assert pair_told_in(said) == pair_of(row)

    def test_writes_the_same_for_the_same_seed_and_another_for_another(self):
        assert written_rubric(GOUT, 3) == written_rubric(GOUT, 3)
        assert written_rubric(GOUT, 3) != written_rubric(GOUT, 4)

    def test_writes_only_what_the_oracle_can_judge(self):
        for seed in range(50):
            rubric = [Criterion(each.text, each.points) for each in written_rubric(GOUT, seed, 1)]
            truth(rubric, "Please take codeine.", seed)

    def test_without_faults_everything_is_good(self):
        assert {each.kind for each in written_rubric(GOUT, 0, 0.0)} == {"good"}

    def test_answers_the_prompt_of_generate(self):
        messages = [{"role": "user", "content": GOUT.removeprefix("user: ")}]
        for reference in ("", "This sounds like gout."):
            content = writer_prompt(messages, reference)
            reply = completion({"messages": [{"role": "user", "content": content}], "seed": 3})
            said = json.loads(reply["choices"][0]["message"]["content"])["criteria"]
            texts = [(item["criterion"], item["points"]) for item in said]
            assert texts == [(each.text, each.points) for each in written_rubric(GOUT, 3)]

    @pytest.mark.parametrize(
        "content, why",
        [
            ("Write a rubric, please.", "no writer's prompt"),
            (writer_prompt([{"role": "user", "content": "Hello"}]), "none of the tiny world"),
            (writer_prompt([{"role": "user", "content": GOUT}]) + "!", "no writer's prompt"),
        ],
    )
    def test_refuses_what_is_no_prompt_about_its_patients(self, content, why):
        with pytest.raises(UserError, match=why):
            completion({"messages": [{"role": "user", "content": content}]})


class TestAnswers:
    def test_are_of_every_quality_and_pairs_of_them_are_known(self):
        prompts, answers = prompts_and_answers(held_out=True)
        assert set(Counter(line["prompt_id"] for line in answers).values()) == {16}
        assert sum(len(prompt["pairs"]) for prompt in prompts) > 1.8 * len(prompts)


@pytest.fixture(scope="module")
def urls() -> Iterator[list[str]]:
    """The writer's and the oracle's."""
    servers = []
    for name in ("writer", "oracle"):
        command = [sys.executable, "-m", f"rubric_rl.tiny.{name}", "--serve", "0"]
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        servers.append(server)
    found = []
    for server in servers:
        assert server.stdout
        found.append(server.stdout.readline().split()[1])
    yield found
    for server in servers:
        server.terminate()
        server.wait(10)


def command(folder: Path, urls: list[str], out: str) -> list[str]:
    writer, oracle = urls
    words = (
        f"--prompts {folder}/prompts.jsonl --answers {folder}/answers.jsonl --out {folder}/{out}"
    )
    words += f" --writer-api openai --writer-url {writer} --writer-model tiny-writer"
    words += f" --grader-api openai --grader-url {oracle} --grader-model tiny-oracle"
    words += " --grader-concurrency 32"
    return [sys.executable, "-m", "rubric_rl.generate", *words.split()]


def line_count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_a_kill_in_the_middle_loses_nothing_and_asks_nothing_twice(urls, tmp_path):
    prompts, answers = prompts_and_answers(held_out=True, number=6)
    write_jsonl(tmp_path / "prompts.jsonl", prompts[::27])
    write_jsonl(tmp_path / "answers.jsonl", answers)
    whole = subprocess.run(command(tmp_path, urls, "whole"), cwd=ROOT, capture_output=True)
    assert whole.returncode == 0, whole.stderr
    calls = tmp_path / "killed" / "calls.jsonl"
    for share in (0.3, 0.7):
        process = subprocess.Popen(command(tmp_path, urls, "killed"), cwd=ROOT)
        while line_count(calls) < share * line_count(tmp_path / "whole" / "calls.jsonl"):
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command(tmp_path, urls, "killed"), cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    rows_of = [tmp_path / out / "rows.jsonl" for out in ("whole", "killed")]
    made, again = (path.read_bytes() for path in rows_of)
    assert made == again
    # What was in flight at a kill is asked again; what was stored is not.
    asked = Counter(json.loads(line)["question"] for line in calls.read_bytes().splitlines())
    expected = Counter(
        json.loads(line)["question"]
        for line in (tmp_path / "whole" / "calls.jsonl").read_bytes().splitlines()
    )
    assert asked == expected


@pytest.mark.slow
def test_what_is_kept_is_worded_as_the_tiny_checkpoint_knows_it(urls, tmp_path):
    prompts, answers = prompts_and_answers(held_out=True)
    write_jsonl(tmp_path / "prompts.jsonl", prompts[::27])
    write_jsonl(tmp_path / "answers.jsonl", answers)
    words = [*command(tmp_path, urls, "run"), "--filter-polarity", "drop"]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    rows_made = read_rows(tmp_path / "run" / "rows.jsonl")
    assert len(rows_made) == len(prompts[::27])
    for row in rows_made:
        assert isinstance(pair_of(row), Pair)
        for criterion in row.rubric:
            statement_asked_by(criterion.text)
