"""Raw HealthBench rows -> training and evaluation rows: the hard ids are held out, bad rows named (stage 1)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rubric_rl.schema import read_rows

ROOT = Path(__file__).parents[1]


def raw(number: int, **changes) -> dict:
    """One raw row as HealthBench publishes it."""
    return {
        "prompt_id": f"id-{number}",
        "prompt": [{"role": "user", "content": f"question {number}\u2028 second line"}],
        "rubrics": [
            {"criterion": "Answers.\nClearly.", "points": 5, "tags": ["level:example", "axis:accuracy"]},
            {"criterion": "Rambles.", "points": -3, "tags": ["axis:communication_quality"]},
        ],
        "example_tags": ["physician_agreed_category:x", "theme:hedging"],
        "ideal_completions_data": None,
        "canary": "canary:1",
    } | changes


ROWS = [raw(n) for n in range(5)]
HARD = [ROWS[1], ROWS[3]]


@pytest.fixture
def preprocess(tmp_path):
    """Writes the two raw files, runs the command, returns it with the folder it wrote to as `.out`."""

    def run(rows=ROWS, hard=HARD, options=("--allow-subset",)):
        for name, items in (("all", rows), ("hard", hard)):
            lines = (item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in items)
            (tmp_path / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
        out = tmp_path / "out"
        command = [sys.executable, ROOT / "data_preprocess.py", "--source", tmp_path / "all.jsonl"]
        command += ["--hard", tmp_path / "hard.jsonl", "--out", out, *options]
        done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True)
        done.out = out
        return done

    return run


def ids(path: Path) -> list[str]:
    return [row.prompt_id for row in read_rows(path)]


def test_the_hard_prompts_are_held_out_and_all_others_train(preprocess):
    done = preprocess()
    assert done.returncode == 0, done.stderr
    assert ids(done.out / "healthbench_hard.jsonl") == ["id-1", "id-3"]
    assert ids(done.out / "healthbench_easy.jsonl") == ["id-0", "id-2", "id-4"]


def test_a_row_keeps_its_text_tags_theme_and_canary(preprocess):
    row = read_rows(preprocess().out / "healthbench_hard.jsonl")[0]
    assert row.messages[0]["content"] == ROWS[1]["prompt"][0]["content"]
    assert [c.text for c in row.rubric] == ["Answers.\nClearly.", "Rambles."]
    assert row.rubric[0].tag("axis") == "accuracy" and row.theme == "hedging"
    assert row.extra == {"canary": "canary:1"} and row.example_tags == tuple(ROWS[1]["example_tags"])


def test_the_written_rows_have_exactly_slimes_keys(preprocess):
    line = (preprocess().out / "healthbench_easy.jsonl").read_text().split("\n")[0]
    row = json.loads(line)
    assert row.keys() == {"prompt", "metadata"} and row["prompt"] == row["metadata"]["messages"]


def test_the_report_counts_prompts_criteria_themes_and_axes(preprocess):
    report = preprocess().stdout
    assert "easy  3 prompts, 6 criteria, 50% negative" in report and "themes: hedging 3" in report
    assert "accuracy 3, communication_quality 3" in report and "subset" in report


def test_another_number_of_rows_than_the_full_set_needs_a_word(preprocess):
    done = preprocess(options=())
    assert done.returncode == 2 and "5 prompts, 2 of them hard, not 5000 and 1000; add --allow-subset" in done.stderr
    assert not done.out.exists()


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"rubrics": [{"criterion": "Bad.", "points": -1, "tags": []}]}, "no criterion has positive points"),
        ({"rubrics": [{"criterion": " ", "points": 1, "tags": []}]}, "criterion 1: its text is empty"),
        ({"rubrics": None}, "rubrics is not a list"),
        ({"prompt": [{"role": "assistant", "content": "x"}]}, "last message"),
        ({"prompt": None}, "messages is not a list"),
        ({"example_tags": [1]}, "tags must be a list of strings"),
        ({"example_tags": "theme:x"}, "tags must be a list of strings"),
        ({"prompt_id": "id-1"}, "stands above already"),
    ],
)
def test_a_bad_row_is_left_out_and_named(preprocess, changes, complaint):
    done = preprocess(ROWS + [raw(9, **changes)])
    prompt_id = changes.get("prompt_id", "id-9")
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("refused: ") and f"all.jsonl:6, prompt_id {prompt_id}: " in line and complaint in line
    assert "refused  1 rows" in done.stdout and len(ids(done.out / "healthbench_easy.jsonl")) == 3


@pytest.mark.parametrize(
    "rows, hard, complaint",
    [
        (ROWS + ['{"prompt_id": '], HARD, "all.jsonl:6: broken JSON"),
        (ROWS + ["[]"], HARD, "all.jsonl:6: not a HealthBench row"),
        (ROWS + [{"prompt": []}], HARD, "all.jsonl:6: not a HealthBench row"),
        (HARD, ROWS, "lacks 3 prompts of .*hard.jsonl, e.g. id-0"),
        (HARD, HARD, "nothing is left for training"),
        (ROWS, [], "nothing is left for evaluation"),
    ],
    ids=["cut", "list", "no prompt_id", "swapped", "all hard", "none hard"],
)
def test_files_that_cannot_be_right_are_refused_in_one_line(preprocess, rows, hard, complaint):
    done = preprocess(rows, hard)
    assert done.returncode == 2 and not done.out.exists()
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    pytest.importorskip("re").search(complaint, line) or pytest.fail(line)


def test_a_missing_file_is_one_line(preprocess, tmp_path):
    done = preprocess(options=("--allow-subset", "--hard", "nowhere.jsonl"))
    assert done.returncode == 2 and done.stderr.startswith("error: nowhere.jsonl: no such file")
