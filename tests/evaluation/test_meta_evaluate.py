"""The grader against physicians: the reference's counting by hand, resume, the tiny world's oracle (stage 6)."""

import asyncio
import json
import sys

import numpy as np
import pytest
from doubles.engine import Fail, FakeEngine, Say, skip_pauses, verdict
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.errors import UserError
from rubric_rl.evaluation import compare
from rubric_rl.evaluation.agreement import Agreement, change, figures, pairs
from rubric_rl.evaluation.endpoint_flags import endpoint_settings
from rubric_rl.evaluation.meta_evaluate import MetaFile, _parser, _report, _run, main, read_results
from rubric_rl.tiny import labelled_rows as tiny_meta
from rubric_rl.tiny.oracle import truth
from rubric_rl.tiny.world import rows as tiny_rows


def judged(
    verdict, labels, prompt="p", category="c", physicians=None, probability=None, status="graded"
):
    physicians = physicians if physicians is not None else [f"d{i}" for i in range(len(labels))]
    return {
        "verdict": verdict,
        "labels": labels,
        "prompt": prompt,
        "category": category,
        "physicians": physicians,
        "probability": probability,
        "status": status,
    }


ROWS = [
    judged(True, [True, True, False], "p"),
    judged(False, [False, True], "q"),
    judged(True, [False, False], "q", "d"),
    judged(False, [False], "r", "d"),
    judged(None, [True, False], "r"),
    judged(None, [True], "r", status="ungraded"),
]


class TestCounting:
    @pytest.mark.parametrize(
        "said, labels, counts",
        [
            (True, [True, True, False], [2, 1, 0, 0, 0, 0]),
            (False, [True, False], [0, 0, 1, 1, 0, 0]),
            (None, [True, False, False], [0, 0, 0, 0, 1, 2]),
        ],
    )
    def test_each_pair_counts_once(self, said, labels, counts):
        assert pairs(said, labels) == counts

    def test_by_hand(self):
        # pairs: both met 2, only the grader 1 + 2, only the label 1, neither 1 + 1
        grader = Agreement(ROWS).result()["grader"]
        assert grader["pairs"] == 8 and grader["unreadable_pairs"] == 2
        assert grader["met"] == {"precision": 2 / 5, "recall": 2 / 3, "f1": 4 / 8}
        assert grader["not_met"] == {"precision": 2 / 3, "recall": 2 / 5, "f1": 4 / 8}
        assert grader["balanced_f1"] == pytest.approx(0.5, abs=1e-12)
        # agreed 4/8, by chance (5 * 3 + 3 * 5) / 64
        assert grader["kappa"] == pytest.approx((0.5 - 30 / 64) / (1 - 30 / 64), abs=1e-12)
        # an unreadable verdict as the opposite of both labels: one more of each error
        assert grader["balanced_f1_if_unreadable_were_wrong"] == pytest.approx(4 / 10, abs=1e-12)

    def test_by_cluster_a_class_that_never_comes_has_no_value(self):
        cluster = Agreement(ROWS).result()["clusters"]["d"]
        assert (
            cluster["met"] == {"precision": 0.0, "recall": None, "f1": None}
            and cluster["balanced_f1"] is None
        )

    def test_physicians_are_rated_as_graders_of_each_other(self):
        peers = Agreement(ROWS[:4]).result()["physicians"]
        # p: pairs (met, met) twice, met-not and not-met twice each; q: not-met and met-not; then (not, not) twice
        assert peers["met"] == {"precision": 2 / 5, "recall": 2 / 5, "f1": 4 / 10}
        assert peers["not_met"]["f1"] == 4 / 10
        each = peers["each"]
        assert each["number"] == 2 and each["lowest"] <= each["median"] <= each["highest"]

    def test_accounts_for_every_row(self):
        assert Agreement(ROWS).result()["rows"] == {
            "all": 6,
            "graded": 4,
            "unreadable": 1,
            "ungraded": 1,
        }

    @given(
        st.lists(
            st.tuples(st.booleans(), st.lists(st.booleans(), min_size=1, max_size=4)),
            min_size=1,
            max_size=12,
        )
    )
    def test_order_changes_nothing(self, items):
        rows = [judged(said, labels, f"p{i % 3}") for i, (said, labels) in enumerate(items)]
        assert Agreement(rows).result() == Agreement(rows[::-1]).result()

    def test_a_perfect_grader(self):
        one = figures([5, 0, 0, 7, 0, 0])
        assert one["balanced_f1"] == one["kappa"] == 1


