"""Measures what grading and evaluation cost: CPU per criterion, seconds per stored verdict, memory.

python tests/benchmarks/evaluation.py grading --criteria 20000 --concurrency 256
python tests/benchmarks/evaluation.py encoding --criteria 440
python tests/benchmarks/evaluation.py anchor --criteria 20000 --concurrency 256
python tests/benchmarks/evaluation.py client --criteria 20000 --concurrency 256
python tests/benchmarks/evaluation.py stored --verdicts 10000

`grading` is the training reward through SGLang's /generate, an answer's criteria in one request and
each in its own; `client` a whole evaluation through an OpenAI endpoint. Each is also given as a
multiple of the floor, which the same run measures: as many bare aiohttp requests of the same size,
at the same time on the same machine. `encoding` is what the token ids of `direct` mode cost.
`anchor` is `grading` without and with an anchor beside one prompt of eight, in turn, per criterion
that either is asked.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))
sys.path.insert(0, str(TESTS.parent))

from doubles.records import made, write_run  # noqa: E402  (only now can it be found)

from rubric_rl.data.schema import Record, Row  # noqa: E402

TOKENIZER = str(TESTS.parent / "rubric_rl/tiny/model")
CRITERIA = 11  # of a row, about as many as HealthBench's have
PROMPT_SIZE = 4800  # characters of a grader prompt over these rows, as `words` writes them
VERDICT = '{"explanation": "The answer says so in its second sentence.", "criteria_met": true}'
USAGE = {"prompt_tokens": 2000, "completion_tokens": 20}
REPLY = {
    "choices": [{"message": {"role": "assistant", "content": VERDICT}, "finish_reason": "stop"}],
    "usage": USAGE,
    "text": VERDICT,  # from here on as SGLang's /generate replies
    "meta_info": USAGE | {"cached_tokens": 1900, "finish_reason": {"type": "stop"}},
}


class Instant(asyncio.Protocol):
    """An HTTP endpoint that answers at once and does nothing else."""

    HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

    @staticmethod
    def answer(request: bytes) -> bytes:
        """To a list one reply for each of its texts, named as SGLang names them."""
        if b'"text":[' not in request:
            return json.dumps(REPLY).encode()
        asked = json.loads(request)
        replies = []
        for place in range(len(asked["text"])):
            meta = REPLY["meta_info"] | {"id": f"{asked['rid']}_{place}"}
            replies.append(REPLY | {"meta_info": meta})
        return json.dumps(replies).encode()

    def connection_made(self, transport):
        self.transport = transport
        self.waiting = b""

    def data_received(self, data):
        self.waiting += data
        while (head_end := self.waiting.find(b"\r\n\r\n")) >= 0:
            head = self.waiting[:head_end].lower()
            _, _, value = head.partition(b"content-length:")
            line, _, _ = value.partition(b"\r\n")
            length = int(line)
            request_end = head_end + 4 + length
            if len(self.waiting) < request_end:
                return
            answer = self.answer(self.waiting[head_end + 4 : request_end])
            self.waiting = self.waiting[request_end:]
            self.transport.write(self.HEAD % len(answer) + answer)


def serve(pipe) -> None:
    """Runs the endpoint, in a process of its own, and sends its port through the pipe."""

    async def run():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Instant, "127.0.0.1", 0)
        _, port = server.sockets[0].getsockname()
        pipe.send(port)
        await server.serve_forever()

    asyncio.run(run())


def words(rng: random.Random, count: int) -> str:
    known = ("patient", "should", "take", "the", "dose", "daily", "with", "care")
    return " ".join(rng.choice(known) for _ in range(count))


def raw_row(rng: random.Random, prompt_id: str) -> dict:
    """A row of 11 criteria, with conversation and criteria of HealthBench's size."""
    rubrics = []
    for place in range(CRITERIA):
        item = {
            "criterion": words(rng, 25),
            "points": 5 if place == 0 else rng.choice((5, 7, -4)),
            "tags": ["axis:accuracy"],
        }
        rubrics.append(item)
    return {
        "prompt_id": prompt_id,
        "prompt": [{"role": "user", "content": words(rng, 150)}],
        "rubrics": rubrics,
        "example_tags": ["theme:t"],
    }


def write_rows(rows: Path, answers: Path, count: int) -> None:
    rng = random.Random(0)
    with rows.open("w") as row_file, answers.open("w") as answer_file:
        for number in range(count):
            row = raw_row(rng, f"p{number}")
            answer = {"prompt_id": row["prompt_id"], "answer": words(rng, 400)}
            row_file.write(json.dumps(row) + "\n")
            answer_file.write(json.dumps(answer) + "\n")


