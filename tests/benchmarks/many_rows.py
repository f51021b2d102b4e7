"""Time and memory of data_preprocess.py with its default checks, on many made-up plain rows.

python tests/benchmarks/many_rows.py [--rows 100000] [--form jsonl|json|gz|parquet]

A row has a question of about 50 words and 7 to 13 criteria of about 20; the words are as frequent
as those of a language: few are in most texts, most are in few.
"""

import argparse
import gzip
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMALL = "the of and to a in is that for it with as on be or if when should not at by from which"
SYLLABLES = "ba co di fen gra lo mi nu per ro sta ti ul ven wa"
VOCABULARY = 8000  # words
OPENINGS = (
    *("Names", "States that", "Explains how", "Recommends", "Advises the user to", "Mentions"),
    *("Asks whether", "Provides a clear", "Includes", "The response should", "Avoids", "Uses"),
)
FAULTS = ("Fails to mention", "Claims that", "Recommends", "Omits", "Uses misleading")
BATCH = 1000  # rows of a Parquet file that are written at a time
MB = 1e6


class Texts:
    """Draws texts, always the same ones."""

    def __init__(self):
        self.random = random.Random(0)
        words = SMALL.split()
        syllables = SYLLABLES.split()
        while len(words) < VOCABULARY:
            count = self.random.randint(2, 4)
            words.append("".join(self.random.choices(syllables, k=count)))
        self._words = words
        # Zipf's law: the n-th word is n times rarer than the first.
        self._weights = list(accumulate(1 / (place + 3) for place in range(len(words))))

    def text(self, length: int) -> str:
        """So many words."""
        words = self.random.choices(self._words, cum_weights=self._weights, k=length)
        return " ".join(words)

    def criterion(self, positive: bool) -> dict:
        """A criterion, with points of that sign."""
        opening = self.random.choice(OPENINGS if positive else FAULTS)
        points = self.random.randint(1, 10)
        length = self.random.randint(10, 28)
        return {
            "criterion": f"{opening} {self.text(length)}.",
            "points": points if positive else -points,
        }


def rows(count: int) -> Iterator[dict]:
    """So many rows of about 2 kB in the form of `plain`, always the same."""
    texts = Texts()
    for number in range(count):
        rubric = [texts.criterion(positive=True)]
        for _ in range(texts.random.randint(6, 12)):
            rubric.append(texts.criterion(positive=texts.random.random() < 0.75))
        question = texts.text(texts.random.randint(30, 70))
        yield {"id": f"row{number}", "prompt": f"{question}?", "rubric": rubric}


def write(path: Path, form: str, count: int) -> None:
    """Writes the rows in one of the forms."""
    if form == "parquet":
        _write_parquet(path, count)
        return
    opened = gzip.open if form == "gz" else open
    with opened(path, "wt") as file:
        if form == "json":
            file.write("[")
        for number, row in enumerate(rows(count)):
            if form == "json" and number:
                file.write(",\n")
            file.write(json.dumps(row) + ("" if form == "json" else "\n"))
        if form == "json":
            file.write("]")


def _write_parquet(path: Path, count: int) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    made = rows(count)
    writer = None
    for start in range(0, count, BATCH):
        batch = [next(made) for _ in range(min(BATCH, count - start))]
        table = pyarrow.Table.from_pylist(batch)
        writer = writer or ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


def measure(form: str, count: int) -> dict[str, float]:
    """Size of the file, seconds on the clock and of processors, peak memory of one process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{form}"
        write(path, form, count)
        held_out = max(1, count // 100)
        command = [sys.executable, "data_preprocess.py", f"--source={path}", "--name=many"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run(
            [*command, f"--hold-out={held_out}", f"--out={folder}"],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        size = path.stat().st_size / MB
    return {
        "file_mb": size,
        "seconds": seconds,
        "processor_seconds": after.ru_utime - before.ru_utime,
        "system_seconds": after.ru_stime - before.ru_stime,
        "memory_mb": after.ru_maxrss * 1024 / MB,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--form", choices=["jsonl", "json", "gz", "parquet"], default="jsonl")
    args = parser.parse_args()
    for name, value in measure(args.form, args.rows).items():
        print(f"{name}: {value:.1f}")


if __name__ == "__main__":
    main()
