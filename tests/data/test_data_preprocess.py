"""data_preprocess.py from raw rows to files: the split, refusals, rules, byte-identical output."""

import json
import re
import subprocess
import sys

import pytest

import data_preprocess
from rubric_rl.data.healthbench import Source
from rubric_rl.data.row_file import read_rows
from rubric_rl.data.split import Options, report, split
from rubric_rl.errors import DataError


def raw(number: int, **more) -> dict:
    rubrics = [
        {"criterion": f"names {number}", "points": 5, "tags": ["axis:accuracy", "level:cluster"]},
        {"criterion": "invents", "points": -2, "tags": []},
    ]
    prompt = [{"role": "user", "content": f"question {number}"}]
    return {"prompt_id": f"id{number}", "prompt": prompt, "rubrics": rubrics, "example_tags": [f"theme:t{number % 2}"],
            "canary": "c", "ideal_completions_data": None} | more  # fmt: skip


def write(path, rows):
    path.write_text(
        "".join(
            (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n"
            for row in rows
        ),
        encoding="utf-8",
    )
    return path


@pytest.fixture
def source(tmp_path):
    rows = [raw(number) for number in range(10)]
    return Source(write(tmp_path / "all.jsonl", rows), write(tmp_path / "hard.jsonl", rows[6:]))


def run(source, out, *flags):
    return data_preprocess.main(
        ["--source", str(source.full), "--hard", str(source.hard), "--out", str(out), *flags]
    )


def ids(path):
    return [row.prompt_id for row in read_rows(path)]


def test_hard_ids_are_evaluation_and_all_others_training(source, tmp_path, capsys):
    assert run(source, tmp_path / "out", "--allow-subset") == 0
    assert ids(tmp_path / "out" / "healthbench_easy.jsonl") == [f"id{n}" for n in range(6)]
    assert ids(tmp_path / "out" / "healthbench_hard.jsonl") == [f"id{n}" for n in range(6, 10)]
    row = json.loads((tmp_path / "out" / "healthbench_easy.jsonl").read_text().split("\n")[0])
    assert (
        row["prompt"] == row["metadata"]["messages"]
        and row["metadata"]["theme"] == "t0"
        and row["metadata"]["canary"] == "c"
    )
    text = capsys.readouterr().out
    assert text == (tmp_path / "out" / "healthbench_report.txt").read_text()
    assert (
        text.startswith("a subset") and "training: 6 prompts, 12 criteria, 50.0% negative" in text
    )


def test_output_is_byte_identical(source, tmp_path):
    for out in ("one", "two"):
        run(source, tmp_path / out, "--allow-subset", "--sample", "3", "--seed", "7")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == [
        "healthbench_easy.jsonl",
        "healthbench_hard.jsonl",
        "healthbench_hard_sample.jsonl",
        "healthbench_report.txt",
    ]
    assert all(
        (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        for name in names
    )


def test_subset_needs_the_flag_and_writes_nothing(source, tmp_path, capsys):
    assert run(source, tmp_path / "out") == 2
    assert (
        "6 training and 4 hard prompts, not 4000 and 1000; add --allow-subset"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_the_complete_set_passes_without_the_flag(tmp_path):
    rows = [raw(number) for number in range(5000)]
    complete = Source(
        write(tmp_path / "all.jsonl", rows), write(tmp_path / "hard.jsonl", rows[::5])
    )
    result = split(complete)
    assert (len(result.easy), len(result.hard), len(result.hard_sample), result.subset) == (
        4000,
        1000,
        128,
        False,
    )
    rows[1]["rubrics"] = []
    write(tmp_path / "all.jsonl", rows)
    with pytest.raises(
        DataError, match="3999 training and 1000 hard.*1 refused.*all.jsonl:2, prompt_id id1"
    ):
        split(complete)


DAMAGED = {
    "broken JSON": '{"prompt_id": "id1", ',
    "no criterion has positive points": raw(1, rubrics=[{"criterion": "x", "points": -1}]),
    "the last message is from the assistant": raw(
        1, prompt=[{"role": "assistant", "content": "x"}]
    ),
    "its text is empty": raw(1, rubrics=[{"criterion": " ", "points": 1}]),
    "points must be": json.dumps(raw(1)).replace("-2", "Infinity"),
    "points must": json.dumps(raw(1)).replace("-2", "NaN"),
    "points": json.dumps(raw(1)).replace("-2", '"2"'),
    "not finite": raw(1, canary=float("inf")),
    "rubrics is not a list": raw(1, rubrics=None),
    "messages is not a list": raw(1, prompt=[]),
    "no prompt_id": raw(1, prompt_id=None),
    "prompt_id": [],
    "duplicate of an earlier prompt_id": raw(0),
}


@pytest.mark.parametrize("reason", DAMAGED)
def test_a_row_that_cannot_be_scored_is_refused_by_place_and_reason(reason, tmp_path, capsys):
    rows = [raw(0), DAMAGED[reason], raw(2), raw(3)]
    source = Source(write(tmp_path / "all.jsonl", rows), write(tmp_path / "hard.jsonl", [raw(3)]))
    assert run(source, tmp_path / "out", "--allow-subset") == 0
    captured = capsys.readouterr()
    assert (
        "all.jsonl:2" in captured.err
        and reason in captured.err
        and captured.err.count("refused: ") == 1
    )
    assert "refused 1 rows: " in captured.out
    assert ids(tmp_path / "out" / "healthbench_easy.jsonl") == ["id0", "id2"]


def test_line_separators_inside_strings_do_not_split_rows(tmp_path):
    rows = [raw(0, prompt=[{"role": "user", "content": "a\u2028b\u0085c"}]), raw(1)]
    result = split(
        Source(write(tmp_path / "all.jsonl", rows), write(tmp_path / "hard.jsonl", rows[1:])),
        Options(allow_subset=True),
    )
    assert result.easy[0].messages[0]["content"] == "a\u2028b\u0085c" and not result.refused


@pytest.mark.parametrize("line", [raw(99), "{broken", {"prompt": []}])
def test_every_hard_row_must_be_readable_and_exist(source, line, capsys, tmp_path):
    write(source.hard, [raw(6), line])
    assert run(source, tmp_path / "out", "--allow-subset") == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_training_repeats_are_left_out_and_evaluation_stays_as_published(tmp_path):
    twice = [
        {"criterion": "a", "points": 5},
        {"criterion": "b", "points": 1},
        {"criterion": "a ", "points": 3},
    ]
    same = [{"role": "user", "content": "question  9"}]
    rows = [
        raw(0, rubrics=twice),
        raw(1, prompt=raw(0)["prompt"]),
        raw(2, prompt=same),
        raw(9, rubrics=twice),
    ]
    source = Source(write(tmp_path / "all.jsonl", rows), write(tmp_path / "hard.jsonl", rows[3:]))
    result = split(source, Options(allow_subset=True))
    assert [row.prompt_id for row in result.easy] == ["id0"]
    assert [c.points for c in result.easy[0].rubric] == [5, 1] and [
        c.points for c in result.hard[0].rubric
    ] == [
        5,
        1,
        3,
    ]
    assert sorted(result.left_out.values()) == [1, 1, 1]


def test_samples_do_not_depend_on_the_order_of_rows(source, tmp_path):
    options = Options(allow_subset=True, sample=2, eval_sample=1, seed=3)
    first = split(source, options)
    write(source.full, [raw(number) for number in reversed(range(10))])
    second = split(source, options)
    for part in ("easy", "hard", "hard_sample"):
        assert {r.prompt_id for r in getattr(first, part)} == {
            r.prompt_id for r in getattr(second, part)
        }
    assert [len(first.easy), len(first.hard), len(first.hard_sample)] == [2, 2, 1]
    assert any(
        split(source, Options(allow_subset=True, sample=2, seed=seed)).easy != second.easy
        for seed in range(4, 9)
    )


class Words:
    """Counts words in place of tokens."""

    def render(self, messages, thinking):
        return " ".join(message["content"] for message in messages)

    def count(self, text):
        return len(text.split())


def test_long_training_prompts_are_left_out(tmp_path):
    rows = [
        raw(0),
        raw(1, prompt=[{"role": "user", "content": "a b c"}]),
        raw(2, prompt=[{"role": "user", "content": "a b c d"}]),
    ]
    source = Source(write(tmp_path / "all.jsonl", rows), write(tmp_path / "hard.jsonl", rows[2:]))
    options = Options(allow_subset=True, max_prompt_tokens=2, template=Words())
    result = split(source, options)
    assert [row.prompt_id for row in result.easy] == ["id0"] and len(result.hard) == 1
    text = report(result, options)
    assert (
        "left out 1 training prompts over 2 tokens" in text and "longest 4, in all 4 tokens" in text
    )


def test_consensus_drops_prompts_that_keep_no_criterion(source):
    rows = [raw(number) for number in range(10)]
    rows[0]["rubrics"][0]["tags"] = []
    write(source.full, rows)
    result = split(source, Options(allow_subset=True, consensus=True))
    assert len(result.easy) == 5 and all(len(row.rubric) == 1 for row in result.easy + result.hard)


def test_other_data_with_a_converter_and_a_drawn_hold_out(tmp_path, capsys):
    rows = [
        {"prompt": f"ask {n}", "rubric": [{"description": "good", "weight": 1}]} for n in range(8)
    ]
    path, out = write(tmp_path / "other.jsonl", rows), tmp_path / "out"
    flags = ["--source", str(path), "--out", str(out), "--allow-subset"]
    convert = ["--converter", "rubric_rl.data.converters.plain"]
    assert data_preprocess.main(flags + convert) == 2 and "--hold-out N" in capsys.readouterr().err
    assert data_preprocess.main(flags + convert + ["--hold-out", "3", "--name", "other"]) == 0
    assert (len(ids(out / "other_easy.jsonl")), len(ids(out / "other_hard.jsonl"))) == (5, 3)


def test_a_hard_file_and_a_drawn_hold_out_exclude_each_other(source, tmp_path, capsys):
    assert run(source, tmp_path / "out", "--allow-subset", "--hold-out", "3") == 2
    assert "hard.jsonl says what is held out; leave out --hold-out" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_one_line(source, capsys):
    assert run(source, "/proc/nowhere", "--allow-subset") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: /proc/nowhere: ") and said.count("\n") == 1 and "--out" in said


def test_a_converter_that_raises_refuses_its_row(tmp_path, capsys):
    rows = [{"prompt": f"ask {n}", "rubric": [{"text": "good", "weight": 1}]} for n in range(4)]
    path = write(tmp_path / "other.jsonl", [*rows, {"x": 1}])
    flags = f"--source {path} --out {tmp_path} --allow-subset --hold-out 1 --converter rubric_rl.data.converters.plain"
    assert data_preprocess.main(flags.split()) == 0
    assert "other.jsonl:5: the converter raised KeyError" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [["--sample", "0"], ["--max-prompt-tokens", "5"], ["--hold-out", "-1"], ["--sampl", "3"]],
)
def test_impossible_flags_are_refused(flags, capsys, monkeypatch):
    monkeypatch.delenv("HF_CKPT_PATH", raising=False)
    with pytest.raises(SystemExit) as end:
        data_preprocess.main(flags)
    assert end.value.code == 2


def test_swapped_files_and_missing_ones_are_one_line(source, tmp_path, capsys):
    swapped = Source(source.hard, source.full)
    assert run(swapped, tmp_path / "out", "--allow-subset") == 2
    assert "lacks 6 prompts of" in capsys.readouterr().err
    assert run(Source(source.full, tmp_path / "nowhere"), tmp_path / "out", "--allow-subset") == 2
    assert "nowhere: no such file" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert run(Source(source.full, source.full), tmp_path / "out", "--allow-subset") == 2
    assert "nothing is left for training" in capsys.readouterr().err
    drawn = [
        "--source",
        str(source.full),
        "--hold-out",
        "9999",
        "--allow-subset",
        "--out",
        str(tmp_path / "out"),
    ]
    assert data_preprocess.main(drawn) == 2
    assert "usable prompts leaves none for training; hold out fewer" in capsys.readouterr().err


def test_an_environment_without_the_packages_is_one_line():
    bare = [sys.executable, "-S", data_preprocess.__file__]  # -S: no site-packages
    done = subprocess.run(bare, capture_output=True, text=True)
    assert done.returncode and done.stdout == ""
    line = r"error: the package \w+ is missing; pip install -e \. here, or use \.venv/bin/python\n"
    assert re.fullmatch(line, done.stderr)
