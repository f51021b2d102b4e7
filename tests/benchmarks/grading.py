"""What grading costs, of which mode and layout, and how right it is.

python tests/benchmarks/grading.py                   all of it, on an engine that it starts
python tests/benchmarks/grading.py tokens --url http://127.0.0.1:30000
python tests/benchmarks/grading.py records --url ... --model DIR --records FILE --template FILE

`tokens`    uncached prefill and decoded tokens per answer, as SGLang counts them, against the
            floor: conversation, answer and criteria once each, one token decoded per criterion
`records`   the same of answers of yours, of which verdict records hold rubric and conversation, in
            `direct` and in a template of yours, with another model
`seconds`   per answer, with so many answers in flight
`depth`     the same against a stub that takes a fixed time per token, in units of one reply
`accuracy`  against the oracle of the tiny world; `rubric_rl.meta_eval` tries a cascade's limits

CPU per criterion: `python tests/benchmarks/evaluation.py grading`.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
from aiohttp import web

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS.parent))

from rubric_rl.common.errors import UserError  # noqa: E402  (only now can it be found)
from rubric_rl.common.jsonl import read_jsonl  # noqa: E402
from rubric_rl.common.plain_text import one_line  # noqa: E402
from rubric_rl.common.tokenizer import ChatTokenizer  # noqa: E402
from rubric_rl.cpu.engine import (  # noqa: E402
    HOST,
    RequestRefused,
    free_port,
    request,
    start_engine,
    wait_healthy,
)
from rubric_rl.data.parse import record_from_json  # noqa: E402
from rubric_rl.data.schema import Criterion, Record, Row  # noqa: E402
from rubric_rl.grading.grade import Grader, grade  # noqa: E402
from rubric_rl.grading.settings import GraderSettings  # noqa: E402
from rubric_rl.serving.apis import CHOICES  # noqa: E402
from rubric_rl.serving.client import Client  # noqa: E402
from rubric_rl.serving.question import Question, Reply  # noqa: E402
from rubric_rl.serving.verdict_text import VERDICT_SCHEMA  # noqa: E402
from rubric_rl.tiny.example_answers import graded_answer, mediocre_answer  # noqa: E402
from rubric_rl.tiny.oracle import truth  # noqa: E402
from rubric_rl.tiny.world import pair_of, rows  # noqa: E402

MODEL = str(TESTS.parent / "rubric_rl/tiny/model")
WORDS = "please drink water see doctors take codeine avoid rest keep notes lift weights use steam"
CRITERIA = 11  # of a row, about as many as HealthBench's have
SLOTS = 64  # of the engine that it starts, and the tiny run's limit of requests in flight
ANSWERS, GROUP = 16, 4
# Peers' layouts, in a text of ours: how much stands before the material and after a criterion. In
# the published template 649 tokens of SmolLM2's vocabulary stand behind it, here 647 of the tiny's.
LONG = " ".join(WORDS.split()[:10] * 54)
LAYOUTS = {
    "the published hook's": f"{LONG[:200]}\n<<conversation>>\n<<rubric_item>>\n{LONG}",
    "the criterion first": "<<rubric_item>>\n<<conversation>>\n" + LONG[:800],
}
MODES: dict[str, dict] = {
    "direct": {"mode": "direct"},
    "explain": {"mode": "explain"},
    "cascade": {"mode": "cascade"},
    "checklist (all in one)": {"mode": "checklist", "max_tokens": 400},
}
IN_REPLY = "direct, the criterion in the reply"
MODES[IN_REPLY] = MODES["direct"] | {"criterion_in_reply": True}
JUDGED = {name: MODES[name] for name in ("direct", IN_REPLY, "explain", "cascade")}
JUDGED["explain, verdict by probability"] = MODES["explain"] | {"verdict": "probability"}
JUDGED["explain, with thoughts"] = MODES["explain"] | {"thinking": True}
LOADS = (1, 8, 64, 256)
Answers = list[tuple[Row, str]]


class AtFirstToken(Client):
    """A way that is not built: the first reply is streamed, its first token sends the others."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._streams: dict[str, asyncio.Task[Reply]] = {}  # by the first criterion's prompt

    async def read_ahead(self, question: Question) -> Reply:
        question = replace(question, schema=VERDICT_SCHEMA)
        has_begun = asyncio.Event()
        stream = asyncio.create_task(self._stream(question, has_begun))
        self._streams[str(question.messages)] = stream
        await has_begun.wait()
        return Reply("", True, None, 0, 0, 0, "")  # its tokens are counted with the whole

    async def ask_together(self, questions: list[Question]) -> list[Reply]:
        stream = self._streams.pop(str(questions[0].messages), None)
        if stream is None:
            return await super().ask_together(questions)
        others = await super().ask_together(questions[1:])
        return [await stream, *others]

    async def _stream(self, question: Question, has_begun: asyncio.Event) -> Reply:
        body = self.api.body(question) | {"stream": True}
        last = {}
        posted = aiohttp.request("POST", self._url, json=body)
        async with self._limit.holding(1), posted as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    last = json.loads(line.removeprefix(b"data: "))
                    has_begun.set()
        return self.api.reply(question, last)