def peak_memory() -> str:
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"peak memory {megabytes:.0f} MB"


@contextmanager
def endpoint() -> Iterator[str]:
    """The URL of the endpoint that answers at once, in a process of its own."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(there,), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        server.terminate()


async def bare_requests(url: str, size: int, count: int, concurrency: int) -> None:
    """The floor: what any client in Python pays for sending and receiving."""
    limit = asyncio.Semaphore(concurrency)
    body = {"text": "x" * size}

    async def one(session: aiohttp.ClientSession) -> None:
        async with limit, session.post(url, json=body) as response:
            await response.json(content_type=None)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(one(session) for _ in range(count)))


def cpu_per_request(work: Coroutine[None, None, None], count: int) -> float:
    """Milliseconds of CPU that each of the `count` requests in `work` takes."""
    start = time.process_time()
    asyncio.run(work)
    return 1000 * (time.process_time() - start) / count


def show_cost(each: float, floor: float, count: int, concurrency: int) -> None:
    print(
        f"{count} criteria, {concurrency} in flight: "
        f"{each:.3f} ms of CPU each, {each / floor:.2f} x a bare request ({floor:.3f} ms), "
        f"{peak_memory()}"
    )


def client(criteria: int, concurrency: int) -> None:
    """CPU per criterion of the whole evaluation: reading, prompting, sending, replies, storing."""
    from rubric_rl.evaluation.evaluate import EvaluationPlan, _parser

    with tempfile.TemporaryDirectory() as name, endpoint() as url:
        folder = Path(name)
        rows = folder / "rows.jsonl"
        answers = folder / "answers.jsonl"
        write_rows(rows, answers, criteria // CRITERIA)
        flags = f"""
            --rows {rows}
            --answers {answers}
            --out {folder / "run"}
            --grader-api openai
            --grader-model m
            --grader-url {url}
            --grader-concurrency {concurrency}
        """
        plan = EvaluationPlan(_parser().parse_args(flags.split()))
        count = plan.criteria
        each = cpu_per_request(plan.run(), count)
        floor = cpu_per_request(bare_requests(url, PROMPT_SIZE, count, concurrency), count)
    show_cost(each, floor, count, concurrency)


def answers_to_grade(criteria: int) -> list[tuple[Row, str]]:
    """Rows and an answer to each, with about so many criteria."""
    from rubric_rl.data.row_file import RowFile

    with tempfile.TemporaryDirectory() as name:
        written, answered = Path(name) / "rows.jsonl", Path(name) / "answers.jsonl"
        write_rows(written, answered, criteria // CRITERIA)
        rows = list(RowFile(str(written)))
        answers = [json.loads(line)["answer"] for line in answered.open()]
    return list(zip(rows, answers, strict=True))


def grading_cost(
    url: str, answers: list[tuple[Row, str]], concurrency: int, anchor_share: float = 0.0
) -> float:
    """Milliseconds of CPU per criterion that grader and anchor are asked."""
    from rubric_rl.common.hash_share import share_of
    from rubric_rl.grading.grade import Grader
    from rubric_rl.serving.client import Client
    from rubric_rl.serving.endpoint import Endpoint
    from rubric_rl.trust.anchor import Anchor, grade_beside

    settings = Endpoint(url=url, tokenizer=TOKENIZER, concurrency=concurrency)
    # Once per process, and not counted: what renders chat templates is imported.
    Client(settings)
    anchored = {row.prompt_id for row, _ in answers}
    anchored = {name for name in anchored if share_of(name, "anchor") < anchor_share}

    async def all_rewards() -> None:
        async with Client(settings) as client, Client(settings) as anchors:
            grader, anchor = Grader(client), Anchor(Grader(anchors, name="anchor"), seconds=3600)
            rewards = []
            for row, answer in answers:
                beside = anchor if row.prompt_id in anchored else None
                rewards.append(grade_beside(beside, grader, row, answer))
            records = await asyncio.gather(*rewards)
        assert all(record.status == "graded" for record in records)
        judged = [record for record in records if record.anchored and record.anchored.verdicts]
        assert len(judged) == len(anchored)

    return cpu_per_request(all_rewards(), CRITERIA * (len(answers) + len(anchored)))


def grading(criteria: int, concurrency: int) -> None:
    """CPU per criterion of the training reward: prompting, sending, reading, scoring."""
    from rubric_rl.serving.apis import SGLang

    answers = answers_to_grade(criteria)
    count = len(answers) * CRITERIA
    with endpoint() as url:
        together = grading_cost(url, answers, concurrency)
        SGLang.takes_lists = False
        alone = grading_cost(url, answers, concurrency)
        floor = cpu_per_request(bare_requests(url, PROMPT_SIZE, count, concurrency), count)
    print("in one request: ", end="")
    show_cost(together, floor, count, concurrency)
    print("each in its own: ", end="")
    show_cost(alone, floor, count, concurrency)


def encoding(criteria: int, concurrency: int) -> None:
    """CPU per criterion of token ids, each prompt read whole and what an answer's share once."""
    from rubric_rl.common.tokenizer import ChatTokenizer
    from rubric_rl.grading.prompt import AnswerPrompt, verdict_opening
    from rubric_rl.grading.settings import Grading

    tokenizer = ChatTokenizer(TOKENIZER)
    prompts = []
    for row, answer in answers_to_grade(criteria):
        asked = AnswerPrompt(Grading(mode="direct"), row.messages, answer)
        messages = [asked.messages([criterion]) for criterion in row.rubric]
        prompts.append([tokenizer.render(each, False, verdict_opening()) for each in messages])

    def cost(encode: Callable[[list[str]], object]) -> float:
        start = time.process_time()
        for texts in prompts:
            encode(texts)
        return 1000 * (time.process_time() - start) / len(prompts) / CRITERIA

    whole = cost(lambda texts: [tokenizer.encode(text) for text in texts])
    shared = cost(tokenizer.encode_alike)
    print(f"{whole:.2f} ms of CPU per criterion read whole, {shared:.2f} with what is shared once")


