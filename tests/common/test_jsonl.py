"""Files of JSON lines as other programs leave them; what cannot be read is told by its name."""

import bz2
import gzip
import json
import lzma

import pytest
from doubles.texts import any_text
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.common.errors import DataError
from rubric_rl.common.jsonl import (
    marked_line,
    read_jsonl,
    read_jsonl_offsets,
    write_jsonl,
    write_text,
)

MARK = "\ufeff"  # a byte order mark
ROWS = [{"n": 1, "text": "a\u2028b\x85c"}, {"n": 2, "text": MARK}]
LINES = [json.dumps(row, ensure_ascii=False) for row in ROWS]


@pytest.mark.parametrize(
    "text",
    [
        "{}\n{}\n",
        "{}\n{}",
        "{}\r\n{}\r\n",
        "\n{}\n \t\n\r\n{}\n\n",
        MARK + "{}\n{}\n",
        MARK + "{}\r\n" + MARK + "{}\r\n",
        MARK + "\n" + MARK + MARK + " {}\n" + MARK + "{}\n" + MARK,
    ],
    ids=[
        "as written here",
        "no last line end",
        "line ends of Windows",
        "blank lines",
        "a byte order mark",
        "two files of Windows joined",
        "empty files with a mark among those joined",
    ],
)
def test_rows_are_read_as_they_are_meant(tmp_path, text):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text.format(*LINES).encode())
    assert [row for _, row in read_jsonl(path)] == ROWS


GAPS = st.lists(st.sampled_from([MARK, " ", "\t", "\r"]), max_size=3).map("".join)


@given(st.lists(st.tuples(GAPS, any_text(), st.sampled_from(["\n", "\r\n", "\n\n"]))))
def test_at_its_offset_a_value_is_read_again(tmp_path_factory, pieces):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = [gap + json.dumps(text) + line_end for gap, text, line_end in pieces]
    path.write_bytes("".join(lines).encode())
    found = list(read_jsonl_offsets(path))
    assert [value for _, _, value in found] == [text for _, text, _ in pieces]
    with path.open("rb") as file:
        for _, offset, value in found:
            file.seek(offset)
            assert json.loads(file.readline()) == value


OTHER_FILES = {
    "UTF-16": LINES[0].encode("utf-16"),
    "UTF-16 or": (LINES[0] + "\n").encode("utf-16-le"),
    "or UTF-32": LINES[0].encode("utf-32-be"),
    "gunzip": gzip.compress(LINES[0].encode()),
    "unxz": lzma.compress(LINES[0].encode()),
    "bunzip2": bz2.compress(LINES[0].encode()),
    "Parquet": b"PAR1\x15\x04",
}


@pytest.mark.parametrize("hint", OTHER_FILES)
def test_a_file_that_is_no_text_in_utf_8_is_one_error(tmp_path, hint):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(OTHER_FILES[hint])
    with pytest.raises(DataError, match=rf"^{path}: is .*{hint}") as error:
        list(read_jsonl(path, refused=[]))
    assert "\n" not in str(error.value)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(DataError, match=rf"^{tmp_path}: is a folder; name a file in it$"):
        list(read_jsonl(tmp_path))


def test_zeros_that_a_crash_left_are_a_broken_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match=rf"^{path}:1: broken JSON"):
        list(read_jsonl(path))


def test_the_first_byte_order_mark_is_found(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n" + MARK + "{}\n", encoding="utf-8")
    assert marked_line(path) == 2
    path.write_text(f'"{MARK}"\n', encoding="utf-8")
    assert marked_line(path) is None


def test_a_file_that_cannot_be_read_is_named():
    path = "/proc/self/mem"  # reading it fails for root too
    with pytest.raises(DataError, match=rf"^{path}: cannot be read \(.*\); check path and rights"):
        list(read_jsonl(path))


@pytest.mark.parametrize(
    "write",
    [lambda path, n: write_jsonl(path, [{"n": n}]), lambda path, n: write_text(path, f"{n}")],
)
def test_a_full_disk_names_the_file_and_leaves_the_old_one_alone(tmp_path, monkeypatch, write):
    def full(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "rows.jsonl"
    write(path, 1)
    before = path.read_bytes()
    monkeypatch.setattr("rubric_rl.common.jsonl.os.fsync", full)
    with pytest.raises(OSError) as failure:
        write(path, 2)
    assert failure.value.filename == str(path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_an_error_of_the_rows_is_passed_on_as_it_is(tmp_path):
    def items():
        yield {"n": 1}
        raise OSError(2, "No such file", "elsewhere")

    with pytest.raises(OSError, match="No such file: 'elsewhere'"):
        write_jsonl(tmp_path / "rows.jsonl", items())
    assert not list(tmp_path.iterdir())