class AtFirstReply(Client):
    """As where an engine cannot read ahead."""

    async def read_ahead(self, question: Question) -> None:
        return None


# What the criteria of an answer wait for in `explain`.
WAYS: dict[str, tuple[type[Client], dict]] = {
    "prompts read ahead": (Client, {}),
    "a first token": (AtFirstToken, {}),
    "a first reply waited for": (AtFirstReply, {}),
    "all at once": (Client, {"warm_prefix": False}),
}


def made_up(count: int, group: int, words: int, seed: int) -> Answers:
    """Answers of so many words, `group` of them to each prompt."""
    rng = random.Random(seed)

    def text(size: int) -> str:
        return " ".join(rng.choices(WORDS.split(), k=size))

    answers: Answers = []
    for number in range(count):
        if number % group == 0:
            points = [5.0, *(rng.choice([5.0, 3.0, -4.0]) for _ in range(CRITERIA - 1))]
            rubric = tuple(Criterion(text(14).capitalize(), each) for each in points)
            row = Row(f"{seed}-{number}", ({"role": "user", "content": text(120)},), rubric)
        answers.append((row, text(words)))
    return answers


def recorded(file: Path) -> Answers:
    """The answers in a file of verdict records, but for those that are none."""
    records = (record_from_json(item) for _, item in read_jsonl(file))
    return [
        (Row(each.prompt_id, each.messages, each.rubric), each.answer)
        for each in records
        if each.answer
    ]


def floor(answers: Answers, model: str = MODEL) -> float:
    """Tokens per answer that no layout can do without, with one decoded per criterion."""
    count = ChatTokenizer(model).count
    total, prompts = 0, set()
    for row, answer in answers:
        if row.prompt_id not in prompts:
            prompts.add(row.prompt_id)
            total += sum(count(message["content"]) for message in row.messages)
        total += count(answer)
        total += sum(count(criterion.text) + 1 for criterion in row.rubric)
    return total / len(answers)


async def graded(
    url: str,
    answers: Answers,
    in_flight: int,
    of_model: str = MODEL,
    client_type: type[Client] = Client,
    **settings,
) -> list[Record]:
    named = {"concurrency": 256, "max_tokens": 96, "timeout": 3600.0} | settings
    chosen = GraderSettings.load({f"grader_{name}": value for name, value in named.items()})
    places = asyncio.Semaphore(in_flight)

    async def one(grader: Grader, number: int, row: Row, answer: str) -> Record:
        async with places:
            return await grade(grader, row, answer, routing_key=str(number))

    async with client_type(chosen.endpoint, url, of_model) as client:
        grader = Grader(client, chosen.grading, chosen.scoring)
        asked = (one(grader, number, *answer) for number, answer in enumerate(answers))
        records = await asyncio.gather(*asked)
    for record in records:
        assert record.status == "graded", record.error
    return records


def flush(url: str) -> None:
    """Empties the engine's cache, which a busy engine refuses."""
    try:
        request(f"{url}/flush_cache")
    except (RequestRefused, UserError) as error:
        hint = "measure on an engine that serves nothing else, or leave out --url"
        sys.exit(f"{one_line(str(error))}; {hint}")


def used(records: list[Record]) -> tuple[float, float]:
    """Uncached prefill and decoded tokens per answer."""
    spent = [record.first_tokens + record.rest_tokens for record in records]
    uncached = sum(tokens.prompt - tokens.cached for tokens in spent)
    return uncached / len(records), sum(tokens.completion for tokens in spent) / len(records)


