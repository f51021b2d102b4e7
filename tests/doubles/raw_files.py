"""Raw rows in HealthBench's form as files, and data_preprocess.py run on them."""

import json
from pathlib import Path

import data_preprocess
from rubric_rl.data.row_file import read_rows
from rubric_rl.data.source import Source


def raw(number: int, **more) -> dict:
    rubrics = [
        {"criterion": f"names {number}", "points": 5, "tags": ["axis:accuracy", "level:cluster"]},
        {"criterion": "invents", "points": -2, "tags": []},
    ]
    row = {
        "prompt_id": f"id{number}",
        "prompt": [{"role": "user", "content": f"question {number}"}],
        "rubrics": rubrics,
        "example_tags": [f"theme:t{number % 2}"],
        "canary": "c",
        "ideal_completions_data": None,
    }
    return row | more


def asks(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def write(path, rows):
    """Writes rows as JSONL; a text stands for itself."""
    lines = []
    for row in rows:
        line = row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)
        lines.append(line + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def make_source(folder: Path, rows: list, hard: list) -> Source:
    full_path = write(folder / "all.jsonl", rows)
    hard_path = write(folder / "hard.jsonl", hard)
    return Source(full_path, hard_path)


def run(source: Source, out, *flags: str) -> int:
    """The command on a source of few rows."""
    return run_complete(source, out, "--allow-subset", *flags)


def run_complete(source: Source, out, *flags: str) -> int:
    words = [
        f"--source={source.full}",
        f"--hard={source.hard}",
        f"--out={out}",
        *flags,
    ]
    return data_preprocess.main(words)


def ids(path):
    return [row.prompt_id for row in read_rows(path)]


class Words:
    """Counts words in place of tokens."""

    def render(self, messages, thinking):
        return " ".join(message["content"] for message in messages)

    def count(self, text):
        return len(text.split())
