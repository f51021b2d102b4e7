"""Time and memory of data_preprocess.py on many rows, made up in the shape of RaR.

python tests/benchmarks/many_rows.py [--rows 100000] [--form jsonl|json|gz|parquet]
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
from pathlib import Path

from rubric_rl import ROOT

WORDS = "the answer names states advises dose fever risk water doctor child pain daily when that"
MB = 1e6


def rows(count: int) -> Iterator[dict]:
    """Rows of about 5 kB with 7 to 16 criteria each, always the same."""
    draw = random.Random(0)
    words = WORDS.split()

    def text(length: int) -> str:
        return " ".join(draw.choices(words, k=length))

    for number in range(count):
        rubric = []
        for place in range(draw.randint(7, 16)):
            weight = draw.choice([5, 4, 3, 2, -1]) if place else 5
            description = f"Important Criteria: {text(22)}"
            rubric.append({"title": text(2), "description": description, "weight": weight})
        yield {
            "question": f"{number} {text(60)}",
            "reference_answer": text(80),
            "question_source": "made up",
            "rubric": rubric,
            "rubric_list": [each["description"] for each in rubric],
            "rubric_count": len(rubric),
        }


def write(path: Path, form: str, count: int) -> None:
    """Writes the rows in one of the forms."""
    if form == "parquet":
        import pyarrow
        from pyarrow.parquet import ParquetWriter

        writer = None
        for start in range(0, count, 1000):
            table = pyarrow.Table.from_pylist(list(rows(min(1000, count - start))))
            writer = writer or ParquetWriter(path, table.schema)
            ids = [f"{start + number}" for number in range(len(table))]
            index = table.schema.get_field_index("question")
            writer.write_table(table.set_column(index, "question", [ids]))
        if writer:
            writer.close()
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


def measure(form: str, count: int) -> dict[str, float]:
    """Seconds (on the clock, of the processor) and the most memory in MB of one run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{form}"
        write(path, form, count)
        command = [sys.executable, "data_preprocess.py", f"--source={path}", "--hold-out=100"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run(
            [*command, f"--out={folder}", "--name=many"],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        size = path.stat().st_size / MB
    return {
        "file_mb": size,
        "seconds": seconds,
        "processor_seconds": used,
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
