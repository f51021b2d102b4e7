"""Records on disk: one line per answer, the same rewards from them without a model, their sums."""

import json
import math
import os
import re
import socket
import stat
import subprocess
import sys
import time

import pytest
from doubles.records import made, said

from rubric_rl import ROOT
from rubric_rl.common.errors import DataError
from rubric_rl.common.jsonl import read_jsonl
from rubric_rl.data.record_file import append_record
from rubric_rl.data.schema import Criterion, Record, Verdict
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.rescore import rescore
from rubric_rl.evaluation.rollout_metrics import flat_share, grading_metrics, is_flat, score_by
from rubric_rl.evaluation.scoring_rule import ScoringRule

RUBRIC = (
    Criterion("a", 6, ("axis:accuracy",)),
    Criterion("b", -4, ("axis:accuracy",)),
    Criterion("c", 2, ("axis:tone",)),
)


def record(
    index: int = 0,
    status: str = "graded",
    mets: tuple = (True, False, None),
    split: str = "train",
    version: str = "1",
    prompt_id: str = "p1",
    **changes,
) -> Record:
    """A record as the hooks write it."""
    answer = "Hi \u2028 there"
    return made(
        prompt_id, RUBRIC, mets, answer, status, index, weights=version, split=split, **changes
    )


def append(folder, *records: Record) -> None:
    for each in records:
        append_record(folder, each)


def stored(folder) -> list[Record]:
    return list(Run(folder, every=True))


