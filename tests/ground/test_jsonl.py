"""What the disk refuses is told with the name of the file."""

import pytest

from rubric_rl.errors import DataError
from rubric_rl.jsonl import read_jsonl, write_jsonl, write_text


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
    monkeypatch.setattr("rubric_rl.jsonl.os.fsync", full)
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
