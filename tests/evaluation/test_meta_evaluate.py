"""The grader against physicians: the reference's counting by hand, resume, the tiny oracle."""

import asyncio
import json
import re
import sys

import pytest
from doubles.engine import Fail, FakeEngine, Say, chat_model, skip_pauses, verdict
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.common.errors import DataError, UserError
from rubric_rl.common.jsonl import read_jsonl
from rubric_rl.data.parse import record_from_json
from rubric_rl.data.schema import Criterion, Record, Verdict
from rubric_rl.evaluation import compare
from rubric_rl.evaluation.agreement import Agreement, change, figures, pairs
from rubric_rl.evaluation.meta_evaluate import (
    META_RESULTS,
    LabelledFile,
    MetaEvaluationPlan,
    _parser,
    main,
    read_results,
)
from rubric_rl.grading.prompt import IN_REPLY
from rubric_rl.tiny import labelled_rows
from rubric_rl.tiny.oracle import truth
from rubric_rl.tiny.world import rows as tiny_rows


def judged(
    met: bool | None,
    labels: list[bool],
    prompt_id: str = "p",
    category: str = "c",
    probability: float | None = None,
    status: str = "graded",
) -> Record:
    """One answer with the grader's verdict; physician d0 set the first label, and so on."""
    return Record(
        prompt_id,
        (Criterion("rule", 0.0),),
        status,
        "an answer",
        verdicts=[Verdict(met, probability)] if status == "graded" else [],
        category=category,
        labels=labels,
        physicians=[f"d{number}" for number in range(len(labels))],
    )


RECORDS = [
    judged(True, [True, True, False], "p"),
    judged(False, [False, True], "q"),
    judged(True, [False, False], "q", "d"),
    judged(False, [False], "r", "d"),
    judged(None, [True, False], "r"),
    judged(None, [True], "r", status="ungraded"),
]


class TestCounting:
    @pytest.mark.parametrize(
        "met, labels, counts",
        [
            (True, [True, True, False], [2, 1, 0, 0, 0, 0]),
            (False, [True, False], [0, 0, 1, 1, 0, 0]),
            (None, [True, False, False], [0, 0, 0, 0, 1, 2]),
        ],
    )
    def test_each_pair_counts_once(self, met, labels, counts):
        assert pairs(met, labels) == counts

    def test_by_hand(self):
        # pairs: both met 2, only the grader 1 + 2, only the label 1, neither 1 + 1
        grader = Agreement(RECORDS).result()["grader"]
        assert (grader["pairs"], grader["unreadable_pairs"]) == (8, 2)
        assert grader["met"] == {"precision": 2 / 5, "recall": 2 / 3, "f1": 4 / 8}
        assert grader["not_met"] == {"precision": 2 / 3, "recall": 2 / 5, "f1": 4 / 8}
        assert grader["balanced_f1"] == pytest.approx(0.5, abs=1e-12)
        by_chance = (5 * 3 + 3 * 5) / 64
        kappa = (4 / 8 - by_chance) / (1 - by_chance)
        assert grader["kappa"] == pytest.approx(kappa, abs=1e-12)
        # an unreadable verdict as the opposite of both labels: one more of each error
        assert grader["balanced_f1_if_unreadable_were_wrong"] == pytest.approx(4 / 10, abs=1e-12)

    def test_by_cluster_a_class_that_never_comes_has_no_value(self):
        cluster = Agreement(RECORDS).result()["clusters"]["d"]
        assert cluster["met"] == {"precision": 0.0, "recall": None, "f1": None}
        assert cluster["balanced_f1"] is None

    def test_physicians_are_rated_as_graders_of_each_other(self):
        peers = Agreement(RECORDS[:4]).result()["physicians"]
        # p: (met, met) twice, met-not and not-met twice each; q: not-met and met-not; then
        # (not, not) twice
        assert peers["met"] == {"precision": 2 / 5, "recall": 2 / 5, "f1": 4 / 10}
        assert peers["not_met"]["f1"] == 4 / 10
        each = peers["each"]
        assert each["number"] == 2
        assert each["lowest"] <= each["median"] <= each["highest"]

    def test_labels_without_names_rate_no_single_physician(self):
        record = judged(True, [True, False])
        record.physicians = []
        result = Agreement([record]).result()["physicians"]
        assert result["pairs"] == 2
        assert result["each"] is None

    def test_accounts_for_every_row(self):
        rows = Agreement(RECORDS).result()["rows"]
        assert rows == {"all": 6, "graded": 4, "unreadable": 1, "ungraded": 1}

    LABELS = st.lists(st.booleans(), min_size=1, max_size=4)

    @given(st.lists(st.tuples(st.booleans(), LABELS), min_size=1, max_size=12))
    def test_order_changes_nothing(self, items):
        records = [
            judged(met, labels, f"p{number % 3}") for number, (met, labels) in enumerate(items)
        ]
        assert Agreement(records).result() == Agreement(records[::-1]).result()

    def test_a_perfect_grader(self):
        one = figures([5, 0, 0, 7, 0, 0])
        assert one["balanced_f1"] == one["kappa"] == 1


