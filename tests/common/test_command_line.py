"""Exit statuses: a user's mistake is one line and 2, a defect of ours shows where it happened."""

import os
import signal
import subprocess
import sys

import pytest

from rubric_rl import ROOT
from rubric_rl.common.command_line import CommandParser, count, exit_status
from rubric_rl.common.errors import DataError, UserError


def fails(error: BaseException):
    """A command that raises the error."""

    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize("status", [0, 1, 2])
def test_a_commands_own_status_is_kept(status, capsys):
    assert exit_status(lambda: status) == status
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "error",
    [UserError("rows.jsonl: no such file; check the path"), DataError("rows.jsonl:3: no rubric")],
)
def test_a_users_mistake_is_one_line_and_2(error, capsys):
    assert exit_status(fails(error)) == 2
    assert capsys.readouterr() == ("", f"error: {error}\n")


def test_a_file_that_is_not_there_is_one_line_and_2(tmp_path, capsys):
    path = tmp_path / "none"
    assert exit_status(lambda: len(path.read_text())) == 2
    expected = f"error: {path}: No such file or directory; check path, rights and space\n"
    assert capsys.readouterr() == ("", expected)


def test_a_full_disk_is_one_line_and_2(capsys):
    assert exit_status(fails(OSError(28, "No space left on device", "records.jsonl"))) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: records.jsonl: No space left on device")


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "the following arguments are required: --out"),
        (["--out", "x", "--sed", "1"], "unrecognized arguments: --sed"),
        (["--out", "x", "--seed", "one"], "argument --seed: invalid int value: 'one'"),
    ],
)
def test_a_mistake_in_the_flags_is_one_line_and_2(words, said, capsys):
    parser = CommandParser("python -m x", "Does x.")
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int)
    assert exit_status(lambda: len(vars(parser.parse_args(words)))) == 2
    assert capsys.readouterr() == ("", f"error: {said}; see python -m x --help\n")


@pytest.mark.parametrize(
    "defect",
    [KeyError("x"), ValueError("x"), AssertionError(), OSError("of no file")],
    ids=repr,
)
def test_a_defect_is_raised(defect, capsys):
    with pytest.raises(type(defect)) as raised:
        exit_status(fails(defect))
    assert raised.value is defect
    assert capsys.readouterr() == ("", "")


def test_a_defect_of_a_command_is_1_with_its_place():
    program = (
        "import sys\n"
        "from rubric_rl.common.command_line import exit_status\n"
        "def command():\n"
        "    return {}['x']\n"
        "sys.exit(exit_status(command))\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "in command" in done.stderr


@pytest.mark.parametrize("text", ["-1", "1.5", "", "one", "²", "9" * 19])
def test_a_number_of_things_is_whole_and_not_negative(text):
    parser = CommandParser("command", "")
    parser.add_argument("--limit", type=count)
    with pytest.raises(UserError, match=r"--limit: .* is no whole number of 0 or more; see"):
        parser.parse_args([f"--limit={text}"])


def test_a_number_of_things_is_read():
    assert (count("0"), count("12")) == (0, 12)


@pytest.mark.parametrize("words", [["--grader-key", "sk-1"], ["--grader-token=sk-1"]])
def test_a_mistyped_flag_is_repeated_without_its_value(words):
    with pytest.raises(UserError, match="unrecognized arguments: --grader-") as refusal:
        CommandParser("command", "").parse_args(words)
    assert "sk-1" not in str(refusal.value)


class TestDuringTheImports:
    """Those of a command take seconds; `aiohttp` stands for any of them."""

    def started(self, tmp_path, error: str, *words: str) -> subprocess.CompletedProcess:
        (tmp_path / "aiohttp.py").write_text(f"raise {error}")
        env = os.environ | {"PYTHONPATH": str(tmp_path)}
        program = [sys.executable, *words]
        return subprocess.run(program, cwd=ROOT, env=env, capture_output=True, text=True)

    @pytest.mark.parametrize("command", ["rubric_rl.evaluate", "rubric_rl.cpu.train"])
    def test_ctrl_c_is_one_line(self, command, tmp_path):
        done = self.started(tmp_path, "KeyboardInterrupt", "-m", command)
        assert done.stderr == "error: interrupted; run the same command again\n"
        assert done.returncode == -signal.SIGINT

    def test_any_other_error_shows_where_it_happened(self, tmp_path):
        done = self.started(tmp_path, "ZeroDivisionError", "-m", "rubric_rl.evaluate")
        assert done.stderr.startswith("Traceback") and "aiohttp.py" in done.stderr

    def test_a_program_that_uses_the_library_is_left_alone(self, tmp_path):
        done = self.started(tmp_path, "KeyboardInterrupt", "-c", "import rubric_rl, aiohttp")
        assert done.stderr.startswith("Traceback")
