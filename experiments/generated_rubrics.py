"""Rows to train on whose rubrics a model wrote, by `python -m rubric_rl.generate` in small.

python experiments/generated_rubrics.py --out DIR     makes what is not there; DIR is claims.py's

The tiny writer writes for the training patients. Rule-made answers, from bad to good, test its
criteria, and the practised start grades them, which these arms train: the policy is the grader here
too. Printed are a line for each kind, and what each filter caught and wrongly dropped.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.other_starts import MODEL, STARTS, start_path
from experiments.processes import PATHS, run_to_end, serve
from rubric_rl import ROOT
from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.jsonl import read_jsonl, write_jsonl
from rubric_rl.cpu.engine import HOST, free_port, start_engine, wait_healthy
from rubric_rl.data.parse import row_from_metadata
from rubric_rl.data.schema import Criterion, Row, Verdict
from rubric_rl.generation.filtered import filtered
from rubric_rl.generation.filters import OFF, Filters
from rubric_rl.generation.graded import (
    LEAST_CANDIDATES,
    GradedCriterion,
    GradedPrompt,
    graded_criteria,
)
from rubric_rl.generation.quality import EXPERT_AGREEMENT, Quality
from rubric_rl.tiny.measure_filters import FilterCounts, table, written_for
from rubric_rl.tiny.oracle import truth
from rubric_rl.tiny.prompts_and_answers import ANSWERS, answers_to
from rubric_rl.tiny.world import pair_of
from rubric_rl.tiny.world import rows as world_rows

FILTERED = "generated"
UNFILTERED = "generated-unfiltered"
# The usual filters but for one: the checkpoint cannot grade a criterion worded as a failure,
# whichever its points.
FILTERS_OF = {FILTERED: Filters(polarity="drop"), UNFILTERED: OFF}
RUBRICS = tuple(FILTERS_OF)
START = "practised"  # of the arms that train on them, and the grader
GRADER = "configs/grader_tiny.yaml"
MADE = "made"  # the command's own folder
GRACE = 10.0  # seconds that the command is given to store what it has


def rows_path(rubrics: str, out: Path) -> Path:
    """The file of rows to train on, of one of RUBRICS."""
    return out / "rubrics" / f"{rubrics}.jsonl"


def _folder(rubrics: str, out: Path) -> Path:
    """What their making leaves behind."""
    return rows_path(rubrics, out).with_suffix("").resolve()


def make_rows(rubrics: str, out: Path) -> None:
    """Writes the rows, whole or not at all; those that are there are kept.

    After a kill nothing is asked twice. A prompt that got no rubric has no row, and a line tells.

    Raises:
        UserError: when a process fails; the message names its log.
    """
    path = rows_path(rubrics, out)
    if path.is_file():
        return
    folder = _folder(rubrics, out)
    # The command always grades; where no filter reads the verdicts, few will do.
    number = ANSWERS if rubrics == FILTERED else LEAST_CANDIDATES
    patients = world_rows(held_out=False)
    write_jsonl(folder / "prompts.jsonl", map(_without_rubric, patients))
    write_jsonl(folder / "answers.jsonl", _answers(patients, number))
    start = start_path(START, out)
    STARTS[START](start)
    engine_port, writer_port = free_port(), free_port()
    with (
        serve("rubric_rl.tiny.writer", writer_port, folder / "writer.log", "the tiny writer"),
        start_engine(start, engine_port, folder) as engine,
    ):
        wait_healthy(f"http://{HOST}:{engine_port}", engine)
        words = command(rubrics, folder, writer_port, engine_port)
        log = folder / "generate.log"
        run_to_end(words, log, os.environ | PATHS, f"making {rubrics} rubrics", GRACE)
    rows = [row for _, row in read_jsonl(folder / MADE / "rows.jsonl")]
    write_jsonl(path, rows)
    print(f"{path}: {len(rows)} of {len(patients)} prompts have a rubric", flush=True)


def _without_rubric(patient: Row) -> dict:
    fields = patient.to_json()["metadata"]
    del fields["rubrics"]  # the expert's
    return fields


def _answers(patients: Sequence[Row], number: int) -> Iterator[dict]:
    """So many answers to each patient, from bad to good; always the same ones."""
    for patient in patients:
        rng = Random(patient.prompt_id)
        for answer in answers_to(rng, pair_of(patient), number):
            yield {"prompt_id": patient.prompt_id, "answer": answer}


def command(rubrics: str, folder: Path, writer_port: int, engine_port: int) -> list[str]:
    """The words that make rubrics from the prompts and answers in `folder`."""
    files = {
        "prompts": folder / "prompts.jsonl",
        "answers": folder / "answers.jsonl",
        "out": folder / MADE,
    }
    writer = {
        "writer-api": "openai",
        "writer-url": f"http://{HOST}:{writer_port}",
        "writer-model": "tiny-writer",
    }
    grader = {
        "grader-config": ROOT / GRADER,
        "grader-url": f"http://{HOST}:{engine_port}",
        "grader-tokenizer": MODEL,  # the same as the start's
    }
    words = [sys.executable, "-m", "rubric_rl.generate", "--moved"]  # other ports after a kill
    for name, value in (files | writer | grader | _filters(rubrics)).items():
        words += [f"--{name}", str(value)]
    return words


def _filters(rubrics: str) -> dict[str, object]:
    return {f"filter-{name.replace('_', '-')}": value for name, value in FILTERS_OF[rubrics]}


# ---- what came out


def lines(out: Path) -> Iterator[str]:
    """A line for the experts' rubrics, and for those that were made."""
    experts = world_rows(held_out=False)
    yield _line("expert", experts)
    for rubrics in RUBRICS:
        stored = read_jsonl(rows_path(rubrics, out))
        made = [row_from_metadata(row["metadata"]) for _, row in stored]
        alike = f"agreement with the expert {agreement(made, experts):.3f}"
        yield f"{_line(rubrics, made)}, {alike}"


