"""What other ways to ask for the same verdicts cost, of which none is built (docs/grading.md).

python tests/benchmarks/grading_calls.py [--url http://127.0.0.1:30000]
python tests/benchmarks/grading_calls.py --url ... --model DIR --records FILE

One answer after the other, from an empty cache. `prefilled` is uncached prefill, by the engine's
counters: the scoring endpoint tells nothing of its cache. Calls with a reason are read without a
reply, since the tiny model knows no checklists: `decoded` is there the length of a made-up one.

With verdict records and another model: how often verdicts of a checklist that is a list differ from
those of one keyed by number, and from its own with another seed.
"""

import argparse
import json
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from grading import (  # the script beside this one
    CRITERIA,
    MODEL,
    Answers,
    engine,
    flush,
    made_up,
    recorded,
)

from rubric_rl.common.tokenizer import ChatTokenizer
from rubric_rl.cpu.engine import request
from rubric_rl.data.schema import Row
from rubric_rl.grading.prompt import AnswerPrompt, verdict_opening
from rubric_rl.grading.settings import Grading
from rubric_rl.serving.apis import CHOICES, SGLang
from rubric_rl.serving.endpoint import Endpoint
from rubric_rl.serving.question import Question
from rubric_rl.serving.verdict_text import VERDICT_SCHEMA, checklist_schema

ANSWERS = 2
REASON = "It tells the patient to drink water and to see a doctor soon."
VERDICT = {"explanation": REASON, "criteria_met": True}
COUNT = ChatTokenizer(MODEL).count
Probabilities = list[float]
# What a checklist's prompt says of the form, and what it says where its verdicts have keys.
KEYED = {
    'one verdict for each, in their order: {"verdicts": [': 'each verdict by its number: {"1": ',
    ", ...]}": ", ...}",
}


def counted(url: str) -> tuple[float, float]:
    """Uncached prefill and decoded tokens of all requests that the engine has served."""
    with urllib.request.urlopen(f"{url}/metrics") as response:
        lines = response.read().decode().splitlines()
    totals = []
    for name in ("prompt", "cached", "generation"):
        own = [line for line in lines if line.startswith(f"sglang:{name}_tokens_total{{")]
        totals.append(sum(float(line.rpartition(" ")[2]) for line in own))
    return totals[0] - totals[1], totals[2]


class Asker:
    """Asks about answers, and counts its requests."""

    def __init__(self, url: str):
        self.url, self.requests = url, 0
        self.api = SGLang(Endpoint(), MODEL)

    def post(self, path: str, body: dict) -> Any:
        self.requests += 1
        return request(self.url + path, body, timeout=600)

    def prompt(self, row: Row, answer: str, mode: str) -> AnswerPrompt:
        return AnswerPrompt(Grading.of({"mode": mode}), row.messages, answer, self.api.break_up)

    def questions(self, row: Row, answer: str) -> list[Question]:
        """Those of direct mode."""
        prompt, opening = self.prompt(row, answer, "direct"), verdict_opening()
        return [Question(prompt.messages([each]), 0, opening=opening) for each in row.rubric]

    def direct(self, row: Row, answer: str) -> Probabilities:
        """As it is built: the first alone, the others in one request."""
        questions = self.questions(row, answer)
        first = self.post("/generate", self.api.body(questions[0]))
        rest = self.post("/generate", self.api.body(*questions[1:]))
        replies = zip(questions, [first, *rest], strict=True)
        return [self.api.reply(*each).probability or 0.0 for each in replies]

    def score(self, row: Row, answer: str, read_first: bool) -> Probabilities:
        """All in one request to /v1/score; before it, what they share may be read."""
        bodies = [self.api.body(question) for question in self.questions(row, answer)]
        ids = [ChatTokenizer(MODEL).encode(body["text"]) for body in bodies]
        same = [len(set(tokens)) == 1 for tokens in zip(*ids, strict=False)]
        length = same.index(False)
        shared = ids[0][:length]
        if read_first:
            sampling = {"max_new_tokens": 0, "temperature": 1.0}
            self.post("/generate", {"input_ids": shared, "sampling_params": sampling})
        words = [*map(ChatTokenizer(MODEL).token_id, CHOICES)]
        items = [each[length:] for each in ids]
        scoring = {"query": shared, "items": items, "label_token_ids": words}
        scores = self.post("/v1/score", scoring)["scores"]
        return [sum(each[::2]) / sum(each) for each in scores]

    def read(self, row: Row, answer: str, per_call: int) -> Probabilities:
        """The prompts with so many criteria per call, without replies."""
        prompt = self.prompt(row, answer, "checklist" if per_call > 1 else "explain")
        for start in range(0, CRITERIA, per_call):
            criteria = list(row.rubric[start : start + per_call])
            question = Question(prompt.messages(criteria), 0, only_read=True)
            self.post("/generate", self.api.body(question))
        return []


