"""data_preprocess.py from raw rows to files: the split, its rules, byte-identical output."""

import json
import sys
from collections import OrderedDict
from types import ModuleType

import pytest
from doubles.raw_files import Words, asks, ids, make_source, raw, run, run_complete, write

import data_preprocess
from rubric_rl.common.errors import DataError
from rubric_rl.data.converters import plain
from rubric_rl.data.row_file import read_rows
from rubric_rl.data.split import SplitOptions, split
from rubric_rl.data.split_report import report


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


def test_line_separators_inside_strings_do_not_split_rows(tmp_path):
    text = "a\u2028b\u0085c"
    rows = [raw(0, prompt=asks(text)), raw(1)]
    source = make_source(tmp_path, rows, rows[1:])
    result = split(source, SplitOptions(allow_subset=True))
    (message,) = result.easy[0].messages
    assert message["content"] == text
    assert not result.refused


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

    def test_a_converter_may_make_dicts_and_texts_of_its_own(self, path, out, monkeypatch):
        class Words(str):
            pass

        def converted(raw: dict) -> dict:
            return plain(raw) | {"provenance": OrderedDict(by=Words("me")), "canary": Words("c")}

        module = ModuleType("own")
        module.__dict__["converted"] = converted
        monkeypatch.setitem(sys.modules, "own", module)
        flags = [f"--source={path}", f"--out={out}", "--name=other", "--hold-out=1"]
        assert data_preprocess.main([*flags, "--converter=own.converted"]) == 0
        row = read_rows(out / "other_easy.jsonl")[0]
        assert row.extra == {"provenance": {"by": "me"}, "canary": "c"}

    def test_a_row_that_is_nested_too_deeply_is_one_line(self, path, out, capsys):
        lines = path.read_bytes() * 100
        deep = '{"x": ' * 500 + "1" + "}" * 500
        path.write_bytes(lines + b'{"prompt": "a", "rubric": ["b"], "more": %s}\n' % deep.encode())
        flags = [f"--source={path}", f"--out={out}", "--name=other", "--hold-out=1"]
        assert data_preprocess.main(flags) == 2
        assert "nested hundreds of times; leave that row out" in capsys.readouterr().err

    def test_a_hard_file_and_a_drawn_hold_out_exclude_each_other(self, source, out, capsys):
        assert run(source, out, "--hold-out=3") == 2
        said = capsys.readouterr().err
        assert "hard.jsonl says what is held out; leave out --hold-out" in said