def tokens(url: str) -> None:
    """Cold, 16 answers of 500 words at once; one prompt each, and in groups of four."""
    print(f"\ntokens per answer, {ANSWERS} answers, {CRITERIA} criteria, 16 in flight, cold start")
    with tempfile.TemporaryDirectory() as folder:
        layouts = {}
        for number, (name, text) in enumerate(LAYOUTS.items()):
            path = Path(folder) / f"{number}.txt"
            path.write_text(text)
            layouts[name] = {"mode": "direct", "template": str(path)}
        for group in (1, GROUP):
            answers = made_up(ANSWERS, group, 500, group)
            print()
            compare(url, f"{group} per prompt", answers, MODES | layouts)


def compare(
    url: str, title: str, answers: Answers, layouts: dict[str, dict], model: str = MODEL
) -> None:
    """A table of what each of the layouts costs, all answers begun at once, from an empty cache."""
    least = floor(answers, model)
    print(f"| {title} | prefilled | decoded | of the floor ({least:.0f}) |")
    print("|---|---|---|---|")
    for name, settings in layouts.items():
        flush(url)
        records = asyncio.run(graded(url, answers, len(answers), model, **settings))
        prefilled, decoded = used(records)
        share = (prefilled + decoded) / least
        print(f"| {name} | {prefilled:.0f} | {decoded:.0f} | {share:.2f} |", flush=True)


def of_records(url: str, args: argparse.Namespace) -> None:
    """What `direct` costs on the answers of a file, and in another layout."""
    answers = recorded(args.records)
    layouts = {name: MODES[name] for name in ("direct", IN_REPLY)}
    if args.template:
        layouts[args.template] = {"mode": "direct", "template": args.template}
    criteria = sum(len(row.rubric) for row, _ in answers)
    compare(url, f"{len(answers)} answers, {criteria} criteria", answers, layouts, args.model)


def seconds(url: str) -> None:
    """Answers of 60 words in groups of four; the uncached prefill beside the seconds."""
    print(f"\nseconds (and tokens prefilled) per answer, {CRITERIA} criteria\n")
    print(f"| in flight | direct | explain, {' | '.join(WAYS)} |\n|---|---|{'---|' * len(WAYS)}")
    ways = [("direct", Client, {}), *(("explain", *way) for way in WAYS.values())]
    for load in LOADS:
        answers = made_up(max(load, 4), GROUP, 60, load)
        figures = []
        for mode, client_type, settings in ways:
            settings = settings | {"mode": mode, "concurrency": SLOTS}
            times = []
            for _ in range(3 if load < LOADS[-1] else 1):
                flush(url)
                start = time.monotonic()
                work = graded(url, answers, load, client_type=client_type, **settings)
                records = asyncio.run(work)
                times.append((time.monotonic() - start) / len(answers))
            figures.append(f"{statistics.median(times):.3f} ({used(records)[0]:.0f})")
        print(f"| {load} | {' | '.join(figures)} |", flush=True)


# ---- against a stub: how many replies one has to wait for


class Stub:
    """An engine that takes a fixed time for each token that it decodes, whatever the load."""

    LENGTH, SECONDS = 100, 0.1  # of a reply, of a token
    TEXT = '{"explanation": "It does.", "criteria_met": true}'

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        most = body["sampling_params"]["max_new_tokens"]
        decoded = min(most, self.LENGTH)
        await asyncio.sleep(self.SECONDS)  # a prefill takes as long as a token
        if body.get("stream"):
            return await self.streamed(request, decoded)
        await asyncio.sleep(self.SECONDS * max(decoded - 1, 0))
        prompts = body.get("text") or body["input_ids"]
        meta = {"finish_reason": {"type": "stop"}, "prompt_tokens": 1, "completion_tokens": decoded}
        if "top_logprobs_num" in body:
            true, false = map(ChatTokenizer(MODEL).token_id, CHOICES)
            meta["output_top_logprobs"] = [[[-0.1, true, None], [-3.0, false, None]]]
        reply = {"text": self.TEXT, "meta_info": meta}
        if isinstance(prompts, str) or isinstance(prompts[0], int):  # a single one
            return web.json_response(reply)
        names = (f"{body['rid']}_{place}" for place in range(len(prompts)))
        return web.json_response([reply | {"meta_info": meta | {"id": name}} for name in names])

    async def streamed(self, request: web.Request, decoded: int) -> web.StreamResponse:
        """The first token, and after the time of the others all of them."""
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: {}\n\n")
        await asyncio.sleep(self.SECONDS * (decoded - 1))
        meta = {"finish_reason": {"type": "stop"}, "prompt_tokens": 1, "completion_tokens": decoded}
        last = {"text": self.TEXT, "meta_info": meta}
        await response.write(f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode())
        return response

    async def measure(self, load: int, **settings) -> float:
        """The seconds that an answer's grading in explain takes, in units of one reply."""
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/generate", self.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, HOST, 0).start()
        url = f"http://{HOST}:{runner.addresses[0][1]}"
        answers = made_up(load, GROUP, 60, load)
        try:
            records = await graded(url, answers, load, mode="explain", **settings)
        finally:
            await runner.cleanup()
        taken = statistics.fmean(record.seconds for record in records)
        return taken / (self.LENGTH * self.SECONDS)


