"""What the alarm would have said of finished runs that had none.

python experiments/watched.py --out DIR [--arms self oracle] [--seeds 1 2 3]

DIR is that of `experiments/claims.py`. A frozen copy of the shipped start, an anchor as a run may
have beside the policy, judges the answers of each evaluation, and the alarm's rules are asked after
each one, with their usual limits. Only `level` and `exploitation` can speak: the checkpoints in
between, which a probe would ask, are gone. A run leaves experiments/results/watched/ARM-SEED.jsonl
and is not asked about again; `experiments/claims.py --report` makes a table of them.
"""

import asyncio
import math
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments import runs
from experiments.arms import ARMS
from experiments.claims import ROLLOUTS, SEEDS
from experiments.results import DATA_SET, Rows, watched_path
from rubric_rl import ROOT
from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.common.progress import StageBar
from rubric_rl.cpu.engine import HOST, free_port, start_engine, wait_healthy
from rubric_rl.data.schema import Record, Row
from rubric_rl.data.training_settings import Trust
from rubric_rl.evaluation.read_run import Run
from rubric_rl.grading.grade import Grader
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.serving.client import Client
from rubric_rl.trust.alarm import alarm_of, anchor_levels
from rubric_rl.trust.anchor import Anchor
from rubric_rl.trust.evaluations import Evaluation, evaluation_of

START = str(ROOT / "rubric_rl/tiny/model")


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to fix."""
    return exit_status(lambda: _watch_all(argv))


def _watch_all(argv: list[str] | None) -> int:
    parser = CommandParser("python experiments/watched.py", __doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="where experiments/claims.py put its runs")
    add("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="ARM")
    add("--seeds", nargs="+", type=int, default=SEEDS, help="(default: %(default)s)")
    args = parser.parse_args(argv)
    finished = finished_runs(args.out, args.arms, args.seeds, done=watched_path)
    with frozen_copy() as url:
        for run in finished:
            said = asyncio.run(watched(url, run))
            path = watched_path(run.name, run.seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_jsonl(path, said)
            rang = [str(each["weight_version"]) for each in said if each["rules"]]
            print(f"{run.label()}: rings after {', '.join(rang) or 'none'}", flush=True)
    return 0


def finished_runs(
    out: Path, arms: Sequence[str], seeds: Sequence[int], done: Callable[[str, int], Path]
) -> list[runs.Run]:
    """The finished runs in `out` of these arms and seeds whose file `done` is not there yet."""
    found = []
    for arm in arms:
        for seed in seeds:
            run = runs.Run(arm, ARMS[arm], seed, out, ROLLOUTS)
            if run.is_done and not done(arm, seed).exists():
                found.append(run)
    return found


@contextmanager
def frozen_copy() -> Iterator[str]:
    """The address of an engine that serves the shipped start."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, start_engine(START, port, folder) as engine:
        url = f"http://{HOST}:{port}"
        wait_healthy(url, engine, seconds=1800)  # beside other runs
        yield url


async def watched(url: str, run: runs.Run) -> Rows:
    """A row for each evaluation of a run: the anchor's level, and the rules that fire."""
    evaluations: list[Evaluation] = []
    said = []
    for version, records in sorted((await judged(url, run)).items()):
        evaluations.append(evaluation_after(version, records))
        levels = anchor_levels(evaluations[-1].answers).values()
        level = sum(total for total, _ in levels) / sum(weight for _, weight in levels)
        rules = rules_at(evaluations)
        said.append({"weight_version": version, "anchor": round(level, 4), "rules": rules})
    return said


def evaluation_after(version: int, records: Iterable[Record]) -> Evaluation:
    """The evaluation of the weights of that version."""
    return evaluation_of(max(version - 1, 0), {DATA_SET: records}, probe=None)


def rules_at(evaluations: Sequence[Evaluation]) -> list[str]:
    """The rules that fire at the last of them, with the usual limits."""
    alarm = alarm_of(evaluations, Trust())
    return [finding.rule for finding in alarm.findings] if alarm else []


async def judged(url: str, run: runs.Run) -> dict[int, list[Record]]:
    """The records of a run's evaluations by weight version, with the frozen copy's verdicts."""
    settings = GraderSettings.load(runs.GRADER)
    by_version = evaluated(run.save_path)
    with StageBar(run.label(), len(by_version), "evaluation") as bar:
        async with Client(settings.endpoint, url, START) as client:
            anchor = Anchor(Grader(client, settings.grading, name="frozen copy"), math.inf)
            for number, records in enumerate(by_version.values(), 1):
                await asyncio.gather(*(_judge(anchor, record) for record in records))
                bar.move_to(number)
    return by_version


async def _judge(anchor: Anchor, record: Record) -> None:
    if record.status == "graded" and record.answer is not None:
        row = Row(record.prompt_id, record.messages, record.rubric)
        record.anchored = await anchor.judge(row, record.answer, record.prompt_id)
        assert not record.anchored.error, record.anchored.error


def evaluated(save_path: Path) -> dict[int, list[Record]]:
    """The records of a run's evaluations by weight version."""
    by_version = defaultdict(list)
    for record in Run(save_path, split="eval", every=True):
        by_version[int(record.weight_version)].append(record)
    return by_version


if __name__ == "__main__":
    sys.exit(main())
