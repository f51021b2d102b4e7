"""The benchmark of many rows runs, in every form that it writes."""

import subprocess
import sys

import pytest

from rubric_rl import ROOT

BENCHMARK = ROOT / "tests" / "benchmarks" / "many_rows.py"


@pytest.mark.parametrize("form", ["jsonl", "json", "gz", "parquet"])
def test_the_benchmark_measures_time_and_memory(form):
    command = [sys.executable, str(BENCHMARK), "--rows", "200", "--form", form]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    values = dict(line.split(": ") for line in done.stdout.splitlines())
    names = ["file_mb", "seconds", "processor_seconds", "system_seconds", "memory_mb"]
    assert list(values) == names
    assert float(values["memory_mb"]) < 200  # and not that of the rows that were written
