"""What README shows is so: the tree, the example row and record, the commands."""

import json
import re
import subprocess

import pytest

from rubric_rl import ROOT
from rubric_rl.data.parse import record_from_json, row_from_metadata
from rubric_rl.data.schema import Record
from rubric_rl.grading.score import score

README = (ROOT / "README.md").read_text(encoding="utf-8")
ROW, RECORD = (json.loads(text) for text in re.findall(r"```json\n(.*?)```", README, re.DOTALL))
TREE = re.findall(r"```\n(LICENSE .*?)```", README, re.DOTALL)[0]


def tracked(*patterns: str) -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_example_row_is_one():
    row = row_from_metadata(ROW["metadata"])
    assert row.to_json() == ROW


def test_the_example_record_is_one_of_an_answer_to_it():
    record = record_from_json(RECORD)
    assert record.to_json() == RECORD
    assert (record.prompt_id, list(record.messages)) == (
        ROW["metadata"]["prompt_id"],
        ROW["metadata"]["messages"],
    )
    assert record.score == score(record.rubric, record.verdicts)


def test_the_example_record_has_every_field():
    fields = set(Record.of(row_from_metadata(ROW["metadata"]), "no_answer", None).to_json())
    assert set(RECORD) == fields


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
@pytest.mark.parametrize("path", tracked("rubric_rl/**/*.py", "rubric_rl/*.py", "*.sh", "configs"))
def test_the_tree_names_every_file(path):
    name = path.rsplit("/", 1)[-1]
    whole_folders = ("rubric_rl/commands/", "rubric_rl/cpu/compat/", "scripts/", "tests/")
    if name == "__init__.py" or name == "__main__.py" or path.startswith(whole_folders):
        return
    assert name in TREE.split() or f"{name}:" in TREE or f" {name} " in TREE, path


@pytest.mark.parametrize("name", sorted(set(re.findall(r"[\w.]+\.(?:py|sh|yaml)\b", TREE))))
def test_every_file_of_the_tree_is_there(name):
    assert [path for path in tracked() if path.rsplit("/", 1)[-1] == name]


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m (rubric_rl[\w.]+)", README))))
def test_every_command_is_there(module):
    path = ROOT / module.replace(".", "/")
    command = ROOT / "rubric_rl" / "commands" / f"{module.removeprefix('rubric_rl.')}.py"
    there = (path.with_suffix(".py"), path / "__main__.py", command)
    assert any(file.is_file() for file in there)