class TestCalibration:
    def test_by_hand(self):
        records = [
            judged(True, [True, False], probability=0.9),
            judged(False, [False], probability=0.12),
            judged(False, [True], probability=0.18),
            judged(True, [True], probability=1.0),
        ]
        result = Agreement(records).result()["calibration"]
        low, high = result["table"]
        assert (low["from"], low["labels"], low["met"]) == (0.1, 2, 0.5)
        assert low["probability"] == pytest.approx(0.15)
        assert (high["from"], high["labels"]) == (0.9, 3)
        assert high["probability"] == pytest.approx(2.8 / 3)
        assert high["met"] == pytest.approx(2 / 3)
        error = 2 / 5 * 0.35 + 3 / 5 * (2.8 / 3 - 2 / 3)
        assert result["ece"] == pytest.approx(error, abs=1e-12)
        squares = 0.01 + 0.81 + 0.0144 + 0.6724
        assert result["brier"] == pytest.approx(squares / 5, abs=1e-12)
        # Of the 3 x 2 pairs of a met label and one that is not, one is level, one the wrong way.
        assert result["auc"] == pytest.approx(4.5 / 6)

    def test_a_threshold_that_moves_does_not_change_the_separation(self):
        def tries(shift: float) -> list[Record]:
            met = [judged(True, [True], probability=p - shift) for p in (0.7, 0.8, 0.9)]
            return met + [judged(False, [False], probability=p - shift) for p in (0.4, 0.5)]

        for shift in (0.0, 0.3):
            assert Agreement(tries(shift)).result()["calibration"]["auc"] == 1
        one_label = [judged(True, [True], probability=0.7)]
        assert Agreement(one_label).result()["calibration"]["auc"] is None

    def test_without_probabilities_there_is_none(self):
        assert Agreement(RECORDS).result()["calibration"] is None


def test_before_against_after_on_the_prompts_of_both():
    right = [judged(True, [True], "p"), judged(False, [False], "q")]
    wrong = [judged(False, [True], "p"), judged(True, [False], "q")]
    before = Agreement([*wrong, judged(True, [True], "old")])
    after = Agreement([*right, judged(True, [True], "new")])
    changed = change(before, after)
    assert changed["prompts"] == 2
    f1 = changed["balanced_f1"]
    assert (f1["before"], f1["after"], f1["difference"]) == (0, 1, 1)
    assert changed["kappa"]["difference"] == 2


MESSAGES = [{"role": "user", "content": "x"}]
ROW = {
    "prompt": MESSAGES,
    "completion": "c",
    "rubric": "r",
    "category": "k",
    "binary_labels": [True],
}


@pytest.fixture
def meta(tmp_path):
    """Six labelled rows and one without labels."""
    path = tmp_path / "meta.jsonl"
    with path.open("w") as file:
        for number in range(6):
            row = {
                "prompt": [{"role": "user", "content": f"q{number}"}],
                "completion": f"completion {number}",
                "rubric": f"rule {number}",
                "category": "c",
                "binary_labels": [number % 2 == 0, True],
                "anonymized_physician_ids": ["a", "b"],
            }
            file.write(json.dumps(row) + "\n")
        file.write(json.dumps({"prompt": [], "binary_labels": []}) + "\n")
    return path


def run(engine, meta, out, *flags) -> dict:
    async def ask():
        async with engine:
            words = ["--rows", meta, "--out", out, "--grader-api", "openai", "--moved"]
            words += ["--grader-url", engine.url, "--grader-model", "m", *flags]
            args = _parser().parse_args([str(word) for word in words])
            plan = MetaEvaluationPlan(args)
            await plan.run()
            return plan

    return asyncio.run(ask()).report()