class TestCalibration:
    def test_by_hand(self):
        rows = [
            judged(True, [True, False], probability=0.9),
            judged(False, [False], probability=0.12),
            judged(False, [True], probability=0.18),
            judged(True, [True], probability=1.0),
        ]
        result = Agreement(rows).result()["calibration"]
        table = {
            row["from"]: (row["labels"], row["probability"], row["met"]) for row in result["table"]
        }
        assert table[0.1] == (2, pytest.approx(0.15), 0.5) and table[0.9] == (
            3,
            pytest.approx(2.8 / 3),
            pytest.approx(2 / 3),
        )
        assert result["ece"] == pytest.approx(2 / 5 * 0.35 + 3 / 5 * (2.8 / 3 - 2 / 3), abs=1e-12)
        assert result["brier"] == pytest.approx((0.01 + 0.81 + 0.0144 + 0.6724) / 5, abs=1e-12)

    def test_without_probabilities_there_is_none(self):
        assert Agreement(ROWS).result()["calibration"] is None


def test_before_against_after_on_the_prompts_of_both():
    after = Agreement(
        [judged(True, [True], "p"), judged(False, [False], "q"), judged(True, [True], "new")]
    )
    before = Agreement(
        [judged(False, [True], "p"), judged(True, [False], "q"), judged(True, [True], "old")]
    )
    changed = change(before, after)
    assert changed["prompts"] == 2
    assert (
        changed["balanced_f1"]["before"],
        changed["balanced_f1"]["after"],
        changed["balanced_f1"]["difference"],
    ) == (0, 1, 1)
    assert changed["kappa"]["difference"] == 2


@pytest.fixture
def meta(tmp_path):
    path = tmp_path / "meta.jsonl"
    rows = [
        {"prompt": [{"role": "user", "content": f"q{i}"}], "completion": f"completion {i}", "rubric": f"rule {i}",
         "category": "c", "binary_labels": [i % 2 == 0, True], "anonymized_physician_ids": ["a", "b"]} for i in range(6)
    ]  # fmt: skip
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": [], "binary_labels": []}])
    )
    return path


def run(engine, meta, out, *flags) -> dict:
    async def ask():
        async with engine:
            words = f"--rows {meta} --out {out} --grader-api openai --grader-url {engine.url} --grader-model m --moved"
            args = _parser().parse_args(words.split() + list(map(str, flags)))
            rows = MetaFile(args.rows, args.limit)
            await _run(args, rows, endpoint_settings(args, "grader", {}))
            return args, rows

    return _report(*asyncio.run(ask()))


MESSAGES = [{"role": "user", "content": "x"}]
ROW = {
    "prompt": MESSAGES,
    "completion": "c",
    "rubric": "r",
    "category": "k",
    "binary_labels": [True],
}


