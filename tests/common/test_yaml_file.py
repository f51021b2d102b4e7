"""YAML files: what cannot be read is one line that begins with who wanted it."""

import pytest

from rubric_rl.common.errors import UserError
from rubric_rl.common.yaml_file import OmegaConfLoader, read_yaml

# Nine times nine times ..., in as many lines.
FLOOD = "a0: &a0 [{x: 1}]\n" + "".join(
    f"a{depth}: &a{depth} [{', '.join([f'*a{depth - 1}'] * 9)}]\n" for depth in range(1, 9)
)


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b"a: [", "broken YAML"),
        (b"a: \xff", "broken YAML"),
        (b"a: 2026-13-45", "broken YAML: month must be in"),
        (b"[" * 10_000, "broken YAML"),
        (b"a: \x00", "broken YAML"),
        (
            b"a: 1\nb: {c: 2, d: 3, 'c': 4}",
            "broken YAML: the key c stands there twice .line 2,",
        ),
        (b"a: &a {b: *a}", "broken YAML: an alias stands inside of what it stands for"),
        (b"a: &a\n  - [1, *a]", "broken YAML: an alias stands inside of what it stands for"),
        (FLOOD.encode(), "broken YAML: with its aliases it stands for more than 100,000 values"),
        (FLOOD.replace("[", "{<<: [").replace("]", "]}").encode(), "broken YAML: with its aliases"),
    ],
)
def test_what_is_no_yaml_is_one_line(tmp_path, content, complaint):
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^--flag file: {complaint}") as refusal:
        read_yaml(path, "--flag file")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("line", ['key: "sk-secret', "key: sk-secret: x", "key: @sk-secret"])
def test_a_broken_line_is_told_by_its_place_and_not_repeated(tmp_path, line):
    """A key may stand there."""
    path = tmp_path / "file.yaml"
    path.write_text(f"a: 1\n{line}\n")
    with pytest.raises(UserError, match=r" \(line [23], column [0-9]+\)$") as refusal:
        read_yaml(path, "--flag file")
    assert "sk-secret" not in str(refusal.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"^--flag: cannot be read .No such file"):
        read_yaml(tmp_path / "none.yaml", "--flag")


def test_an_empty_file_holds_nothing(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_bytes(b"\xef\xbb\xbf")
    assert read_yaml(path, "file") is None


def test_an_alias_beside_what_it_stands_for_is_read(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("a: &a {b: 1, c: 2}\nd: *a\ne: {<<: *a, b: 3}")
    first = {"b": 1, "c": 2}
    assert read_yaml(path, "file") == {"a": first, "d": first, "e": {"b": 3, "c": 2}}


def test_numbers_are_those_of_each_reader(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("[1e-1, 1e3, 2.5E+2, 1, 1e, x1e3]")
    assert read_yaml(path, "file") == ["1e-1", "1e3", 250.0, 1, "1e", "x1e3"]
    assert read_yaml(path, "file", OmegaConfLoader) == [0.1, 1000.0, 250.0, 1, "1e", "x1e3"]
