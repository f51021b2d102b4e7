"""What the disk refuses is told with the name of the file."""

import pytest

from rubric_rl.errors import DataError
from rubric_rl.jsonl import read_jsonl, write_jsonl


def test_a_file_that_cannot_be_read_is_named():
    path = "/proc/self/mem"  # reading it fails for root too
    with pytest.raises(DataError, match=rf"^{path}: cannot be read \(.*\); check the path"):
        list(read_jsonl(path))


def test_a_full_disk_names_the_file_and_leaves_no_other(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"n": 1}])
    monkeypatch.setattr("rubric_rl.jsonl.os.fsync", full)
    with pytest.raises(OSError) as failure:
        write_jsonl(path, [{"n": 2}])
    assert failure.value.filename == str(path)
    assert [each.name for each in tmp_path.iterdir()] == ["rows.jsonl"]
    assert path.read_text() == '{"n": 1}\n'


def test_an_error_of_the_rows_is_passed_on_as_it_is(tmp_path):
    def items():
        yield {"n": 1}
        raise OSError(2, "No such file", "elsewhere")

    with pytest.raises(OSError, match="No such file: 'elsewhere'"):
        write_jsonl(tmp_path / "rows.jsonl", items())
    assert not list(tmp_path.iterdir())