def reply_tokens(per_call: int) -> int:
    """Of the replies about one answer's criteria."""
    if per_call == 1:
        return CRITERIA * COUNT(json.dumps(VERDICT))
    total = 0
    for start in range(0, CRITERIA, per_call):
        verdicts = [VERDICT] * min(per_call, CRITERIA - start)
        total += COUNT(json.dumps({"verdicts": verdicts}))
    return total


def checklist(api: SGLang, url: str, row: Row, answer: str, keyed: bool, seed: int) -> list:
    """The verdicts in a reply about all criteria, None for each that it does not hold."""
    count = len(row.rubric)
    grading = Grading.of({"mode": "checklist"})
    (message,) = AnswerPrompt(grading, row.messages, answer, api.break_up).messages([*row.rubric])
    schema = checklist_schema(count)
    if keyed:
        places = [str(number) for number in range(1, count + 1)]
        content = message["content"]
        for listed, by_number in KEYED.items():
            assert content.count(listed) == 1
            content = content.replace(listed, by_number)
        message = message | {"content": content}
        properties = dict.fromkeys(places, VERDICT_SCHEMA)
        schema = {"type": "object", "properties": properties, "required": places}
        schema["additionalProperties"] = False
    reply = request(url + "/generate", api.body(Question([message], seed, schema)), timeout=3600)
    try:
        found = json.loads(reply["text"])
        items = [found[place] for place in places] if keyed else found["verdicts"]
        return [item["criteria_met"] for item in items]
    except (ValueError, LookupError, TypeError):
        return [None] * count


def compare_checklists(url: str, model: str, answers: Answers) -> None:
    """How many verdicts differ, of those that both ways give."""
    api = SGLang(Endpoint(max_tokens=60 * CRITERIA), model)
    ways = {"a list": (False, 0), "another seed": (False, 1), "keyed by number": (True, 0)}
    said: dict[str, list[bool | None]] = {}
    for name, (keyed, seed) in ways.items():
        with ThreadPoolExecutor(len(answers)) as pool:
            asked = [pool.submit(checklist, api, url, *each, keyed, seed) for each in answers]
            said[name] = [verdict for reply in asked for verdict in reply.result()]
    first = said["a list"]
    print("| | read | met | differ from those of a list |\n|---|---|---|---|")
    for name, verdicts in said.items():
        both = [pair for pair in zip(first, verdicts, strict=True) if None not in pair]
        differ = sum(one is not other for one, other in both)
        read = [verdict for verdict in verdicts if verdict is not None]
        counted = f"{len(read)} of {len(verdicts)} | {sum(read)}"
        print(f"| {name} | {counted} | {differ} of {len(both)} |", flush=True)


def measure(url: str) -> None:
    ways: dict[str, Callable[[Asker, Row, str], Probabilities]] = {"direct": Asker.direct}
    ways["/v1/score, what is shared read first"] = partial(Asker.score, read_first=True)
    made_up_replies = {}
    for per_call in (1, 2, 4, CRITERIA):
        name = f"with a reason, {per_call} a call"
        ways[name] = partial(Asker.read, per_call=per_call)
        made_up_replies[name] = reply_tokens(per_call)
    ways["/v1/score, all at once"] = partial(Asker.score, read_first=False)
    answers = made_up(ANSWERS, 1, 500, 1)
    print(f"tokens per answer, {ANSWERS} answers of 500 words, {CRITERIA} criteria\n")
    print("| | prefilled | decoded | requests | largest gap to direct's probability |")
    print("|---|---|---|---|---|")
    direct: Probabilities = []
    for name, way in ways.items():
        asker = Asker(url)
        flush(url)
        before = counted(url)
        read = [each for answer in answers for each in way(asker, *answer)]
        prefilled, decoded = (now - then for now, then in zip(counted(url), before, strict=True))
        direct = direct or read
        gap = max((abs(one - other) for one, other in zip(read, direct, strict=False)), default=0)
        shown = f"{gap:.1e}" if read else "-"
        written = made_up_replies.get(name, decoded / ANSWERS)
        requests = asker.requests / ANSWERS
        print(f"| {name} | {prefilled / ANSWERS:.0f} | {written:.0f} | {requests:.0f} | {shown} |")
    keyed = {str(number): VERDICT for number in range(1, CRITERIA + 1)}
    print(f"\nthe last reply keyed by number: {COUNT(json.dumps(keyed))} tokens")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="", help="of an engine with the tiny checkpoint")
    parser.add_argument("--model", default="", help="what that engine serves, for --records")
    parser.add_argument("--records", type=Path, help="JSONL of verdict records: compare checklists")
    args = parser.parse_args()
    if args.records:
        compare_checklists(args.url, args.model, recorded(args.records))
        return
    with engine(args.url) as url:
        measure(url)


if __name__ == "__main__":
    main()