def anchor(criteria: int, concurrency: int) -> None:
    """The same without and with an anchor, five times in turn."""
    answers = answers_to_grade(criteria)
    alone, beside = [], []
    with endpoint() as url:
        for _ in range(5):
            alone.append(grading_cost(url, answers, concurrency))
            beside.append(grading_cost(url, answers, concurrency, anchor_share=1 / 8))
    ratios = [after / before for before, after in zip(alone, beside, strict=True)]
    print(
        f"{len(answers) * CRITERIA} criteria, {concurrency} in flight: "
        f"{statistics.median(alone):.3f} ms of CPU each, {statistics.median(beside):.3f} ms with "
        f"an anchor: x {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def stored_records(answers: int) -> Iterator[Record]:
    rng = random.Random(0)
    points = [5, 3, -4, 7, 2, -8, 6, 1, 4, -3, 9]
    for number in range(answers):
        met = rng.choices((True, False, None), (6, 4, 0.2), k=CRITERIA)
        text = "An answer. " * 250
        yield made(f"p{number}", points, met, answer=text, theme=f"t{number % 7}")


def stored(verdicts: int) -> None:
    """Re-scoring and reporting stored verdicts, 11 of an answer."""
    from rubric_rl.evaluation.read_run import Run
    from rubric_rl.evaluation.rescore import rescore
    from rubric_rl.evaluation.scoring_rule import ScoringRule
    from rubric_rl.report.__main__ import write_report

    with tempfile.TemporaryDirectory() as folder:
        records = stored_records(verdicts // CRITERIA + 1)
        run = write_run(Path(folder) / "run", records)
        start = time.perf_counter()
        rule = ScoringRule(unreadable="left_out")
        answers = sum(1 for _ in rescore(Run(run), rule))
        rescored = time.perf_counter()
        write_report([Run(run)], ScoringRule(), Path(folder) / "report")
        reported = time.perf_counter()
    count = answers * CRITERIA
    rescoring = rescored - start
    reporting = reported - rescored
    print(
        f"{count} verdicts: re-scored in {rescoring:.2f} s, "
        f"reported in {reporting:.2f} s, "
        f"{peak_memory()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("grading", "encoding", "anchor", "client", "stored"))
    parser.add_argument("--criteria", type=int, default=20000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--verdicts", type=int, default=10000)
    args = parser.parse_args()
    if args.what == "stored":
        stored(args.verdicts)
    else:
        parts = {"grading": grading, "encoding": encoding, "anchor": anchor, "client": client}
        parts[args.what](args.criteria, args.concurrency)


if __name__ == "__main__":
    main()