class TestRun:
    def test_asks_each_row_once_without_points_and_resumes(
        self, meta, tmp_path, monkeypatch, capsys
    ):
        skip_pauses(monkeypatch)
        engine = FakeEngine(
            lambda prompt: (
                Fail(500)
                if "rule 3" in prompt
                else verdict("rule 0" in prompt or "rule 2" in prompt)
            )
        )
        result = run(engine, meta, tmp_path / "run")
        assert result["rows"] == {
            "all": 6,
            "graded": 5,
            "unreadable": 0,
            "ungraded": 1,
            "not_asked": 0,
            "unlabelled": 1,
        }
        assert all("Criterion: rule" in prompt for prompt in engine.prompts)  # no [points]
        again = FakeEngine(verdict(False))
        assert run(again, meta, tmp_path / "run")["rows"]["graded"] == 6
        assert len(again.bodies) == 1 and "rule 3" in again.prompts[0]
        assert "physicians among themselves" in capsys.readouterr().out

    def test_direct_mode_brings_probabilities(self, meta, tmp_path):
        result = run(
            FakeEngine(Say(true=0.8, false=0.2)), meta, tmp_path / "run", "--grader-mode", "direct"
        )
        assert result["calibration"]["table"][0]["probability"] == pytest.approx(0.8)

    def test_a_changed_setting_is_refused_and_two_runs_are_compared(
        self, meta, tmp_path, monkeypatch, capsys
    ):
        run(FakeEngine(verdict(True)), meta, tmp_path / "before")
        with pytest.raises(UserError, match="grader.seed was 0, is 5"):
            run(FakeEngine(verdict(True)), meta, tmp_path / "before", "--grader-seed", "5")
        run(FakeEngine(verdict(False)), meta, tmp_path / "after", "--against", tmp_path / "before")
        assert "Change on 6 prompts" in capsys.readouterr().out
        monkeypatch.setattr(
            sys, "argv", ["compare", str(tmp_path / "before"), str(tmp_path / "after")]
        )
        assert compare.main() == 0 and "Change on 6 prompts" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "row, message",
        [
            ({"binary_labels": [True], "prompt": "text"}, ":1: not a meta-evaluation row"),
            (ROW | {"binary_labels": [1]}, ":1: binary_labels"),
            (ROW | {"points": "five"}, ":1: points must be a finite number, not 'five'"),
            ({"prompt": []}, "no row has binary_labels"),
        ],
    )
    def test_what_cannot_be_asked_is_one_line(self, tmp_path, monkeypatch, capsys, row, message):
        (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n")
        words = f"meta_eval --rows {tmp_path}/m.jsonl --out {tmp_path}/o --grader-url http://x"
        monkeypatch.setattr(sys, "argv", words.split())
        assert main() == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and message in said and said.count("\n") == 1

    def test_a_folder_without_results_is_named(self, tmp_path):
        with pytest.raises(UserError, match="holds no meta-evaluation"):
            read_results(tmp_path)


class TestTinyWorld:
    def test_the_oracle_stands_in_the_physician_s_place(self, tmp_path):
        assert tiny_meta.main(["--out", str(tmp_path / "meta.jsonl")]) == 0
        rows = [json.loads(line) for line in (tmp_path / "meta.jsonl").open()]
        assert {label for row in rows for label in row["binary_labels"]} == {True, False}
        world = {row.prompt_id: row for row in tiny_rows(held_out=True)}
        for row in rows[:40]:
            source = world[row["prompt_id"]]
            place = [c.text for c in source.rubric].index(row["rubric"])
            assert (
                row["binary_labels"] == [truth(source.rubric, row["completion"])[place]]
                and row["points"] == source.rubric[place].points
            )
        assert len(MetaFile(str(tmp_path / "meta.jsonl")).chosen) == len(rows)

    def test_answers_of_a_run_become_rows_too(self):
        source = tiny_rows(held_out=True)[0]
        rubric = [
            {"criterion": c.text, "points": c.points, "tags": list(c.tags)} for c in source.rubric
        ]
        record = {
            "prompt_id": source.prompt_id,
            "status": "graded",
            "rubrics": rubric,
            "answer": "Nothing.",
        }
        made = list(tiny_meta.of_records([record, record | {"status": "truncated"}]))
        assert len(made) == len(rubric) and made[0]["prompt"] == list(source.messages)
        assert not np.any([row["binary_labels"] for row in made])
