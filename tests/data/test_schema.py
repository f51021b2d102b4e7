"""The row format: what it accepts, and that every refusal names file, line and prompt_id (stage 1)."""

import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.data.parse import row_from_metadata
from rubric_rl.data.row_file import read_rows
from rubric_rl.data.schema import Criterion
from rubric_rl.errors import DataError
from rubric_rl.jsonl import append_line, read_jsonl, write_jsonl

USER = {"role": "user", "content": "hi"}


def metadata(**changes) -> dict:
    rubrics = [
        {"criterion": "Greets.", "points": 5, "tags": ["axis:accuracy"]},
        {"criterion": "Shouts.", "points": -2.5},
    ]
    return {"prompt_id": "p1", "messages": [USER], "rubrics": rubrics, "canary": "c"} | changes


def criterion(**changes) -> dict:
    return metadata(rubrics=[{"criterion": "Greets.", "points": 5} | changes])


def test_a_row_survives_the_way_through_a_file(tmp_path):
    row = row_from_metadata(metadata(theme="t", example_tags=["theme:t"]))
    assert write_jsonl(tmp_path / "rows.jsonl", [row.to_json()]) == 1
    assert read_rows(tmp_path / "rows.jsonl") == [row]
    assert row.extra == {"canary": "c"}
    assert row.to_json()["prompt"] == row.to_json()["metadata"]["messages"] == [USER]


@given(st.text(st.characters(codec=None)))
def test_any_text_survives_line_separators_and_half_surrogates_included(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_jsonl(path, [{"text": text}, {"text": "\u2028\x85\x1c" + text}])
    assert [item["text"] for _, item in read_jsonl(path)] == [text, "\u2028\x85\x1c" + text]
    assert path.read_bytes().decode("utf-8").count("\n") == 2


def test_a_tag_is_found_by_its_kind():
    item = Criterion("x", 1, ("level:cluster", "axis:accuracy", "axis:other"))
    assert (item.tag("axis"), item.tag("cluster")) == ("accuracy", "")


@pytest.mark.parametrize(
    "changes, complaint",
    [
        (metadata(messages=[]), "messages is not a list"),
        (metadata(messages="hi"), "messages is not a list"),
        (metadata(messages=[{"role": "tool", "content": "x"}]), "needs a role"),
        (metadata(messages=[{"role": "user", "content": None}]), "text content"),
        (
            metadata(messages=[USER, {"role": "assistant", "content": "x"}]),
            "last message is from the assistant",
        ),
        (metadata(rubrics=None), "rubrics is not a list"),
        (metadata(rubrics=[]), "rubrics is not a list"),
        (metadata(rubrics=["Greets."]), "criterion 1: its text"),
        (
            metadata(rubrics=[{"criterion": "Bad.", "points": -1}]),
            "no criterion has positive points",
        ),
        (metadata(example_tags="theme:x"), "list of strings"),
        (metadata(example_tags=[1]), "list of strings"),
        (criterion(criterion=" \n"), "criterion 1: its text is empty"),
        (criterion(tags="axis:x"), "criterion 1: tags"),
        *((criterion(points=p), "criterion 1: points") for p in (0, 0.0, None, "5", True, [5])),
        *(
            (criterion(points=p), "criterion 1: points")
            for p in (float("nan"), float("inf"), 10**400, 1e-320)
        ),
    ],
)
def test_every_refusal_names_file_line_and_prompt_id(tmp_path, changes, complaint):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "\n"
        + json.dumps({"metadata": metadata()})
        + "\n"
        + json.dumps({"metadata": changes})
        + "\n"
    )
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert str(error.value).startswith(f"{path}:3, prompt_id p1") and complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "line, complaint",
    [
        (b'{"metadata": {', "broken JSON"),
        (b'{"a": "\xff"}', "broken JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "broken JSON"),
        (b"[" * 100_000, "broken JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", "metadata is NoneType"),
        (b'{"metadata": {"prompt_id": ""}}', "prompt_id is missing"),
    ],
    ids=["cut", "not UTF-8", "huge number", "deep", "list", "no metadata", "no prompt_id"],
)
def test_a_line_that_is_no_row_is_named(tmp_path, line, complaint):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps({"metadata": metadata()}).encode() + b"\n" + line + b"\n")
    with pytest.raises(DataError, match=complaint) as error:
        read_rows(path)
    assert str(error.value).startswith(f"{path}:2")


def test_missing_and_empty_files_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    for path, complaint in (
        (tmp_path / "none.jsonl", "no such file"),
        (tmp_path / "empty.jsonl", "no rows"),
    ):
        with pytest.raises(DataError, match=complaint):
            read_rows(path)


@pytest.mark.parametrize("cut", ['{"text": "ab', '{"text": "', ""])
def test_a_last_line_that_a_kill_cut_is_left_out_even_inside_a_character(tmp_path, cut):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"n": 1}\n' + cut.encode() + ("é".encode()[:1] if cut else b""))
    assert list(read_jsonl(path, skip_partial=True)) == [(1, {"n": 1})]
    if cut:
        with pytest.raises(DataError, match="jsonl:2: broken JSON"):
            list(read_jsonl(path))


@pytest.mark.parametrize("whole", [b"", b'{"n": 0}\n'])
@pytest.mark.parametrize("torn", [b"", b"x", '{"text": "é'.encode()[:-1], b"x" * 70_000])
def test_a_line_is_added_where_a_kill_cut_the_last_one(tmp_path, whole, torn):
    path = tmp_path / "records.jsonl"
    path.write_bytes(whole + torn)
    with path.open("a+b", buffering=0) as file:
        append_line(file, {"n": 1})
    assert path.read_bytes() == whole + b'{"n": 1}\n'


def test_a_written_file_can_be_read_by_whoever_the_umask_allows(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{"n": 1}])
    (tmp_path / "other").write_text("")
    assert (tmp_path / "rows.jsonl").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"n": 1}])

    def items():
        yield {"n": 2}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, items())
    with pytest.raises(ValueError):
        write_jsonl(path, [{"n": float("nan")}])
    assert os.listdir(tmp_path) == ["rows.jsonl"]
    assert list(read_jsonl(path)) == [(1, {"n": 1})]


def test_on_a_full_disk_a_line_is_added_whole_or_not_at_all():
    class Full(io.BytesIO):
        name = "full"

        def write(self, line):
            return super().write(line[:5])

    file = Full(b"{}\n")
    with pytest.raises(OSError, match="No space left"):
        append_line(file, {"n": 1})
    assert file.getvalue() == b"{}\n"
