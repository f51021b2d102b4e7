"""The row format, and that every refusal names file, line and prompt_id; JSONL files as such."""

import copy
import io
import json
import os

import pytest
from doubles.texts import any_text
from hypothesis import given

from rubric_rl.common.errors import DataError
from rubric_rl.common.jsonl import append_line, read_jsonl, write_jsonl
from rubric_rl.data import parse
from rubric_rl.data.parse import RowCache, row_from_metadata
from rubric_rl.data.row_file import read_rows
from rubric_rl.data.schema import Criterion

USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "x"}
RUBRICS = [
    {"criterion": "Greets.", "points": 5, "tags": ["axis:accuracy"]},
    {"criterion": "Shouts.", "points": -2.5},
]


def metadata(**changes) -> dict:
    fields = {"prompt_id": "p1", "messages": [USER], "rubrics": RUBRICS, "canary": "c"}
    return fields | changes


def criterion(**changes) -> dict:
    return metadata(rubrics=[{"criterion": "Greets.", "points": 5} | changes])


def test_a_row_survives_the_way_through_a_file(tmp_path):
    row = row_from_metadata(metadata(theme="t", example_tags=["theme:t"]))
    assert write_jsonl(tmp_path / "rows.jsonl", [row.to_json()]) == 1
    assert read_rows(tmp_path / "rows.jsonl") == [row]
    assert row.extra == {"canary": "c"}
    assert row.to_json()["prompt"] == row.to_json()["metadata"]["messages"] == [USER]


def test_half_a_surrogate_pair_is_text_as_any_other():
    half = "half \ud83d"
    row = row_from_metadata(
        metadata(
            prompt_id=half,
            messages=[{"role": "user", "content": half}],
            rubrics=[{"criterion": half, "points": 1, "tags": [half]}],
            theme=half,
            example_tags=[half],
        )
    )
    assert row.prompt_id == row.theme == row.messages[0]["content"] == half
    assert row.rubric == (Criterion(half, 1, (half,)),)


def test_a_tag_is_found_by_its_kind():
    item = Criterion("x", 1, ("level:cluster", "axis:accuracy", "axis:other"))
    assert (item.tag("axis"), item.tag("cluster")) == ("accuracy", "")


class TestRefusals:
    @pytest.mark.parametrize(
        "changed, complaint",
        [
            (metadata(messages=[]), "messages is not a list"),
            (metadata(messages="hi"), "messages is not a list"),
            (metadata(messages=[{"role": "tool", "content": "x"}]), "needs a role"),
            (metadata(messages=[{"role": "user", "content": None}]), "text content"),
            (metadata(messages=[USER, ASSISTANT]), "last message is from the assistant"),
            (metadata(rubrics=None), "rubrics is not a list"),
            (metadata(rubrics=[]), "rubrics is not a list"),
            (metadata(rubrics=["Greets."]), "criterion 1: its text"),
            (criterion(points=-1), "no criterion has positive points"),
            (metadata(example_tags="theme:x"), "list of strings"),
            (metadata(example_tags=[1]), "list of strings"),
            (criterion(criterion=" \n"), "criterion 1: its text is empty"),
            (criterion(criterion="\u200b\u00a0\ufeff"), "criterion 1: its text is empty"),
            (metadata(messages=[USER | {"content": ""}]), "the last message is empty"),
            (metadata(messages=[USER, USER | {"content": "\u2800\n"}]), "last message is empty"),
            (criterion(tags="axis:x"), "criterion 1: tags"),
        ],
    )
    def test_name_file_line_and_prompt_id(self, tmp_path, changed, complaint):
        self.refused(tmp_path, changed, complaint)

    @pytest.mark.parametrize("points", [0, 0.0, None, "5", True, [5], 10**400, 1e-320])
    def test_of_points_that_could_not_be_scored(self, tmp_path, points):
        self.refused(tmp_path, criterion(points=points), "criterion 1: points must be a number")

    @pytest.mark.parametrize("points", ["NaN", "Infinity"])
    def test_of_points_that_json_does_not_know(self, tmp_path, points):
        self.refused(tmp_path, criterion(points=float(points)), "criterion 1: points must be")

    def test_of_a_lone_surrogate_which_no_tokenizer_reads(self, tmp_path):
        half = metadata(messages=[{"role": "user", "content": "\ud83d"}])
        self.refused(tmp_path, half, "a lone surrogate")

    @pytest.mark.parametrize("canary", ["NaN", "-Infinity"])
    def test_of_numbers_that_json_does_not_know(self, tmp_path, canary):
        self.refused(tmp_path, metadata(canary=float(canary)), "a number that is not finite")

    def refused(self, tmp_path, changed: dict, complaint: str) -> None:
        """The third line of a file, after an empty one and a good one."""
        path = tmp_path / "rows.jsonl"
        good, bad = json.dumps({"metadata": metadata()}), json.dumps({"metadata": changed})
        path.write_text(f"\n{good}\n{bad}\n")
        with pytest.raises(DataError) as error:
            read_rows(path)
        assert str(error.value).startswith(f"{path}:3, prompt_id p1")
        assert complaint in str(error.value)
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
    def test_name_a_line_that_is_no_row(self, tmp_path, line, complaint):
        path = tmp_path / "rows.jsonl"
        path.write_bytes(json.dumps({"metadata": metadata()}).encode() + b"\n" + line + b"\n")
        with pytest.raises(DataError, match=complaint) as error:
            read_rows(path)
        assert str(error.value).startswith(f"{path}:2")

    def test_name_missing_and_empty_files(self, tmp_path):
        with pytest.raises(DataError, match=r"none.jsonl: no such file"):
            read_rows(tmp_path / "none.jsonl")
        (tmp_path / "empty.jsonl").write_text("\n")
        with pytest.raises(DataError, match=r"empty.jsonl: holds no rows"):
            read_rows(tmp_path / "empty.jsonl")


