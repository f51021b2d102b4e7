"""How data_preprocess.py ends: what a user can mend is one line, and no file is written over."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from doubles.raw_files import raw, run, write

import data_preprocess
from rubric_rl.data.source import Source


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
