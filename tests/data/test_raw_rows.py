"""Where raw rows stand: files of every kind, whole and damaged, folders, published splits, Hub."""

import gzip
import json
import re
import sys
import tarfile
from pathlib import Path

import pytest

import data_preprocess
from rubric_rl.common.errors import DataError, UserError
from rubric_rl.data import raw_rows as module
from rubric_rl.data.hub import hub_name
from rubric_rl.data.raw_rows import raw_rows
from rubric_rl.data.row_file import read_rows
from rubric_rl.data.source import locate


def rows_of(*numbers: int) -> list[dict]:
    return [{"prompt": f"Question {n}\u2028?", "rubric": [f"names {n}"]} for n in numbers]


def as_lines(rows: list) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def read(path: Path | str, split: str = "") -> list:
    refused: list[str] = []
    found = [item for _, item in raw_rows(path, refused, split)]
    assert not refused
    return found


def write_parquet(path: Path, rows: list[dict], schema=None) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path)
    return path


ROWS = rows_of(*range(5))
FORMS = {
    "rows.jsonl": as_lines(ROWS),
    "rows.json": json.dumps(ROWS).encode(),
    "indented.json": json.dumps(ROWS, indent=4).encode(),
    "marked.json": b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
    "lines.json": as_lines(ROWS),
    "array.jsonl": json.dumps(ROWS).encode(),
    "items.json": json.dumps({"name": "x", "items": ROWS}, indent=1).encode(),
    "rows.jsonl.gz": gzip.compress(as_lines(ROWS)),
    "rows.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "no_ending": gzip.compress(as_lines(ROWS)),
}


class TestFiles:
    @pytest.mark.parametrize("name", FORMS)
    def test_every_form_holds_the_same_rows(self, tmp_path, name):
        (path := tmp_path / name).write_bytes(FORMS[name])
        found = read(path)
        assert [{key: row[key] for key in ("prompt", "rubric")} for row in found] == ROWS

    def test_parquet_holds_them_too(self, tmp_path):
        assert read(write_parquet(tmp_path / "rows.parquet", ROWS)) == ROWS

    def test_a_time_that_python_does_not_know_is_one_line(self, tmp_path):
        pyarrow = pytest.importorskip("pyarrow")
        schema = pyarrow.schema([("at", pyarrow.timestamp("s"))])
        path = write_parquet(tmp_path / "rows.parquet", [{"at": 10**15}], schema)
        with pytest.raises(DataError, match=r"rows.parquet: cannot be read \(.*; check path"):
            read(path)

    @pytest.mark.parametrize("chunk", [1, 7, 64])
    def test_an_array_may_break_anywhere_between_two_reads(self, tmp_path, monkeypatch, chunk):
        monkeypatch.setattr(module, "CHUNK", chunk)
        path = tmp_path / "rows.json"
        rows = [{"a": ["]", "}", 'x"y', -12.5e3, None]}, {"b": {}}, {}]
        path.write_text(json.dumps(rows, indent=2) + "\n\n")
        assert list(module._array_rows(path, packed=False)) == rows

    def test_an_object_shares_its_fields_with_its_items(self, tmp_path):
        path = tmp_path / "data.json"
        rubric = [{"requirement": "a", "weight": 1}]
        items = [{"submission": "x"}, {"prompt": "own"}, {"prompt": None, "rubric": None}]
        path.write_text(json.dumps({"prompt": "shared", "rubric": rubric, "items": items}))
        assert [row["prompt"] for row in read(path)] == ["shared", "own", "shared"]
        assert all(row["rubric"] == rubric for row in read(path))

    def test_an_object_keeps_its_id_for_itself(self, tmp_path):
        path = tmp_path / "data.json"
        path.write_text(json.dumps({"id": "the file", "items": ROWS}))
        assert read(path) == ROWS

    def test_places_are_line_and_row_numbers(self, tmp_path):
        lines, array = tmp_path / "a.jsonl", tmp_path / "b.json"
        lines.write_bytes(b"\n" + as_lines(ROWS[:1]))
        array.write_text(json.dumps(ROWS[:2]))
        assert [where for where, _ in raw_rows(lines, [])] == [f"{lines}:2"]
        assert [where for where, _ in raw_rows(array, [])] == [f"{array}:1", f"{array}:2"]


