"""Verdict records: one line per graded answer, and the same rewards from them without a model (stages 3 and 4)."""

import json
import math
import subprocess
import sys

import pytest

from rubric_rl import ROOT
from rubric_rl.data.schema import Criterion, Row
from rubric_rl.errors import DataError
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.rescore import rescore
from rubric_rl.evaluation.scoring_rule import Rule
from rubric_rl.grading.grade import Grading, Tokens
from rubric_rl.grading.record import append_record, grading_metrics
from rubric_rl.grading.score import score
from rubric_rl.jsonl import read_jsonl

RUBRIC = (
    Criterion("a", 6, ("axis:accuracy",)),
    Criterion("b", -4, ("axis:accuracy",)),
    Criterion("c", 2, ("axis:tone",)),
)
ROW = Row("p1", ({"role": "user", "content": "hi"},), RUBRIC, theme="t")


def record(
    index=0, status="graded", verdicts=(True, False, None), split="train", version="1", **changes
) -> dict:
    """A record as the hooks write it."""
    if status == "graded":
        value, verdicts = score(RUBRIC, verdicts), list(verdicts)
    else:
        value, verdicts = (math.nan if status == "ungraded" else 0.0), []
    tokens = {"first_tokens": Tokens(100, 0, 7), "rest_tokens": Tokens(200, 180, 14)}
    grading = Grading(ROW, status, "Hi \u2028 there", value, verdicts, seconds=0.5, **tokens)
    return grading.record() | {"split": split, "index": index, "weight_version": version} | changes


def stored(folder) -> list[dict]:
    return list(Run(folder, every=True))


def rescored(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "rubric_rl.rescore", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_each_answer_is_one_line_of_its_weight_versions_file(tmp_path):
    written = [record(0), record(1, "ungraded"), record(0, version="2")]
    for item in written:
        append_record(tmp_path / "verdicts", item)
    assert [path.name for path in sorted((tmp_path / "verdicts").iterdir())] == [
        "weights_1.jsonl",
        "weights_2.jsonl",
    ]
    assert (tmp_path / "verdicts" / "weights_1.jsonl").read_bytes().count(b"\n") == 2
    assert stored(tmp_path / "verdicts") == written


def test_after_a_restart_the_last_record_of_an_answer_counts(tmp_path):
    again = record(0, verdicts=(False, True, True))
    for item in (record(0), record(1), again, record(0, split="eval"), record(0, prompt_id="p2")):
        append_record(tmp_path, item)
    assert len(stored(tmp_path)) == 4 and again in stored(tmp_path)


@pytest.mark.parametrize("cut_off", [1, 5, 60])
def test_a_line_that_a_kill_cut_is_ignored_and_spoils_no_later_one(tmp_path, cut_off):
    append_record(tmp_path, record(0))
    append_record(tmp_path, record(1))
    file = tmp_path / "weights_1.jsonl"
    file.write_bytes(file.read_bytes()[:-cut_off])
    assert stored(tmp_path) == [record(0)]
    append_record(tmp_path, record(2))
    assert stored(tmp_path) == [record(0), record(2)]


def test_an_explanation_with_half_a_surrogate_pair_is_kept(tmp_path):
    append_record(tmp_path, record(explanations=["half \ud83d"]))
    assert stored(tmp_path)[0]["explanations"] == ["half \ud83d"]


@pytest.mark.parametrize("version", ["../../x", "a/b", "default", "7"])
def test_no_weight_version_leads_out_of_the_folder(tmp_path, version):
    append_record(tmp_path / "verdicts", record(version=version))
    assert [path.parent for path in tmp_path.rglob("*.jsonl")] == [tmp_path / "verdicts"]
    assert len(stored(tmp_path / "verdicts")) == 1


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[]",
        '{"status": "graded"}',
        '{"broken',
        json.dumps(record() | {"verdicts": [True]}),
        json.dumps(record() | {"score": None}),
        json.dumps(record() | {"status": "fine"}),
    ],
)
def test_what_is_no_record_is_named_by_file_and_line(tmp_path, line):
    append_record(tmp_path, record())
    file = tmp_path / "weights_1.jsonl"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(DataError, match="weights_1.jsonl:2"):
        stored(tmp_path)
    done = rescored(tmp_path)
    assert (
        done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    )


def test_a_meta_evaluation_is_named_as_one(tmp_path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "calls.jsonl").write_text("{}\n")
    with pytest.raises(
        DataError, match="is a meta-evaluation, which has no verdict records; name an evaluation's"
    ):
        Run(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no verdict records"):
        stored(tmp_path)


@pytest.mark.parametrize(
    "item, reward",
    [
        (record(verdicts=(True, True, True)), 4 / 8),
        (record(verdicts=(None, None, None)), -4 / 8),
        (record(status="no_answer"), 0.0),
        (record(status="truncated"), 0.0),
        (record(status="ungraded"), math.nan),
    ],
)
def test_the_reward_comes_from_the_verdicts(item, reward):
    assert Rule().score(item) == pytest.approx(reward, nan_ok=True)


def test_rescoring_equals_what_was_stored_and_shows_what_does_not(tmp_path):
    for item in (record(0), record(1, "ungraded"), record(2, "truncated"), record(3, split="eval")):
        append_record(tmp_path / "v", item)
    done = rescored(tmp_path / "v", "--out", tmp_path / "out.jsonl")
    assert done.returncode == 0 and "4 answers, 0 of them with another score" in done.stdout
    rows = [row for _, row in read_jsonl(tmp_path / "out.jsonl")]
    assert (
        [row["rescored"] for row in rows]
        == [row["score"] for row in rows]
        == [6 / 8, None, 0.0, 6 / 8]
    )
    append_record(tmp_path / "v", record(0, score=0.9))
    assert "4 answers, 1 of them with another score" in rescored(tmp_path / "v").stdout


def test_rescoring_follows_points_that_were_mended():
    item = record(verdicts=(True, True, False))
    item["rubrics"][1]["points"] = -2
    (row,) = rescore([item])
    assert (row["score"], row["rescored"]) == (2 / 8, 4 / 8)


class TestMetrics:
    RECORDS = [
        record(0),
        record(1, verdicts=(False, True, True)),
        record(2, "ungraded"),
        record(3, "no_answer"),
    ]

    def test_parts_of_the_reward(self):
        metrics = grading_metrics(self.RECORDS)
        assert metrics["theme/t"] == pytest.approx((6 / 8 - 2 / 8 + 0) / 3)
        assert metrics["axis/accuracy"] == pytest.approx((6 / 6 - 4 / 6) / 2)
        assert metrics["axis/tone"] == pytest.approx((0 + 1) / 2)
        assert metrics["negative_hit"] == 1 / 2 and metrics["unreadable"] == 1 / 6
        assert (metrics["ungraded"], metrics["no_answer"], metrics["truncated"]) == (
            1 / 4,
            1 / 4,
            0,
        )

    def test_cost(self):
        metrics = grading_metrics(self.RECORDS)
        assert (
            metrics["tokens_prefilled"],
            metrics["tokens_cached"],
            metrics["tokens_decoded"],
        ) == (480, 720, 84)
        assert metrics["cached_share_after_first"] == 0.9 and metrics["seconds_per_answer"] == 0.5

    def test_nothing_graded_is_no_crash(self):
        assert grading_metrics([]) == {}
        assert grading_metrics([record(0, "ungraded")])["ungraded"] == 1
        assert all(
            math.isfinite(value) for value in grading_metrics([record(0, "no_answer")]).values()
        )
