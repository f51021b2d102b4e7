"""A folder belongs to one run: an evaluation refuses what holds something else, and writes nothing.

And who judged is named wherever two runs are compared.
"""

import sys
from pathlib import Path

import pytest
from doubles.records import made, raw_rows, write_run

from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.cpu.run_directory import RunDirectory
from rubric_rl.data.record_file import append_record
from rubric_rl.evaluation import compare, evaluate, meta_evaluate
from rubric_rl.evaluation.judge import judge_lines, judge_of_run
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.resume import EvaluationFolder
from rubric_rl.evaluation.summary import Summary
from rubric_rl.report import __main__ as report
from rubric_rl.serving.key import Key

NOBODY = "http://127.0.0.1:9"
GRADER = {"api": "openai", "url": "http://a", "model": "m", "mode": "explain", "temperature": 0.6}
ASKED = {"kind": "evaluate", "name": "n", "grader": GRADER, "grader_prompt": "Grade it."}


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command's main in this process: its exit status, stdout and stderr."""

    def call(main, *words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
        status = main()
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def inputs(tmp_path) -> dict[str, list]:
    """The words of both commands, but for --out."""
    rows, answers, meta = (tmp_path / name for name in ("rows.jsonl", "answers.jsonl", "m.jsonl"))
    raw_rows(rows)
    write_jsonl(answers, [{"prompt_id": f"p{number}", "answer": "x"} for number in range(3)])
    labelled = {
        "prompt": [{"role": "user", "content": "q"}],
        "completion": "c",
        "rubric": "r",
        "category": "c",
        "binary_labels": [True],
    }
    write_jsonl(meta, [labelled])
    grader = ["--grader-api", "openai", "--grader-url", NOBODY, "--grader-model", "m"]
    grader += ["--grader-retries", "0"]
    return {
        "evaluate": ["--rows", rows, "--answers", answers, *grader],
        "meta_eval": ["--rows", meta, *grader],
    }


MAIN = {"evaluate": evaluate.main, "meta_eval": meta_evaluate.main}


def slime_run(folder: Path) -> None:
    """A SAVE_PATH between its first record and its first checkpoint."""
    append_record(folder / "verdicts", made("t", (5,), (False,), weights="9"))


def slime_checkpoint(folder: Path) -> None:
    """A SAVE_PATH without records: grader_records names another folder."""
    (folder / "iter_0000003").mkdir(parents=True)


def cpu_run(folder: Path) -> None:
    """Of the trainer without a GPU, from its first moment on."""
    RunDirectory(folder).close()


def records(folder: Path) -> None:
    """The verdicts/ of a training run itself."""
    append_record(folder, made("t", (5,), (False,), weights="9"))


def old_records(folder: Path) -> None:
    write_jsonl(folder / "verdicts" / "weights_9.jsonl", [made("t", (5,), (True,)).to_json()])


def copy_of_results(folder: Path) -> None:
    write_run(folder, [])
    write_jsonl(folder / "verdicts" / "verdicts_old.jsonl", [made("t", (5,), (True,)).to_json()])


def files_below(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in paths}


@pytest.mark.parametrize("kind", MAIN)
@pytest.mark.parametrize(
    "something_else",
    [slime_run, slime_checkpoint, cpu_run, records, old_records, copy_of_results],
    ids=lambda make: make.__name__,
)
def test_something_else_is_refused_in_one_line_and_stays_as_it_is(
    tmp_path, run, inputs, kind, something_else
):
    out = tmp_path / "out"
    something_else(out)
    before = files_below(out)
    status, printed, error = run(MAIN[kind], *inputs[kind], "--out", out)
    assert (status, printed) == (2, "")
    assert error.startswith("error: ") and error.count("\n") == 1
    assert str(out) in error and "choose another --out" in error
    assert files_below(out) == before


@pytest.mark.parametrize("first, second", [("evaluate", "meta_eval"), ("meta_eval", "evaluate")])
def test_a_run_of_another_kind_is_refused(tmp_path, run, inputs, first, second):
    out = tmp_path / "out"
    assert run(MAIN[first], *inputs[first], "--out", out)[0] == 2  # nobody listens
    before = files_below(out)
    status, _, error = run(MAIN[second], *inputs[second], "--out", out)
    assert status == 2 and "holds a run of another kind" in error
    assert files_below(out) == before


@pytest.mark.parametrize("kind", MAIN)
@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_no_folder(tmp_path, run, inputs, kind, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, error = run(MAIN[kind], *inputs[kind], "--out", name)
    assert status == 2 and "--out: an empty name is no folder" in error
    assert not (tmp_path / "lock").exists()


def test_lines_of_another_program_are_named_and_nothing_is_added(tmp_path, run, inputs):
    out = tmp_path / "out"
    write_run(out, [made("t", (5,), (True,))])
    before = files_below(out)
    status, _, error = run(evaluate.main, *inputs["evaluate"], "--out", out)
    assert status == 2 and "verdicts.jsonl:1: not what an evaluation writes" in error
    (out / "lock").unlink()
    assert files_below(out) == before


def test_reports_beside_the_records_are_no_hindrance(tmp_path):
    with EvaluationFolder(tmp_path, ASKED) as folder:
        folder.store_result("p#0", made("p", (1,), (True,)))
    (tmp_path / "verdicts" / "report.html").write_text("")
    with EvaluationFolder(tmp_path, ASKED) as folder:
        assert folder.finished == {"p#0"}


def test_records_name_the_run_which_another_place_of_the_model_does_not_change(tmp_path):
    elsewhere = ASKED | {"grader": GRADER | {"url": "http://b"}}
    other = ASKED | {"grader": GRADER | {"temperature": 0.1}}
    names = []
    for folder, asked in (("a", ASKED), ("b", elsewhere), ("c", other)):
        with EvaluationFolder(tmp_path / folder, asked) as store:
            store.store_result("p#0", made("p", (1,), (True,)))
        (record,) = Run(tmp_path / folder)
        assert record.time > 1e9
        names.append(record.run)
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("evaluate-")


def test_only_the_user_may_read_them(tmp_path):
    with EvaluationFolder(tmp_path / "out", ASKED) as folder:
        folder.store_result("p#0", made("p", (1,), (True,)))
    private = ["calls.jsonl", "verdicts/verdicts.jsonl", "verdicts"]
    modes = [(tmp_path / "out" / name).stat().st_mode & 0o777 for name in private]
    assert modes == [0o600, 0o600, 0o700]


def evaluation(folder: Path, grader: str = "m", name: str = "n", **settings) -> Path:
    """A finished evaluation; `settings` are those of its grader that differ."""
    asked = ASKED | {"name": name, "grader": GRADER | settings}
    with EvaluationFolder(folder, asked) as store:
        store.store_result("p#0", made("p", (1,), (True,), grader=grader, weights=name))
    return folder


def judges(*folders: Path) -> str:
    found = []
    for folder in folders:
        run = Run(folder)
        found.append(judge_of_run(run, Summary(run)))
    (line,) = judge_lines(found)
    return line


class TestJudges:
    def test_of_both_runs_are_named_once_when_they_are_the_same(self, tmp_path):
        one = evaluation(tmp_path / "a")
        other = evaluation(tmp_path / "b", url="http://elsewhere")
        assert judges(one, other).startswith("judge of both: m (model m, mode explain, prompt ")
        assert judges(one).startswith("judge: m (model m, mode explain, prompt ")

    @pytest.mark.parametrize(
        "change, where",
        [
            ({"model": "other"}, "model"),
            ({"mode": "direct", "temperature": 0.0}, "mode, temperature"),
            ({"grader": "judge"}, "name"),
        ],
    )
    def test_that_differ_are_said_to(self, tmp_path, change, where):
        line = judges(evaluation(tmp_path / "a"), evaluation(tmp_path / "b", **change))
        assert line.startswith(f"judges differ ({where}), and the difference may be theirs: ")

    def test_a_field_that_only_one_is_sent_makes_another_judge(self, tmp_path):
        bare = evaluation(tmp_path / "a", extra_body={})
        thrifty = evaluation(tmp_path / "b", extra_body={"reasoning_effort": "low"})
        assert judges(bare, thrifty).startswith("judges differ (extra_body)")

    def test_a_policy_that_judges_itself_is_another_judge_with_other_weights(self, tmp_path):
        one = evaluation(tmp_path / "a", grader="policy")
        assert judges(one, one).startswith("judge of both: the policy itself")
        other = evaluation(tmp_path / "b", grader="policy", name="trained")
        assert judges(one, other).startswith("judges differ (weights)")

    def test_of_training_are_named_by_their_records(self, tmp_path):
        for version in (1, 2):
            for index, name in enumerate(("policy", "teacher")):
                fields = {"weights": str(version), "split": "train", "grader": name, "run": "r"}
                append_record(tmp_path, made(f"p{index}", (1,), (True,), index=index, **fields))
        assert judges(tmp_path) == "judge: teacher, the policy itself"

    def test_of_which_only_the_name_is_known_are_no_more_than_that(self, tmp_path):
        bare = write_run(tmp_path / "bare", [made("p", (1,), (True,), grader="m")])
        line = judges(bare, evaluation(tmp_path / "a"))
        assert line.startswith("judges: before m, after m (model m,")
        assert line.endswith("of one of them only the name is known")

    def test_stand_in_every_comparison(self, tmp_path, run):
        one, other = evaluation(tmp_path / "a"), evaluation(tmp_path / "b", model="other")
        _, printed, _ = run(compare.main, one, other)
        assert "judges differ (model)" in printed
        status, _, _ = run(report.main, other, "--against", one, "--out", tmp_path / "r")
        assert status == 0
        for ending in (".html", ".md"):
            assert "judges differ" in (tmp_path / f"r{ending}").read_text()

    def test_stand_in_a_comparison_of_meta_evaluations(self, tmp_path, run):
        folders = []
        for model in ("m", "other"):
            asked = ASKED | {"kind": "meta_eval", "grader": GRADER | {"model": model}}
            folders.append(tmp_path / model)
            with EvaluationFolder(folders[-1], asked, "meta/rows.jsonl") as store:
                labels = {"labels": [True], "split": "meta", "grader": model}
                store.store_result("1", made("p", (1,), (True,), **labels))
        _, printed, _ = run(compare.main, *folders)
        assert printed.startswith("judges differ (model, name)")


def test_a_folder_inside_another_run_is_refused(tmp_path, run, inputs):
    out = tmp_path / "out"
    (out / "verdicts").mkdir(parents=True)
    write_jsonl(out / "settings.json", [ASKED])
    status, _, said = run(evaluate.main, *inputs["evaluate"], "--out", out / "verdicts")
    assert status == 2
    assert f"belongs to the run in {out}" in said
    assert list((out / "verdicts").iterdir()) == []


def test_a_result_of_something_else_is_not_written_over(tmp_path, run, inputs):
    (tmp_path / "out").mkdir()
    result = tmp_path / "out" / "result.json"
    result.write_text("mine")
    status, _, said = run(evaluate.main, *inputs["evaluate"], "--out", result.parent)
    assert status == 2
    assert "holds a result.json of something else" in said
    assert result.read_text() == "mine"


def test_a_result_of_another_answer_is_named_and_not_scored(tmp_path, run, inputs):
    out = tmp_path / "out"
    run(evaluate.main, *inputs["evaluate"], "--out", out)  # nobody listens
    stray = {"key": "p9#0"} | made("p9", [5], [True]).to_json()
    write_jsonl(out / "verdicts" / "verdicts.jsonl", [stray])
    status, _, said = run(evaluate.main, *inputs["evaluate"], "--out", out)
    assert status == 2
    assert "verdicts.jsonl: the result p9#0 is of no answer that is graded here" in said


def test_settings_that_hold_a_key_are_refused_before_they_are_written(tmp_path, monkeypatch):
    monkeypatch.setenv("THE_KEY", "sk-abcdef0123456789")
    Key("THE_KEY", "grader_")
    asked = ASKED | {"grader": GRADER | {"system": "Your key is sk-abcdef0123456789."}}
    with pytest.raises(UserError, match=r"^grader.system holds the key.*; leave it out$"):
        EvaluationFolder(tmp_path / "run", asked)
    assert not (tmp_path / "run").exists()