def depth() -> None:
    """How many replies deep an answer's grading is, for answers and requests in flight."""
    print("\nreplies in a row, explain, against a stub")
    print(f"\n| answers | requests | {' | '.join(WAYS)} |\n|---|---|{'---|' * len(WAYS)}")
    for load in LOADS:
        for requests in (256, 4096):
            figures = []
            for client_type, settings in WAYS.values():
                chosen = settings | {"client_type": client_type, "concurrency": requests}
                taken = asyncio.run(Stub().measure(load, **chosen))
                figures.append(f"{taken:.2f}")
            print(f"| {load} | {requests} | {' | '.join(figures)} |", flush=True)


# ---- how right it is


def accuracy(url: str) -> None:
    """Ordinary and hostile answers to the tiny world's held-out patients."""
    rng = random.Random(0)
    answers: Answers = []
    for row in rows(held_out=True)[:120]:
        pair = pair_of(row)
        answers += [(row, mediocre_answer(rng, pair)), (row, graded_answer(rng, pair))]
    labels = [met for row, answer in answers for met in truth(row.rubric, answer)]
    print(f"\naccuracy against the oracle, {len(labels)} criteria, half of the answers hostile\n")
    print("| mode | accuracy | unreadable | decoded per criterion |\n|---|---|---|---|")
    for name, settings in JUDGED.items():
        records = asyncio.run(graded(url, answers, 64, **settings))
        verdicts = [verdict for record in records for verdict in record.verdicts]
        decoded = used(records)[1] * len(records) / len(labels)
        right = [each.met is label for each, label in zip(verdicts, labels, strict=True)]
        unreadable = statistics.fmean(each.met is None for each in verdicts)
        figures = f"{statistics.fmean(right):.4f} | {unreadable:.2%} | {decoded:.2f}"
        print(f"| {name} | {figures} |", flush=True)


@contextmanager
def engine(url: str) -> Iterator[str]:
    """The address of an engine with the tiny checkpoint, started unless one is named."""
    if url:
        yield url
        return
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        server = start_engine(MODEL, port, folder)
        try:
            url = f"http://{HOST}:{port}"
            wait_healthy(url, server)
            yield url
        finally:
            server.stop()


PARTS = {"tokens": tokens, "seconds": seconds, "depth": depth, "accuracy": accuracy}
RECORDS = "records"  # the part that needs files, and so is no part of all


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="part", help="tokens, seconds, ...; all if none"
    )
    add = parser.add_argument
    add("--url", default="", help="of an engine with the tiny checkpoint, or with --model")
    add("--model", default=MODEL, help="`records`: what that engine serves")
    add("--records", type=Path, help="`records`: JSONL of verdict records")
    add("--template", default="", help="`records`: grader_template of one layout more")
    args = parser.parse_args()
    chosen = args.parts or list(PARTS)
    if unknown := set(chosen) - {*PARTS, RECORDS}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    if RECORDS in chosen:
        if chosen != [RECORDS] or not (args.url and args.records):
            parser.error("records: it stands alone, with --url and --records")
        of_records(args.url, args)
        return
    if chosen == ["depth"]:
        depth()
        return
    with engine(args.url) as url:
        for part in chosen:
            depth() if part == "depth" else PARTS[part](url)


if __name__ == "__main__":
    main()