class TestRowCache:
    @pytest.fixture
    def parsed(self, monkeypatch) -> list[str]:
        """The prompts that were parsed, one entry each time."""
        prompt_ids = []

        def count(item, where):
            prompt_ids.append(item["prompt_id"])
            return row_from_metadata(item, where)

        monkeypatch.setattr(parse, "row_from_metadata", count)
        return prompt_ids

    def test_a_prompt_is_parsed_once_for_all_its_answers(self, parsed):
        cache = RowCache()
        answers = [copy.deepcopy(metadata()) for _ in range(3)]
        rows = [cache.row(answer, "sample") for answer in answers]
        assert parsed == ["p1"]
        assert rows[0] is rows[1] is rows[2]
        assert rows[0] == row_from_metadata(metadata())

    def test_what_the_hooks_leave_in_the_metadata_changes_nothing(self, parsed):
        cache, sample = RowCache(), metadata()
        first = cache.row(sample, "sample")
        sample["grading"] = {"status": "graded"}
        assert cache.row(sample, "sample") is first
        assert parsed == ["p1"]

    @pytest.mark.parametrize(
        "changes",
        [
            {"rubrics": RUBRICS[:1]},
            {"messages": [USER, ASSISTANT, USER]},
            {"theme": "another"},
            {"example_tags": ["theme:another"]},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_the_same_prompt_id_of_another_data_set_is_not_mixed_up(self, changes):
        cache, other = RowCache(), metadata(**changes)
        for item in (metadata(), other, metadata(), other):
            assert cache.row(item, "sample") == row_from_metadata(item)

    def test_a_rubric_changed_in_place_is_another_one(self):
        cache, sample = RowCache(), copy.deepcopy(metadata())
        cache.row(sample, "sample")
        sample["rubrics"][0]["points"] = 7
        assert cache.row(sample, "sample").rubric[0].points == 7

    def test_a_bad_row_is_named_each_time(self):
        cache = RowCache()
        cache.row(metadata(), "sample 1")
        for number in (2, 3):
            with pytest.raises(DataError, match=f"^sample {number}, prompt_id p1: rubrics"):
                cache.row(metadata(rubrics=[]), f"sample {number}")
        with pytest.raises(DataError, match=r"^sample 4: prompt_id is missing"):
            cache.row({}, "sample 4")


class TestFiles:
    @given(any_text())
    def test_any_text_survives_line_separators_and_half_surrogates_included(
        self, tmp_path_factory, text
    ):
        path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
        separated = "\u2028\x85\x1c" + text
        write_jsonl(path, [{"text": text}, {"text": separated}])
        assert [item["text"] for _, item in read_jsonl(path)] == [text, separated]
        assert path.read_bytes().decode("utf-8").count("\n") == 2

    @pytest.mark.parametrize("cut", ['{"text": "ab', '{"text": "', ""])
    def test_a_last_line_that_a_kill_cut_is_left_out_even_inside_a_character(self, tmp_path, cut):
        path = tmp_path / "records.jsonl"
        half_a_character = "é".encode()[:1] if cut else b""
        path.write_bytes(b'{"n": 1}\n' + cut.encode() + half_a_character)
        assert list(read_jsonl(path, skip_partial=True)) == [(1, {"n": 1})]
        if cut:
            with pytest.raises(DataError, match=r"jsonl:2: broken JSON"):
                list(read_jsonl(path))

    @pytest.mark.parametrize("whole", [b"", b'{"n": 0}\n'])
    @pytest.mark.parametrize("torn", [b"", b"x", '{"text": "é'.encode()[:-1], b"x" * 70_000])
    def test_a_line_is_added_where_a_kill_cut_the_last_one(self, tmp_path, whole, torn):
        path = tmp_path / "records.jsonl"
        path.write_bytes(whole + torn)
        with path.open("a+b", buffering=0) as file:
            append_line(file, {"n": 1})
        assert path.read_bytes() == whole + b'{"n": 1}\n'

    def test_a_written_one_can_be_read_by_whoever_the_umask_allows(self, tmp_path):
        write_jsonl(tmp_path / "rows.jsonl", [{"n": 1}])
        (tmp_path / "other").write_text("")
        assert (tmp_path / "rows.jsonl").stat().st_mode == (tmp_path / "other").stat().st_mode

    def test_a_failed_write_leaves_the_old_one_and_nothing_else(self, tmp_path):
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

    def test_on_a_full_disk_a_line_is_added_whole_or_not_at_all(self):
        class Full(io.BytesIO):
            name = "full"

            def write(self, line):
                return super().write(line[:5])

        file = Full(b"{}\n")
        with pytest.raises(OSError, match="No space left"):
            append_line(file, {"n": 1})
        assert file.getvalue() == b"{}\n"
