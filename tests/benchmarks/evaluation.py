"""Measures what the evaluation costs: CPU per criterion, seconds per stored verdict, memory per row (stage 6).

For example:
    python tests/benchmarks/evaluation.py client --criteria 20000 --concurrency 256
    python tests/benchmarks/evaluation.py stored --verdicts 10000
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from doubles.records import made, write_run  # noqa: E402

VERDICT = '{"explanation": "The answer says so in its second sentence.", "criteria_met": true}'
REPLY = {
    "choices": [{"message": {"role": "assistant", "content": VERDICT}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 2000, "completion_tokens": 20},
}


class Instant(asyncio.Protocol):
    """An HTTP endpoint that answers at once and does nothing else."""

    BODY = json.dumps(REPLY).encode()
    ANSWER = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        % (len(BODY), BODY)
    )

    def connection_made(self, transport):
        self.transport, self.waiting = transport, b""

    def data_received(self, data):
        self.waiting += data
        while (end := self.waiting.find(b"\r\n\r\n")) >= 0:
            head = self.waiting[:end].lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self.waiting) < end + 4 + length:
                return
            self.waiting = self.waiting[end + 4 + length :]
            self.transport.write(self.ANSWER)


def serve(port) -> None:
    async def run():
        server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def rows_file(path: Path, rows: int) -> None:
    """Rows of 11 criteria, with conversation, answer and criteria of HealthBench's size."""
    rng = random.Random(0)

    def text(words):
        return " ".join(
            rng.choice(("patient", "should", "take", "the", "dose", "daily", "with", "care"))
            for _ in range(words)
        )

    with path.open("w") as file, path.with_suffix(".answers").open("w") as answers:
        for i in range(rows):
            items = [
                {
                    "criterion": text(25),
                    "points": rng.choice((5, 7, -4)) if j else 5,
                    "tags": ["axis:accuracy"],
                }
                for j in range(11)
            ]
            row = {
                "prompt_id": f"p{i}",
                "prompt": [{"role": "user", "content": text(150)}],
                "rubrics": items,
                "example_tags": ["theme:t"],
            }
            file.write(json.dumps(row) + "\n")
            answers.write(json.dumps({"prompt_id": f"p{i}", "answer": text(400)}) + "\n")


def client(criteria: int, concurrency: int) -> None:
    """CPU of the whole evaluation, reading, prompting, sending, reading replies, storing, per criterion."""
    from rubric_rl.evaluation.evaluate import Plan, _parser

    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(there,), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory() as folder:
        rows, out = Path(folder) / "rows.jsonl", Path(folder) / "run"
        rows_file(rows, criteria // 11)
        flags = [
            "--rows",
            rows,
            "--answers",
            rows.with_suffix(".answers"),
            "--out",
            out,
            "--grader-api",
            "openai",
            "--grader-model",
            "m",
        ]
        flags += [
            "--grader-url",
            f"http://127.0.0.1:{here.recv()}",
            "--grader-concurrency",
            concurrency,
        ]
        plan = Plan(_parser().parse_args([str(flag) for flag in flags]))
        start, cpu = time.perf_counter(), time.process_time()
        asyncio.run(plan.run())
        cpu, wall = time.process_time() - cpu, time.perf_counter() - start
    server.terminate()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{plan.criteria} criteria, {concurrency} in flight: {1000 * cpu / plan.criteria:.3f} ms of CPU each, "
        f"{wall:.1f} s in all, peak memory {memory:.0f} MB"
    )


def stored(verdicts: int) -> None:
    """Re-scoring and reporting stored verdicts, 11 of an answer."""
    from rubric_rl.evaluation.read_run import Run
    from rubric_rl.evaluation.rescore import rescore
    from rubric_rl.evaluation.scoring_rule import Rule
    from rubric_rl.report.__main__ import write_report

    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        points = [5, 3, -4, 7, 2, -8, 6, 1, 4, -3, 9]
        records = (
            made(
                f"p{i}",
                points,
                rng.choices((True, False, None), (6, 4, 0.2), k=11),
                answer="An answer. " * 250,
                theme=f"t{i % 7}",
            )
            for i in range(verdicts // 11 + 1)
        )
        run = write_run(Path(folder) / "run", records)
        start = time.perf_counter()
        count = sum(1 for _ in rescore(Run(run), Rule(unreadable="left_out")))
        rescored = time.perf_counter()
        write_report([Run(run)], Rule(), Path(folder) / "report")
        end = time.perf_counter()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{count * 11} verdicts: re-scored in {rescored - start:.2f} s, reported in {end - rescored:.2f} s, "
        f"peak memory {memory:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("client", "stored"))
    parser.add_argument("--criteria", type=int, default=20000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--verdicts", type=int, default=10000)
    args = parser.parse_args()
    client(args.criteria, args.concurrency) if args.what == "client" else stored(args.verdicts)


if __name__ == "__main__":
    main()