class TestRun:
    def test_asks_each_row_once_without_points_and_resumes(
        self, meta, tmp_path, monkeypatch, capsys
    ):
        skip_pauses(monkeypatch)

        def act(prompt):
            if "rule 3" in prompt:
                return Fail(500)
            return verdict("rule 0" in prompt or "rule 2" in prompt)

        engine = FakeEngine(act)
        result = run(engine, meta, tmp_path / "run")
        assert result["rows"] == {
            "all": 6,
            "graded": 5,
            "unreadable": 0,
            "ungraded": 1,
            "not_asked": 0,
            "unlabelled": 1,
        }
        assert all("Criterion: rule" in prompt for prompt in engine.prompts), "no [points]"
        again = FakeEngine(verdict(False))
        assert run(again, meta, tmp_path / "run")["rows"]["graded"] == 6
        (prompt,) = again.prompts
        assert "rule 3" in prompt
        assert "physicians among themselves" in capsys.readouterr().out

    def test_leaves_a_record_of_each_row_with_its_labels(self, meta, tmp_path):
        run(FakeEngine(verdict(True)), meta, tmp_path / "run")
        items = [item for _, item in read_jsonl(tmp_path / "run" / META_RESULTS)]
        records = [record_from_json(item) for item in items]
        assert {(record.split, record.grader) for record in records} == {("meta", "m")}
        first = next(record for record in records if record.index == 1)
        assert first.rubric == (Criterion("rule 0", 0.0),)
        assert first.answer == "completion 0"
        assert (first.category, first.labels, first.physicians) == ("c", [True, True], ["a", "b"])
        assert first.mets == [True]
        assert first.messages == ({"role": "user", "content": "q0"},)

    def test_direct_mode_brings_probabilities(self, meta, tmp_path):
        engine = FakeEngine(Say(true=0.8, false=0.2))
        result = run(engine, meta, tmp_path / "run", "--grader-mode", "direct")
        assert result["calibration"]["table"][0]["probability"] == pytest.approx(0.8)

    def test_a_cascades_limits_are_tried_and_some_proposed(self, meta, tmp_path, capsys):
        engine = FakeEngine(Say(verdict(True).text, true=0.45, false=0.55))
        wide = ["--grader-cascade-low", "0", "--grader-cascade-high", "1"]
        result = run(engine, meta, tmp_path / "run", "--grader-mode", "cascade", *wide)
        narrowest, second = result["cascade"]["curve"][:2]
        assert (narrowest["asked_again"], second["asked_again"]) == (0.0, 1.0)
        assert narrowest["accuracy"] < second["accuracy"]
        assert "proposed: grader_cascade_low: 0.4" in capsys.readouterr().out

    def test_a_changed_setting_is_refused(self, meta, tmp_path):
        run(FakeEngine(verdict(True)), meta, tmp_path / "run")
        with pytest.raises(UserError, match=r"grader.seed was 0, is 5"):
            run(FakeEngine(verdict(True)), meta, tmp_path / "run", "--grader-seed", "5")

    def test_two_runs_are_compared(self, meta, tmp_path, monkeypatch, capsys):
        before, after = tmp_path / "before", tmp_path / "after"
        run(FakeEngine(verdict(True)), meta, before)
        run(FakeEngine(verdict(False)), meta, after, "--against", before)
        assert "Change on 6 prompts" in capsys.readouterr().out
        monkeypatch.setattr(sys, "argv", ["compare", str(before), str(after)])
        assert compare.main() == 0
        assert "Change on 6 prompts" in capsys.readouterr().out

    def test_the_criterion_in_the_reply_is_another_judge(self, meta, tmp_path, capsys):
        model = chat_model(tmp_path / "model")
        direct = ["--grader-mode", "direct", "--grader-api", "sglang", "--grader-tokenizer", model]
        run(FakeEngine(model=model), meta, tmp_path / "before", *direct)
        named = re.compile(r'\n\{"criteria_met": \{"rule [024]":$')
        engine = FakeEngine(lambda prompt: verdict(bool(named.search(prompt))), model=model)
        flags = [*direct, "--grader-criterion-in-reply", "true"]
        run(engine, meta, tmp_path / "after", *flags, "--against", tmp_path / "before")
        items = [item for _, item in read_jsonl(tmp_path / "after" / META_RESULTS)]
        met = {record.index: record.mets for record in map(record_from_json, items)}
        assert [met[index] for index in sorted(met)] == [[True], [False]] * 3
        assert {item["template"] for item in items} == {IN_REPLY}
        out = capsys.readouterr().out
        assert "judges differ (prompt, template)" in out
        assert f"template {IN_REPLY}" in out
        with pytest.raises(UserError, match=r"grader.criterion_in_reply was True, is unset"):
            run(engine, meta, tmp_path / "after", *direct)

    def test_an_earlier_run_that_cannot_be_read_is_named_before_any_row_is_judged(
        self, meta, tmp_path
    ):
        engine = FakeEngine(verdict(True))
        with pytest.raises(DataError, match="nowhere: holds no meta-evaluation"):
            run(engine, meta, tmp_path / "run", "--against", tmp_path / "nowhere")
        assert not engine.bodies and not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        "row, message",
        [
            ({"binary_labels": [True], "prompt": "text"}, ":1: not a meta-evaluation row"),
            (ROW | {"binary_labels": [1]}, ":1: binary_labels"),
            (ROW | {"points": "five"}, ":1: points must be a number of size up to 1e+06, not"),
            (ROW | {"points": 1e300}, ":1: points must be a number of size up to 1e+06"),
            (ROW | {"anonymized_physician_ids": ["a", "b"]}, ":1: 1 labels, but another number"),
            ({"prompt": []}, "no row has binary_labels"),
        ],
    )
    def test_what_cannot_be_asked_is_one_line(self, tmp_path, monkeypatch, capsys, row, message):
        (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n")
        self.refused(tmp_path, monkeypatch, capsys, message, "--grader-url", "http://x")

    @pytest.mark.parametrize(
        "flags, message",
        [
            (["--grader-mode", "checklist"], "each row has one criterion"),
            (["--grader-votes", "0"], "grader_votes must be"),
            (["--grader-url", "ftp://x"], "grader_url must begin with http"),
            (["--grader-mode", "direct"], "direct and cascade need ' neither nor' as"),
        ],
    )
    def test_what_cannot_be_judged_is_one_line_and_leaves_no_folder(
        self, tmp_path, monkeypatch, capsys, flags, message
    ):
        monkeypatch.setattr("rubric_rl.serving.apis.CHOICES", (" true", " neither nor"))
        (tmp_path / "m.jsonl").write_text(json.dumps(ROW) + "\n")
        model = chat_model(tmp_path / "model")
        where = ["--grader-url", "http://x", "--grader-tokenizer", model]
        self.refused(tmp_path, monkeypatch, capsys, message, *where, *flags)
        assert not (tmp_path / "o").exists()

    def refused(self, tmp_path, monkeypatch, capsys, message, *flags) -> None:
        words = ["meta_eval", "--rows", f"{tmp_path}/m.jsonl", "--out", f"{tmp_path}/o", *flags]
        monkeypatch.setattr(sys, "argv", words)
        assert main() == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert message in said
        assert said.count("\n") == 1

    def test_a_folder_without_results_is_named(self, tmp_path):
        with pytest.raises(UserError, match="holds no meta-evaluation"):
            read_results(tmp_path)


class TestTinyWorld:
    def test_the_oracle_stands_in_the_physician_s_place(self, tmp_path):
        path = tmp_path / "meta.jsonl"
        assert labelled_rows.main(["--out", str(path)]) == 0
        rows = [row for _, row in read_jsonl(path)]
        assert {label for row in rows for label in row["binary_labels"]} == {True, False}
        world = {row.prompt_id: row for row in tiny_rows(held_out=True)}
        for row in rows[:40]:
            source = world[row["prompt_id"]]
            place = [criterion.text for criterion in source.rubric].index(row["rubric"])
            assert row["binary_labels"] == [truth(source.rubric, row["completion"])[place]]
            assert row["points"] == source.rubric[place].points
        assert len(LabelledFile(str(path)).chosen) == len(rows)

    def test_answers_of_a_run_become_rows_too(self):
        source = tiny_rows(held_out=True)[0]
        graded = Record(source.prompt_id, source.rubric, "graded", "Nothing.")
        truncated = Record(source.prompt_id, source.rubric, "truncated", "Nothing.")
        made = list(labelled_rows.of_records([graded, truncated]))
        assert len(made) == len(source.rubric)
        assert made[0]["prompt"] == list(source.messages)
        assert not any(label for row in made for label in row["binary_labels"])