def _line(rubrics: str, rows: Sequence[Row]) -> str:
    points = [criterion.points for row in rows for criterion in row.rubric]
    negative = sum(each < 0 for each in points) / len(points)
    criteria = f"{len(points) / len(rows):.1f} criteria each, {negative:.0%} of them negative"
    return f"{rubrics:22} {len(rows)} prompts, {criteria}"


def agreement(rows: Sequence[Row], experts: Sequence[Row]) -> float:
    """Of the pairs of answers that an expert's rubric tells apart: how many are ordered alike.

    The oracle grades, so that only the rubrics differ; the answers are those that test criteria.
    """
    expert_of = {row.prompt_id: row for row in experts}
    quality = Quality()
    for row in rows:
        expert = expert_of[row.prompt_id]
        texts = [line["answer"] for line in _answers([expert], ANSWERS)]
        graded = GradedPrompt(expert, "", candidates=len(texts))
        graded.expert = _by_oracle(expert.rubric, texts)
        quality.add(graded, _by_oracle(row.rubric, texts))
    return quality.result()[EXPERT_AGREEMENT]["kept"]["value"]


def _by_oracle(rubric: Sequence[Criterion], texts: Sequence[str]) -> list[GradedCriterion]:
    readings = []
    for text in texts:
        readings.append([Verdict(met) for met in truth(rubric, text)])
    return graded_criteria(rubric, readings)


def filters_at_work(out: Path) -> FilterCounts:
    """What the filters did by the checkpoint's verdicts, where every fault is known."""
    counts = FilterCounts()
    for _, item in read_jsonl(_folder(FILTERED, out) / MADE / "generated" / "prompts.jsonl"):
        graded = GradedPrompt.from_json(item)
        (draft,) = graded.drafts
        written = written_for(graded.row, draft["seed"])
        counts.add(written, filtered(graded, FILTERS_OF[FILTERED]))
    return counts


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to fix."""
    parser = CommandParser("python experiments/generated_rubrics.py", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="where the runs go")
    return exit_status(lambda: _make_all(parser.parse_args(argv).out))


def _make_all(out: Path) -> int:
    for rubrics in RUBRICS:
        make_rows(rubrics, out)
    print(*lines(out), "", *table(filters_at_work(out)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
