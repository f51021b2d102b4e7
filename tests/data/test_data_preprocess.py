"""data_preprocess.py from raw rows to files: the split, refusals, rules, byte-identical output."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doubles.engine import TEMPLATE, chat_model

import data_preprocess
from rubric_rl.common.errors import DataError, UserError
from rubric_rl.data.row_file import read_rows
from rubric_rl.data.source import Source
from rubric_rl.data.split import SplitOptions, split
from rubric_rl.data.split_report import report


def raw(number: int, **more) -> dict:
    rubrics = [
        {"criterion": f"names {number}", "points": 5, "tags": ["axis:accuracy", "level:cluster"]},
        {"criterion": "invents", "points": -2, "tags": []},
    ]
    row = {
        "prompt_id": f"id{number}",
        "prompt": [{"role": "user", "content": f"question {number}"}],
        "rubrics": rubrics,
        "example_tags": [f"theme:t{number % 2}"],
        "canary": "c",
        "ideal_completions_data": None,
    }
    return row | more


def asks(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def write(path, rows):
    """Writes rows as JSONL; a text stands for itself."""
    lines = []
    for row in rows:
        line = row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)
        lines.append(line + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def make_source(folder: Path, rows: list, hard: list) -> Source:
    full_path = write(folder / "all.jsonl", rows)
    hard_path = write(folder / "hard.jsonl", hard)
    return Source(full_path, hard_path)


@pytest.fixture
def source(tmp_path):
    rows = [raw(number) for number in range(10)]
    return make_source(tmp_path, rows, rows[6:])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def run(source: Source, out, *flags: str) -> int:
    """The command on a source of few rows."""
    return run_complete(source, out, "--allow-subset", *flags)


def run_complete(source: Source, out, *flags: str) -> int:
    words = [
        f"--source={source.full}",
        f"--hard={source.hard}",
        f"--out={out}",
        *flags,
    ]
    return data_preprocess.main(words)


def ids(path):
    return [row.prompt_id for row in read_rows(path)]


def test_hard_ids_are_evaluation_and_all_others_training(source, out, capsys):
    easy, hard = out / "healthbench_easy.jsonl", out / "healthbench_hard.jsonl"
    assert run(source, out) == 0
    assert ids(easy) == ["id0", "id1", "id2", "id3", "id4", "id5"]
    assert ids(hard) == ["id6", "id7", "id8", "id9"]
    first_line = easy.read_text().split("\n")[0]
    row = json.loads(first_line)
    metadata = row["metadata"]
    assert row["prompt"] == metadata["messages"]
    assert metadata["theme"] == "t0"
    assert metadata["canary"] == "c"
    text = capsys.readouterr().out
    report_file = out / "healthbench_report.txt"
    assert text == report_file.read_text()
    assert text.startswith("a subset")
    assert "training: 6 prompts, 12 criteria, 50.0% negative" in text


def test_output_is_byte_identical(source, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for out in (one, two):
        run(source, out, "--sample", "3", "--seed", "7")
    names = sorted(path.name for path in one.iterdir())
    assert names == [
        "healthbench_easy.jsonl",
        "healthbench_hard.jsonl",
        "healthbench_hard_sample.jsonl",
        "healthbench_report.txt",
    ]
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_subset_needs_the_flag_and_writes_nothing(source, out, capsys):
    assert run_complete(source, out) == 2
    said = capsys.readouterr().err
    assert "6 training and 4 hard prompts, not 4000 and 1000; add --allow-subset" in said
    assert not out.exists()


def test_the_complete_set_passes_without_the_flag(tmp_path):
    rows = [raw(number) for number in range(5000)]
    complete = make_source(tmp_path, rows, rows[::5])
    result = split(complete)
    assert len(result.easy) == 4000
    assert len(result.hard) == 1000
    assert len(result.hard_sample) == 128
    assert result.subset is False
    rows[1]["rubrics"] = []
    write(tmp_path / "all.jsonl", rows)
    complaint = r"3999 training and 1000 hard.*1 refused.*all.jsonl:2, prompt_id id1"
    with pytest.raises(DataError, match=complaint):
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
    "that is not finite, which": raw(1, theme=float("nan")),
    "the last message is empty": raw(1, prompt=asks("\u200b\n")),
    "rubrics is not a list": raw(1, rubrics=None),
    "messages is not a list": raw(1, prompt=[]),
    "no prompt_id": raw(1, prompt_id=None),
    "no JSON object": [],
    "duplicate of an earlier prompt_id": raw(0),
}


@pytest.mark.parametrize("reason", DAMAGED)
def test_a_row_that_cannot_be_scored_is_refused_by_place_and_reason(reason, tmp_path, out, capsys):
    rows = [raw(0), DAMAGED[reason], raw(2), raw(3)]
    source = make_source(tmp_path, rows, rows[3:])
    assert run(source, out) == 0
    captured = capsys.readouterr()
    assert "all.jsonl:2" in captured.err
    assert reason in captured.err
    assert captured.err.count("refused: ") == 1
    assert "refused 1 rows: " in captured.out
    assert ids(out / "healthbench_easy.jsonl") == ["id0", "id2"]


def test_line_separators_inside_strings_do_not_split_rows(tmp_path):
    text = "a\u2028b\u0085c"
    rows = [raw(0, prompt=asks(text)), raw(1)]
    source = make_source(tmp_path, rows, rows[1:])
    result = split(source, SplitOptions(allow_subset=True))
    (message,) = result.easy[0].messages
    assert message["content"] == text
    assert not result.refused


@pytest.mark.parametrize("line", [raw(99), "{broken", {"prompt": []}])
def test_every_hard_row_must_be_readable_and_exist(source, line, out, capsys):
    write(source.hard, [raw(6), line])
    assert run(source, out) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")


def test_training_repeats_are_left_out_and_evaluation_stays_as_published(tmp_path):
    twice = [
        {"criterion": "a", "points": 5},
        {"criterion": "b", "points": 1},
        {"criterion": "a ", "points": 3},
    ]
    rows = [
        raw(0, rubrics=twice),
        raw(1, prompt=asks("question 0")),
        raw(2, prompt=asks("question  9")),
        raw(9, rubrics=twice),
    ]
    source = make_source(tmp_path, rows, rows[3:])
    result = split(source, SplitOptions(allow_subset=True))
    (easy,) = result.easy
    (hard,) = result.hard
    assert easy.prompt_id == "id0"
    assert [criterion.points for criterion in easy.rubric] == [5, 1]
    assert [criterion.points for criterion in hard.rubric] == [5, 1, 3]
    assert sorted(result.left_out.values()) == [1, 1, 1]


@pytest.mark.parametrize(
    "other",
    [
        "Is cafe\u0301 au lait bad\u00a0for me?",
        "IS CAFÉ AU LAIT BAD FOR ME?",
        "\ufeffIs ca\u00adfé au\u2003lait bad for\u200b me?\u200f",
        "Is café au lait bad for me\uff1f\ufe0f",
    ],
    ids=["decomposed", "upper case", "characters that nobody sees", "wide"],
)
def test_a_held_out_conversation_is_recognised_in_other_characters(tmp_path, other):
    rows = [raw(0), raw(1, prompt=asks(other)), raw(2, prompt=asks("Is café au lait bad for me?"))]
    source = make_source(tmp_path, rows, rows[2:])
    result = split(source, SplitOptions(allow_subset=True))
    assert [row.prompt_id for row in result.easy] == ["id0"]
    assert result.left_out["training prompts whose conversation is held out"] == 1


def test_samples_do_not_depend_on_the_order_of_rows(source, tmp_path):
    options = SplitOptions(allow_subset=True, sample=2, eval_sample=1, seed=3)
    first = split(source, options)
    rows = [raw(number) for number in range(10)]
    write(source.full, rows[::-1])
    second = split(source, options)
    for part in ("easy", "hard", "hard_sample"):
        drawn_first = {row.prompt_id for row in getattr(first, part)}
        drawn_second = {row.prompt_id for row in getattr(second, part)}
        assert drawn_first == drawn_second
    assert [len(first.easy), len(first.hard), len(first.hard_sample)] == [2, 2, 1]
    differs = []
    for seed in range(4, 9):
        options = SplitOptions(allow_subset=True, sample=2, seed=seed)
        other = split(source, options)
        differs.append(other.easy != second.easy)
    assert any(differs)


class Words:
    """Counts words in place of tokens."""

    def render(self, messages, thinking):
        return " ".join(message["content"] for message in messages)

    def count(self, text):
        return len(text.split())


def test_long_training_prompts_are_left_out(tmp_path):
    rows = [
        raw(0),
        raw(1, prompt=asks("a b c")),
        raw(2, prompt=asks("a b c d")),
    ]
    source = make_source(tmp_path, rows, rows[2:])
    options = SplitOptions(allow_subset=True, max_prompt_tokens=2, tokenizer=Words())
    result = split(source, options)
    assert [row.prompt_id for row in result.easy] == ["id0"]
    assert len(result.hard) == 1
    text = report(result)
    assert "left out 1 training prompts over 2 tokens" in text
    assert "longest 4, in all 4 tokens" in text


REFUSALS = {
    "no system role": "{% if messages[0].role == 'system' %}"
    "{{ raise_exception('no system role') }}{% endif %}",
    "TypeError": "{% if messages[0].role == 'system' %}{{ 1 + 'a' }}{% endif %}",
    "roles must alternate": "{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}",
}


class TestThePolicysChatTemplate:
    """Rows that it refuses are left out by name; without --tokenizer, nobody asks it."""

    @pytest.fixture
    def rows(self, source) -> list[dict]:
        """Training row 3 and held-out row 8 have what the templates refuse."""
        rows = [raw(number) for number in range(10)]
        for number in (3, 8):
            rows[number]["prompt"].insert(0, {"role": "system", "content": "be kind"})
        write(source.full, rows)
        return rows

    @pytest.mark.parametrize("reason", REFUSALS)
    def test_leaves_rows_out_by_name(self, source, rows, tmp_path, out, capsys, reason):
        model = chat_model(tmp_path / "model", REFUSALS[reason] + TEMPLATE)
        assert run(source, out, f"--tokenizer={model}") == 0
        captured = capsys.readouterr()
        for line, number in ((4, 3), (9, 8)):
            place = f"{source.full}:{line}, prompt_id id{number}"
            refusal = f"the chat template of {model} refuses this conversation: "
            assert f"refused: {place}: {refusal}" in captured.err
            assert f"\n  {place}\n" in captured.out
        assert captured.err.count("\n") == 2
        assert "refused 2 rows: the chat template of" in captured.out
        assert reason in captured.out
        assert (out / "healthbench_report.txt").read_text() == captured.out
        assert ids(out / "healthbench_easy.jsonl") == ["id0", "id1", "id2", "id4", "id5"]
        assert ids(out / "healthbench_hard.jsonl") == ["id6", "id7", "id9"]

    def test_makes_no_held_out_conversation_one_to_train_on(self, source):
        class OfSmallLetters(Words):
            def render(self, messages, thinking):
                if messages[0]["content"] == "question 8":
                    raise UserError("refused")
                return super().render(messages, thinking)

        rows = [raw(number) for number in range(10)]
        rows[0]["prompt"] = asks("QUESTION 8")
        write(source.full, rows)
        result = split(source, SplitOptions(allow_subset=True, tokenizer=OfSmallLetters()))
        assert [row.prompt_id for row in result.hard] == ["id6", "id7", "id9"]
        assert "id0" not in [row.prompt_id for row in result.easy]

    def test_that_refuses_all_rows_writes_nothing(self, source, tmp_path, out, capsys):
        model = chat_model(tmp_path / "model", "{{ raise_exception('never') }}")
        assert run(source, out, f"--tokenizer={model}") == 2
        said = capsys.readouterr().err
        assert f"nothing is left for training; the first refused row: {source.full}:1" in said
        assert said.count("\n") == 1
        assert not out.exists()

    def test_counts_among_the_prompts_of_the_release(self, source, rows, tmp_path, out, capsys):
        refusal = REFUSALS["no system role"]
        model = chat_model(tmp_path / "model", refusal + TEMPLATE)
        assert run_complete(source, out, f"--tokenizer={model}") == 2
        said = capsys.readouterr().err
        assert "5 training and 3 hard prompts, not 4000 and 1000, 2 refused, the first: " in said
        assert not out.exists()


def test_the_report_names_ten_refused_rows_of_a_reason(tmp_path):
    rows = [raw(number, rubrics=[] if number < 12 else raw(0)["rubrics"]) for number in range(14)]
    folder = tmp_path / "rows: raw"  # what ends a place may stand in its path
    folder.mkdir()
    source = make_source(folder, rows, rows[13:])
    text = report(split(source, SplitOptions(allow_subset=True)))
    assert "refused 12 rows: rubrics is not a list of criteria\n" in text
    assert text.count("all.jsonl:") == 10
    assert "\n  and 2 more\n" in text


def test_consensus_drops_prompts_that_keep_no_criterion(source):
    rows = [raw(number) for number in range(10)]
    first_criterion = rows[0]["rubrics"][0]
    first_criterion["tags"] = []
    write(source.full, rows)
    result = split(source, SplitOptions(allow_subset=True, consensus=True))
    assert len(result.easy) == 5
    for row in [*result.easy, *result.hard]:
        assert len(row.rubric) == 1


class TestOtherData:
    FLAGS = ("--converter=rubric_rl.data.converters.plain", "--name=other")

    @pytest.fixture
    def path(self, tmp_path):
        rubric = [{"description": "good", "weight": 1}]
        rows = [{"prompt": f"ask {n}", "rubric": rubric} for n in range(8)]
        return write(tmp_path / "other.jsonl", rows)

    def test_a_converter_and_a_drawn_hold_out(self, path, out, capsys):
        flags = [f"--source={path}", f"--out={out}", *self.FLAGS]
        assert data_preprocess.main(flags) == 2
        assert "--hold-out N" in capsys.readouterr().err
        assert data_preprocess.main([*flags, "--hold-out=3"]) == 0
        assert len(ids(out / "other_easy.jsonl")) == 5
        assert len(ids(out / "other_hard.jsonl")) == 3

    def test_a_converter_that_raises_refuses_its_row(self, path, out, capsys):
        with path.open("a") as file:
            file.write('{"x": 1}\n')
        flags = [f"--source={path}", f"--out={out}", *self.FLAGS]
        assert data_preprocess.main([*flags, "--hold-out=1"]) == 0
        said = capsys.readouterr().err
        assert "other.jsonl:9: the converter raised DataError: prompt is missing" in said

    def test_a_hard_file_and_a_drawn_hold_out_exclude_each_other(self, source, out, capsys):
        assert run(source, out, "--hold-out=3") == 2
        said = capsys.readouterr().err
        assert "hard.jsonl says what is held out; leave out --hold-out" in said


class TestExitStatus:
    """2 and one line for what a user can mend; a defect of ours ends in its traceback."""

    @pytest.mark.parametrize(
        "flags",
        [["--sample", "0"], ["--max-prompt-tokens", "5"], ["--hold-out", "-1"], ["--sampl", "3"]],
    )
    def test_impossible_flags_are_refused(self, flags, monkeypatch, capsys):
        monkeypatch.delenv("HF_CKPT_PATH", raising=False)
        assert data_preprocess.main(flags) == 2
        assert capsys.readouterr().err.count("\n") == 1

    def test_swapped_files_and_missing_ones_are_one_line(self, source, tmp_path, out, capsys):
        def complaint(full: Path, hard: Path) -> str:
            assert run(Source(full, hard), out) == 2
            return capsys.readouterr().err

        assert "lacks 6 prompts of" in complaint(source.hard, source.full)
        assert "nowhere: no such file" in complaint(source.full, tmp_path / "nowhere")
        assert not out.exists()
        assert "nothing is left for training" in complaint(source.full, source.full)

    def test_a_hold_out_of_all_prompts_is_one_line(self, source, out, capsys):
        flags = [f"--source={source.full}", f"--out={out}", "--hold-out=9999", "--allow-subset"]
        assert data_preprocess.main(flags) == 2
        said = capsys.readouterr().err
        assert "usable prompts leaves none for training; hold out fewer" in said

    def test_a_folder_that_cannot_be_made_is_one_line(self, source, capsys):
        assert run(source, "/proc/nowhere") == 2
        said = capsys.readouterr().err
        assert said.startswith("error: /proc/nowhere: ")
        assert said.count("\n") == 1

    def test_a_full_disk_names_the_file(self, source, out, capsys, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("rubric_rl.common.jsonl.os.fsync", full)
        assert run(source, out) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {out}/healthbench_easy.jsonl: No space left on device; ")
        assert list(out.iterdir()) == []

    def test_a_file_that_cannot_be_read_is_one_line(self, source, out, capsys):
        unreadable = Path("/proc/self/mem")  # also for root
        assert run(Source(unreadable, source.hard), out) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: /proc/self/mem: cannot be read (")
        assert said.count("\n") == 1

    @pytest.mark.parametrize("defect", [OSError("ours"), KeyError("ours")])
    def test_a_defect_is_not_the_users_mistake(self, source, out, monkeypatch, defect):
        def broken(*_):
            raise defect

        monkeypatch.setattr(data_preprocess, "split", broken)
        with pytest.raises(type(defect), match="ours"):
            run(source, out)

    @pytest.mark.parametrize("name", ["../x", "a/b", "/x", "..", ".", "", "x/"])
    def test_a_name_stays_in_the_folder(self, source, tmp_path, name, capsys):
        out = tmp_path / "deep" / "out"
        assert run(source, out, f"--name={name}") == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: --name {name}: holds a folder; give the beginning of file")
        assert not out.parent.exists()

    @pytest.mark.parametrize("part", ["easy", "hard"])
    def test_no_file_takes_the_place_of_its_source(self, source, tmp_path, part, capsys):
        path = source.full if part == "easy" else source.hard
        raw_file = path.rename(tmp_path / f"mine_{part}.jsonl")
        before = raw_file.read_bytes()
        named = Source(raw_file, source.hard) if part == "easy" else Source(source.full, raw_file)
        assert run(named, tmp_path, "--name=mine") == 2
        assert f"{raw_file}: is read and would be written over" in capsys.readouterr().err
        assert raw_file.read_bytes() == before

    def test_no_file_takes_the_place_of_one_in_a_folder_of_hard_rows(self, tmp_path, capsys):
        rows = [raw(number) for number in range(10)]
        full = write(tmp_path / "all.jsonl", rows)
        folder = tmp_path / "hard"
        folder.mkdir()
        hard = write(folder / "mine_hard.jsonl", rows[6:])
        before = hard.read_bytes()
        assert run(Source(full, folder), folder, "--name=mine") == 2
        assert f"{hard}: is read and would be written over" in capsys.readouterr().err
        assert hard.read_bytes() == before

    def test_no_log_takes_the_place_of_the_source(self, source, tmp_path, capsys):
        raw_file = source.full.rename(tmp_path / "mine_changes.jsonl")
        before = raw_file.read_bytes()
        assert run(Source(raw_file, source.hard), tmp_path, "--name=mine") == 2
        assert f"{raw_file}: is read and would be written over" in capsys.readouterr().err
        assert raw_file.read_bytes() == before

    def test_empty_files_are_one_line(self, source, out, capsys):
        def complaint(flags: list[str]) -> str:
            assert data_preprocess.main([*flags, f"--out={out}", "--allow-subset"]) == 2
            return capsys.readouterr().err

        empty = write(out.parent / "empty.jsonl", ["", " "])
        said = complaint([f"--source={empty}", "--hold-out=1"])
        assert said == f"error: {empty}: holds no rows; name a file of raw rows\n"
        said = complaint([f"--source={source.full}", f"--hard={empty}"])
        assert said.startswith(f"error: {empty}: holds no rows; name the rows held out")
        folder = out.parent / "folder"
        folder.mkdir()
        said = complaint([f"--source={source.full}", f"--hard={folder}"])
        assert said.startswith(f"error: {folder}: holds no files of rows (.jsonl, ")

    def test_an_environment_without_the_packages_is_one_line(self):
        bare = [sys.executable, "-S", data_preprocess.__file__]  # -S: no site-packages
        done = subprocess.run(bare, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stdout == ""
        way_out = r"pip install -e \. here, or use \.venv/bin/python"
        assert re.fullmatch(rf"error: the package \w+ is missing; {way_out}\n", done.stderr)