def in_tar(content):
    entry = tarfile.TarInfo("rows.jsonl")
    entry.size = len(content)
    return entry.tobuf() + content


WHOLE = json.dumps(ROWS).encode()
DAMAGED = {
    "array cut": ("x.json", WHOLE[:-40], r"broken JSON \(row 5: "),
    "array without its end": ("x.json", WHOLE[:-1], r"broken JSON \(row 5: no comma follows\)"),
    "no comma": ("x.json", WHOLE.replace(b"}, {", b"} {", 1), r"broken JSON \(row 1: no comma"),
    "words behind": ("x.json", WHOLE + b"[1]", r"words after the array of 5 rows"),
    "object cut": ("x.json", b'{"items": [\n{"prompt": "a"', "broken JSON"),
    "gzip cut": ("x.jsonl.gz", gzip.compress(as_lines(ROWS * 50))[:-9], "cannot be read"),
    "gzip broken": ("x.jsonl.gz", b"\x1f\x8b" + b"\0" * 40, "cannot be read"),
    "gzip damaged": (
        "x.jsonl.gz",
        gzip.compress(as_lines(ROWS))[:40] + b"\xff" * 40,
        "cannot be read",
    ),
    "gzip damaged within its data": (
        "x.jsonl.gz",
        gzip.compress(as_lines(ROWS))[:60] + b"\xff\xff\xff" + gzip.compress(as_lines(ROWS))[63:],
        "cannot be read",
    ),
    "a pointer in place of the file": (
        "x.parquet",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n",
        "is a pointer of Git LFS, .*; fetch the file with git lfs pull",
    ),
    "parquet cut": ("x.parquet", b"PAR1" + b"\0" * 50, "cannot be read|needs the package pyarrow"),
    "zstd": ("x.jsonl", b"\x28\xb5\x2f\xfd" + b"\0" * 9, "compressed by zstd"),
    "UTF-16": ("x.json", json.dumps(ROWS).encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": ("x.json", json.dumps(ROWS).encode("utf-16-le"), "UTF-16"),
    "a pointer in place of JSON": (
        "x.json",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n",
        "is a pointer of Git LFS",
    ),
    "tar": ("x.tar", in_tar(as_lines(ROWS)), "is a tar archive, no JSON; unpack it with tar"),
    "tar in gzip": ("x.tar.gz", gzip.compress(in_tar(as_lines(ROWS))), "is a tar archive"),
    "a table": ("x.csv", b"prompt,rubric\nWhy?,Says why\n", "is a table, .*; save it as JSONL"),
    "Latin-1 lines": (
        "x.jsonl",
        '{"prompt": "caf\xe9"}\n'.encode("latin-1"),
        r"none of its 1 rows can be used; the first: .*:1: broken JSON \(no UTF-8 at byte 16\)",
    ),
    "Latin-1": ("x.json", '["caf\xe9"]'.encode("latin-1"), "broken JSON|cannot be read"),
    "empty": ("x.json", b"", "holds no rows"),
    "empty array": ("x.json", b"[]", "holds no rows"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_one_line_and_nothing_is_written(tmp_path, capsys, damage):
    name, content, complaint = DAMAGED[damage]
    path = tmp_path / name
    path.write_bytes(content)
    out = tmp_path / "out"
    assert data_preprocess.main([f"--source={path}", f"--out={out}", "--hold-out=1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}") and said.count("\n") == 1
    assert re.search(complaint, said)
    assert "; " in said  # the next step
    assert not out.exists()


def test_a_broken_line_costs_only_itself(tmp_path, capsys):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(as_lines(ROWS) + b'{"prompt": \n' + as_lines(rows_of(9))))
    words = [f"--source={path}", f"--out={tmp_path / 'out'}", "--hold-out=1", "--name=x"]
    assert data_preprocess.main(words) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(f"refused: {path}:6: broken JSON")
    assert "training: 5 prompts" in captured.out


class TestFolders:
    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        folder = tmp_path / "set"
        (folder / "data").mkdir(parents=True)
        (folder / "README.md").write_text("a card")
        (folder / "data" / "train-00000-of-00002.jsonl").write_bytes(as_lines(ROWS[:2]))
        (folder / "data" / "train-00001-of-00002.jsonl.gz").write_bytes(
            gzip.compress(as_lines(ROWS[2:4]))
        )
        (folder / "data" / "test-00000-of-00001.json").write_text(json.dumps(ROWS[4:]))
        return folder

    def test_a_split_is_all_of_its_files(self, folder):
        assert read(folder, "train") == ROWS[:4]
        assert read(folder, "test") == ROWS[4:]

    def test_splits_may_be_folders(self, tmp_path):
        for name in ("train", "test"):
            (tmp_path / "ml" / name).mkdir(parents=True)
            (tmp_path / "ml" / name / "0.jsonl").write_bytes(as_lines(ROWS[:1]))
        assert read(tmp_path, "train") == ROWS[:1]

    def test_a_published_split_is_held_out(self, folder, tmp_path, capsys):
        out = tmp_path / "out"
        words = [f"--source={folder}", "--train=train", "--hold-out-split=test", "--name=x"]
        assert data_preprocess.main([*words, f"--out={out}"]) == 0
        asked = [row.messages[0]["content"] for row in read_rows(out / "x_easy.jsonl")]
        assert asked == [row["prompt"] for row in ROWS[:4]]
        (held_out,) = read_rows(out / "x_hard.jsonl")
        assert held_out.messages[0]["content"] == ROWS[4]["prompt"]
        said = capsys.readouterr().out
        assert said.startswith("set: plain (recognised by its fields: a prompt and a rubric)\n")

    def test_a_prompt_of_both_splits_is_not_trained_on(self, folder, tmp_path, capsys):
        (folder / "data" / "train-2.jsonl").write_bytes(
            as_lines([ROWS[4], ROWS[4] | {"id": "other", "prompt": ROWS[4]["prompt"].upper()}])
        )
        out = tmp_path / "out"
        words = [f"--source={folder}", "--hold-out-split=test", "--name=x", f"--out={out}"]
        assert data_preprocess.main(words) == 0
        assert len(read_rows(out / "x_easy.jsonl")) == 4
        captured = capsys.readouterr()
        assert "the same conversation as an earlier row" in captured.err
        assert "left out 1 training prompts whose conversation is held out" in captured.out

    @pytest.mark.parametrize(
        "held_out",
        [
            ROWS[4] | {"rubric": [""]},
            {"prompt": ROWS[0]["prompt"], "rubric": [{"criterion": "bad", "points": -1}]},
            # Of which no reader makes a row:
            {"id": "row0", "prompt": ROWS[0]["prompt"]},
            {"id": "other", "question": ROWS[0]["prompt"]},
            {"messages": json.dumps([{"from": "human", "value": ROWS[0]["prompt"]}])},
        ],
    )
    def test_a_refused_row_of_the_held_out_split_is_not_trained_on(
        self, folder, tmp_path, held_out
    ):
        train = [ROWS[0] | {"id": "row0"}, ROWS[1], ROWS[4]]
        if held_out.get("id") != "row0":
            train[0] = ROWS[0] | {"prompt": ROWS[0]["prompt"].upper()}
        (folder / "data" / "train-00000-of-00002.jsonl").write_bytes(as_lines(train))
        (folder / "data" / "test-00000-of-00001.json").write_text(json.dumps([ROWS[3], held_out]))
        out = tmp_path / "out"
        words = [f"--source={folder}", "--hold-out-split=test", "--name=x", f"--out={out}"]
        assert data_preprocess.main(words) == 0
        trained_on = {row.messages[0]["content"].upper() for row in read_rows(out / "x_easy.jsonl")}
        withheld = ROWS[4] if held_out.get("rubric") == [""] else ROWS[0]
        assert trained_on and withheld["prompt"].upper() not in trained_on

    def test_a_held_out_line_that_nobody_can_read_ends_it(self, folder, tmp_path, capsys):
        test = folder / "data" / "test-00000-of-00001.json"
        test.rename(test.with_suffix(".jsonl"))
        test.with_suffix(".jsonl").write_bytes(as_lines(ROWS[4:]) + b"{broken\n")
        words = [f"--source={folder}", "--hold-out-split=test", f"--out={tmp_path / 'out'}"]
        assert data_preprocess.main(words) == 2
        said = capsys.readouterr().err
        assert ".jsonl:2: broken JSON" in said
        assert said.endswith("; every held-out row must be readable, else it could be trained on\n")

    @pytest.mark.parametrize(
        "names",
        [
            ("law_train.jsonl", "law_test.jsonl"),
            ("Train.jsonl", "Test.jsonl"),
            ("v2_train/easy.jsonl", "v2_test/hard.jsonl"),
            ("train.jsonl", "hard.jsonl"),
        ],
    )
    def test_splits_are_known_by_what_begins_or_ends_a_name(self, tmp_path, names):
        for name, rows in zip(names, (ROWS[:2], ROWS[2:]), strict=True):
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(as_lines(rows))
        with pytest.raises(DataError, match="is published in splits"):
            locate(str(tmp_path / "set"), None, tmp_path)
        other = "hard" if names[1] == "hard.jsonl" else "test"
        assert read(tmp_path / "set", "train") == ROWS[:2]
        assert read(tmp_path / "set", other) == ROWS[2:]

    def test_a_path_that_names_two_splits_is_refused(self, tmp_path):
        path = tmp_path / "set" / "train_v2" / "test.jsonl"
        path.parent.mkdir(parents=True)
        path.write_bytes(as_lines(ROWS))
        with pytest.raises(DataError, match=r"named by several splits \(test, train\); rename"):
            read(tmp_path / "set", "test")
        assert read(path.parent, "test") == ROWS

    def test_a_folder_of_save_to_disk_says_how_to_write_it_anew(self, folder):
        saved = folder / "saved"
        saved.mkdir()
        (saved / "dataset_info.json").write_text("{}")
        (saved / "state.json").write_text("{}")
        (saved / "data-00000-of-00001.arrow").write_bytes(b"")
        with pytest.raises(DataError, match=r"was written by save_to_disk; .* to_parquet"):
            locate(str(saved), None, folder)

    def test_published_splits_are_never_mixed_unasked(self, folder):
        with pytest.raises(DataError, match=r"is published in splits \(test, train\); say which"):
            locate(str(folder), None, folder)

    @pytest.mark.parametrize("held_out", ["test.jsonl", "x_hard.jsonl", "val/x.jsonl"])
    def test_a_held_out_split_is_not_mixed_with_files_of_none(self, tmp_path, held_out):
        (tmp_path / "rows.jsonl").write_bytes(as_lines(ROWS[:2]))
        path = tmp_path / held_out
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(as_lines(ROWS[2:]))
        with pytest.raises(DataError, match=r"is published in splits .* or name one file"):
            read(tmp_path)
        assert read(tmp_path, "rows") == ROWS[:2]
        assert len(read(path.rename(tmp_path / "train.jsonl").parent)) == len(ROWS)

    def test_an_unknown_split_names_those_that_are_there(self, folder):
        with pytest.raises(DataError, match=r"no files of the split val; it has test, train"):
            read(folder, "val")

    def test_no_file_of_a_folder_is_written_over(self, folder, tmp_path, capsys):
        flat = tmp_path / "flat"
        flat.mkdir()
        (flat / "x_easy.jsonl").write_bytes(as_lines(ROWS))
        for source in (flat, f"hf:{flat}"):
            words = [f"--source={source}", f"--out={flat}", "--name=x", "--hold-out=1"]
            assert data_preprocess.main(words) == 2
            assert "is read and would be written over" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, complaint",
    [
        (["--train=train"], "which split is held out"),
        (["--hold-out-split=train"], "is trained on"),
        (["--hold-out-split=test", "--hard=x"], "leave out one of both"),
        (["--hold-out-split=test", "--hold-out=3"], "leave out one"),
        (["--hold-out-split=test"], "is published in files"),
        (["--source=hf:a/b@train", "--hold-out-split=test"], "names the split train too"),
        (["--source=hf:a/b/c/d", "--hold-out=1"], "is no name of a data set"),
        (["--source="], "names nothing"),
        (["--format=rar", "--converter=x.y"], "leave out the other"),
        (["--format=nope"], "is not known"),
    ],
)
def test_flags_that_contradict_each_other_are_one_line(flags, complaint, capsys):
    assert data_preprocess.main(flags) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1


class TestHub:
    @pytest.mark.parametrize(
        "source, found",
        [
            ("hf:own/set", ("own/set", None, "")),
            ("hf:own/set@test", ("own/set", None, "test")),
            ("hf:own/set/ml", ("own/set", "ml", "")),
            ("hf:own/set/ml@train[:9]", ("own/set", "ml", "train[:9]")),
            ("hf:set", ("set", None, "")),
        ],
    )
    def test_a_name_holds_configuration_and_split(self, source, found):
        assert hub_name(source) == found

    @pytest.fixture
    def local_set(self, tmp_path) -> Path:
        """A data set as the Hub stores one: a card that names configurations and their files."""
        pytest.importorskip("datasets")
        folder = tmp_path / "set"
        for config in ("ml", "arxiv"):
            for split, rows in (("train", ROWS[:4]), ("test", ROWS[4:])):
                write_parquet(folder / config / split / "0.parquet", rows)
        configs = [
            f"- config_name: {config}\n  data_files:\n"
            f"  - split: train\n    path: {config}/train/*.parquet\n"
            f"  - split: test\n    path: {config}/test/*.parquet\n"
            for config in ("ml", "arxiv")
        ]
        card = "---\nconfigs:\n" + "".join(configs) + "---\n"
        (folder / "README.md").write_text(card)
        return folder

    def test_a_configuration_and_its_published_split(self, local_set, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
        assert read(f"hf:{local_set}/ml@test") == ROWS[4:]
        out = tmp_path / "out"
        words = [f"--source=hf:{local_set}/arxiv", "--hold-out-split=test", f"--out={out}"]
        assert data_preprocess.main([*words, "--name=x"]) == 0
        assert len(read_rows(out / "x_easy.jsonl")) == 4
        assert len(read_rows(out / "x_hard.jsonl")) == 1

    def test_a_missing_configuration_or_split_says_how_to_name_one(self, local_set):
        with pytest.raises(DataError, match="name a configuration as hf:OWNER/NAME/CONFIG"):
            read(f"hf:{local_set}")
        with pytest.raises(DataError, match="name a split as hf:OWNER/NAME@SPLIT"):
            read(f"hf:{local_set}/ml@dev")

    def test_without_a_network_the_way_out_is_one_line(self, monkeypatch):
        datasets = pytest.importorskip("datasets")

        def offline(*_, **__):
            raise ConnectionError("Couldn't reach the Hub\n(offline)")

        monkeypatch.setattr(datasets, "load_dataset", offline)
        with pytest.raises(DataError) as failure:
            read("hf:own/set")
        said = str(failure.value)
        assert said.startswith("hf:own/set: Couldn't reach the Hub (offline); download its files")
        assert "\n" not in said

    def test_files_of_several_shapes_are_an_error_that_says_so(self, tmp_path, monkeypatch):
        pytest.importorskip("datasets")
        monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
        for name, item in (("a", {"prompt": "Why?", "n": 1}), ("b", {"query": {"text": "Why?"}})):
            (tmp_path / f"{name}.jsonl").write_text(json.dumps(item) + "\n")
        with pytest.raises(DataError, match=r"occurred while generating the dataset.*\(.*query"):
            read(f"hf:{tmp_path}")

    def test_without_the_package_it_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(UserError, match="pip install datasets"):
            read("hf:own/set")


class TestRecognition:
    def split(self, tmp_path, rows: list, *flags: str) -> int:
        path = tmp_path / "rows.jsonl"
        path.write_bytes(as_lines(rows))
        words = [f"--source={path}", f"--out={tmp_path / 'out'}", "--hold-out=1", "--name=x"]
        return data_preprocess.main([*words, *flags])

    def test_the_report_names_set_signs_licence_and_canary(self, tmp_path, capsys):
        rows = [
            {
                "id": f"p{number}",
                "conversation": {"messages": [{"role": "user", "content": f"ask {number}"}]},
                "rubric_items": [{"criterion_text": "good", "points": 2}],
                "canary_string": "canary 9",
            }
            for number in range(3)
        ]
        assert self.split(tmp_path, rows) == 0
        said = capsys.readouterr().out
        assert "set: healthbench_professional (recognised by its fields: conversation, " in said
        for line in ("signs: negative points are faults", "licence: ", "canary: canary 9\n"):
            assert f"\n  {line}" in said

    def test_a_damaged_first_row_decides_nothing(self, tmp_path, capsys):
        rows = [{"question": "?", "rubric": [{"description": "a", "weight": 1}]}, *rows_of(1, 2, 3)]
        assert self.split(tmp_path, rows) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith("set: plain (recognised")

    def test_rows_of_no_known_set_are_told_what_to_do(self, tmp_path, capsys):
        assert self.split(tmp_path, [{"x": 1}, {"x": 2}]) == 2
        said = capsys.readouterr().err
        assert "rows.jsonl:1: prompt is missing (looked for prompt, messages, question, " in said
        assert "name another --format or a --converter" in said

    def test_a_row_that_another_reader_reads_otherwise_is_refused_amid_plain_ones(
        self, tmp_path, capsys
    ):
        avoided = {"description": "Pitfall Criteria: Avoids myths.", "weight": -1}
        good = {"description": "Names it.", "weight": 5}
        checklist = "1) Is it a haiku? (importance: 90)\n2) Is it cold? (importance: 20)"
        others = [
            {"question": "Why?", "rubric": [good, avoided]},
            {"prompt": "Write a haiku.", "requirements": checklist},
            {"instruction": "Why now?", "rubric": "- It is clear."},  # reads the same
        ]
        assert self.split(tmp_path, [*rows_of(*range(9)), *others]) == 0
        captured = capsys.readouterr()
        said = captured.err.splitlines()
        assert [line.partition("rows.jsonl:")[2] for line in said] == [
            f"{number}: is a row of {name} in a file of plain ones; name the file's --format, "
            "or split it (read as plain)"
            for number, name in ((10, "rar"), (11, "wildchecklists"))
        ]
        assert captured.out.startswith("set: plain (recognised")
        assert self.split(tmp_path, [*rows_of(*range(9)), *others], "--format=plain") == 0
        (said,) = capsys.readouterr().err.splitlines()
        assert "rows.jsonl:11: a criterion that is a text says its points, (importance" in said

    def test_a_named_format_is_not_said_to_be_recognised(self, tmp_path, capsys):
        assert self.split(tmp_path, rows_of(1, 2, 3), "--format=plain") == 0
        assert capsys.readouterr().out.startswith("set: plain (--format)\n")

    def test_what_a_reader_changed_is_counted(self, tmp_path, capsys):
        assert self.split(tmp_path, rows_of(1, 2, 3)) == 0
        assert "\n3 criteria without points, which count 1 each\n" in capsys.readouterr().out

    def test_written_rows_can_be_split_anew(self, tmp_path, capsys):
        assert self.split(tmp_path, rows_of(*range(9))) == 0
        first = read_rows(tmp_path / "out" / "x_easy.jsonl")
        words = [f"--source={tmp_path / 'out' / 'x_easy.jsonl'}", f"--out={tmp_path / 'again'}"]
        assert data_preprocess.main([*words, "--hold-out=2", "--name=x"]) == 0
        again = read_rows(tmp_path / "again" / "x_easy.jsonl")
        held_out = read_rows(tmp_path / "again" / "x_hard.jsonl")
        assert {row.prompt_id for row in first} == {row.prompt_id for row in [*again, *held_out]}
