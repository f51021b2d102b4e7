"""Rows that data_preprocess.py refuses; each is named with its reason."""

import json
import re

import pytest
from doubles.engine import TEMPLATE, chat_model
from doubles.raw_files import Words, asks, ids, make_source, raw, run, run_complete, write

import data_preprocess
from rubric_rl.common.errors import UserError
from rubric_rl.data.split import SplitOptions, split
from rubric_rl.data.split_report import report

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


@pytest.mark.parametrize("line", [raw(99), "{broken", {"prompt": []}])
def test_every_hard_row_must_be_readable_and_exist(source, line, out, capsys):
    write(source.hard, [raw(6), line])
    assert run(source, out) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")


def test_what_a_hard_row_asks_is_not_trained_on_whatever_became_of_it(tmp_path, out):
    same = asks("Asked by a row that is refused?")
    refused = raw(0, prompt=same, rubrics=[{"criterion": "", "points": 1}])
    rows = [refused, raw(1, prompt=same), raw(2), raw(3), raw(4, prompt=asks("As published?"))]
    hard = [raw(0), raw(3, prompt=asks("AS PUBLISHED?"))]
    assert run(make_source(tmp_path, rows, hard), out) == 0
    assert ids(out / "healthbench_easy.jsonl") == ["id2"]
    assert ids(out / "healthbench_hard.jsonl") == ["id3"]


def test_of_rows_that_repeat_others_nothing_else_is_counted(tmp_path, out, capsys):
    path = tmp_path / "rows.jsonl"
    write(path, [{"prompt": f"Why {number % 2}?", "rubric": ["a"]} for number in range(6)])
    flags = [f"--source={path}", f"--out={out}"]
    assert data_preprocess.main([*flags, "--hold-out=1"]) == 0
    said = capsys.readouterr().out
    assert "refused 4 rows: the same conversation" in said
    assert "\n2 criteria without points" in said
    assert data_preprocess.main([*flags, "--hold-out=2"]) == 2
    said = capsys.readouterr().err
    assert "of 2 usable prompts leaves none for training, 4 rows were refused, the first:" in said


def test_nothing_left_to_train_on_says_why(tmp_path, out, capsys):
    rows = [raw(n, rubrics=[{"criterion": "x", "points": 1}]) for n in range(4)]
    few = make_source(tmp_path, rows, rows[3:])
    assert run(few, out, "--consensus") == 2
    said = capsys.readouterr().err
    assert "left out 4 prompts without a positive consensus criterion" in said
    write(few.hard, rows)
    assert run(few, out) == 2
    assert "nothing is left for training; all prompts are held out" in capsys.readouterr().err


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


def test_several_processes_read_and_refuse_what_one_does_in_the_same_order(tmp_path, monkeypatch):
    rows = [raw(number) for number in range(2, 6)]
    for damaged in DAMAGED.values():
        rows += [damaged, raw(len(rows) + 6)]
    source = make_source(tmp_path, [raw(0), *rows, DAMAGED["broken JSON"]], rows[:2])
    options = SplitOptions(allow_subset=True)
    alone = split(source, options)
    monkeypatch.setattr("rubric_rl.data.split.PIECE", 3)
    together = split(source, options)
    assert together == alone
    lines = [int(re.findall(r"all.jsonl:(\d+)", refusal)[0]) for refusal in alone.refused]
    assert lines == sorted(lines) and len(lines) == len(DAMAGED) + 1