def rescored(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "rubric_rl.rescore", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


class TestFiles:
    def test_each_answer_is_one_line_of_its_weight_versions_file(self, tmp_path):
        written = [record(0), record(1, "ungraded"), record(0, version="2")]
        append(tmp_path / "verdicts", *written)
        first, second = sorted((tmp_path / "verdicts").iterdir())
        assert first.name.startswith(f"weights_1.{socket.gethostname()}.{os.getpid()}-")
        assert second.name == first.name.replace("weights_1.", "weights_2.")
        assert first.read_bytes().count(b"\n") == 2
        assert stored(tmp_path / "verdicts") == written

    def test_only_the_user_may_read_them(self, tmp_path):
        append(tmp_path / "verdicts", record(0))
        (file,) = (tmp_path / "verdicts").iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700

    def test_a_record_says_when_it_was_written_and_none_at_the_same_time(self, tmp_path):
        before = time.time()
        append(tmp_path, *(record(index) for index in range(50)))
        times = [each.time for each in stored(tmp_path)]
        assert before - 1 < times[0] < time.time() + 1
        assert times == sorted(set(times))

    def test_after_a_restart_the_last_record_of_an_answer_counts(self, tmp_path):
        again = record(0, mets=(False, True, True))
        others = [record(1), record(0, split="eval"), record(0, prompt_id="p2")]
        append(tmp_path, record(0), again, *others)
        assert sorted(stored(tmp_path), key=repr) == sorted([again, *others], key=repr)

    @pytest.mark.parametrize("cut_off", [1, 5, 60])
    def test_a_line_that_a_kill_cut_is_ignored_and_spoils_no_later_one(self, tmp_path, cut_off):
        append(tmp_path, record(0), record(1))
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:-cut_off])
        assert [each.index for each in stored(tmp_path)] == [0]
        append(tmp_path, record(2))
        assert [each.index for each in stored(tmp_path)] == [0, 2]

    def test_an_explanation_with_half_a_surrogate_pair_is_kept(self, tmp_path):
        append(tmp_path, record(explanation="half \ud83d"))
        (found,) = stored(tmp_path)
        assert found.verdicts[0] == Verdict(True, None, "half \ud83d")

    @pytest.mark.parametrize("version", ["../../x", "a/b", "default", "7"])
    def test_no_weight_version_leads_out_of_the_folder(self, tmp_path, version):
        append(tmp_path / "verdicts", record(version=version))
        assert [path.parent for path in tmp_path.rglob("*.jsonl")] == [tmp_path / "verdicts"]
        assert len(stored(tmp_path / "verdicts")) == 1

    @pytest.mark.parametrize(
        "line",
        [
            "{}",
            "[]",
            '{"status": "graded"}',
            '{"broken',
            json.dumps(record().to_json() | {"verdicts": [{"met": True}]}),
            json.dumps(record().to_json() | {"score": None}),
            json.dumps(record().to_json() | {"status": "fine"}),
        ],
    )
    def test_what_is_no_record_is_named_by_file_and_line(self, tmp_path, line):
        append(tmp_path, record())
        (file,) = tmp_path.iterdir()
        file.write_text(file.read_text() + line + "\n")
        with pytest.raises(DataError, match=rf"{re.escape(file.name)}:2"):
            stored(tmp_path)
        done = rescored(tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1

    def test_a_meta_evaluation_is_named_as_one(self, tmp_path):
        (tmp_path / "meta").mkdir()
        (tmp_path / "calls.jsonl").write_text("{}\n")
        complaint = "is a meta-evaluation, which has no verdict records; name an evaluation's"
        with pytest.raises(DataError, match=complaint):
            Run(tmp_path)

    def test_an_empty_folder_is_refused(self, tmp_path):
        with pytest.raises(DataError, match="holds no verdict records"):
            stored(tmp_path)


class TestRescoring:
    @pytest.mark.parametrize(
        "item, reward",
        [
            (record(mets=(True, True, True)), 4 / 8),
            (record(mets=(None, None, None)), -4 / 8),
            (record(status="no_answer"), 0.0),
            (record(status="truncated"), 0.0),
            (record(status="ungraded"), math.nan),
        ],
    )
    def test_the_reward_comes_from_the_verdicts(self, item, reward):
        assert ScoringRule().score(item) == pytest.approx(reward, nan_ok=True)

    def test_equals_what_was_stored_and_shows_what_does_not(self, tmp_path):
        truncated, held_out = record(2, "truncated"), record(3, split="eval")
        append(tmp_path / "v", record(0), record(1, "ungraded"), truncated, held_out)
        done = rescored(tmp_path / "v", "--out", tmp_path / "out.jsonl")
        assert done.returncode == 0
        assert "4 answers, 0 of them with another score" in done.stdout
        rows = [row for _, row in read_jsonl(tmp_path / "out.jsonl")]
        before = [row["score"] for row in rows]
        assert [row["rescored"] for row in rows] == before == [6 / 8, None, 0.0, 6 / 8]
        append(tmp_path / "v", record(0, score=0.9))
        assert "4 answers, 1 of them with another score" in rescored(tmp_path / "v").stdout

    def test_follows_points_that_were_mended(self):
        item = record(mets=(True, True, False))
        mended = item.rubric[1]._replace(points=-2)
        item.rubric = (item.rubric[0], mended, item.rubric[2])
        (row,) = rescore([item])
        assert (row["score"], row["rescored"]) == (2 / 8, 4 / 8)


class TestMetrics:
    RECORDS = (
        record(0),
        record(1, mets=(False, True, True)),
        record(2, "ungraded"),
        record(3, "no_answer"),
    )

    def test_parts_of_the_reward(self):
        metrics = grading_metrics(self.RECORDS)
        assert metrics["theme/t"] == pytest.approx((6 / 8 - 2 / 8 + 0) / 3)
        assert metrics["axis/accuracy"] == pytest.approx((6 / 6 - 4 / 6) / 2)
        assert metrics["axis/tone"] == pytest.approx((0 + 1) / 2)
        assert metrics["negative_hit"] == 1 / 2
        assert metrics["unreadable"] == 1 / 6
        assert metrics["finished"] == 0
        assert metrics["ungraded"] == metrics["no_answer"] == 1 / 4
        assert metrics["truncated"] == 0

    def test_cost(self):
        metrics = grading_metrics(self.RECORDS)
        assert metrics["tokens_prefilled"] == 480
        assert metrics["tokens_cached"] == 720
        assert metrics["tokens_decoded"] == 84
        assert metrics["cached_share_after_first"] == 0.9
        assert metrics["seconds_per_answer"] == 0.5

    @pytest.mark.parametrize(
        "answered, graded, age",
        [
            ("4", ["4"], 0.0),
            ("4", ["5"], 1.0),
            ("4", ["4", "5"], 0.5),
            ("4", [], None),
            ("4", ["default"], None),
            ("none", ["4"], None),
        ],
    )
    def test_the_age_of_the_grader_is_its_distance_from_the_answers_weights(
        self, answered, graded, age
    ):
        fields = {"version": answered, "grader_versions": graded}
        assert grading_metrics([record(grader="policy", **fields)]).get("grader_age") == age
        assert "grader_age" not in grading_metrics([record(grader="teacher", **fields)])

    def test_the_age_of_the_grader_is_a_mean_over_answers(self):
        ages = [record(i, grader="policy", grader_versions=[v]) for i, v in enumerate("123")]
        assert grading_metrics(ages)["grader_age"] == 1.0

    def test_nothing_graded_is_no_crash(self):
        assert grading_metrics([]) == {}
        assert grading_metrics([record(0, "ungraded")])["ungraded"] == 1
        metrics = grading_metrics([record(0, "no_answer")])
        assert all(math.isfinite(value) for value in metrics.values())


def test_parts_of_a_rubric_are_scored_on_their_own_criteria():
    criteria = [
        Criterion("a", 4, ("axis:x",)),
        Criterion("b", -2, ("axis:x",)),
        Criterion("c", -1, ("axis:y",)),
        Criterion("d", 2),
    ]
    parts = score_by(lambda c: c.tag("axis"), criteria, said(True, True, True, True))
    assert parts == {"x": 0.5}


def test_a_group_is_flat_when_it_teaches_nothing():
    for rewards in ([0.5, 0.5, math.nan], [0.5, math.nan], [math.nan], []):
        assert is_flat(rewards)
    assert not is_flat([0.5, 0.6])
    assert flat_share([0.5, 0.5, 0.1, 0.2], [0, 0, 1, 1]) == 0.5
    assert math.isnan(flat_share([], []))
