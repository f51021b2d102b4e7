"""Where the answers come from that an evaluation grades: a file, or a served policy."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rubric_rl.common.errors import DataError, UserError
from rubric_rl.common.jsonl import read_jsonl_offsets, value_at
from rubric_rl.data.parse import record_from_json
from rubric_rl.data.readers.pieces import known_id
from rubric_rl.data.row_file import RowFile
from rubric_rl.data.schema import Row, TokenCounts
from rubric_rl.evaluation.resume import PolicyClient
from rubric_rl.serving.question import Question


@dataclass(frozen=True)
class Answer:
    """A raw response, thoughts and special tokens included."""

    response: str
    truncated: bool = False  # it was cut at the length limit
    tokens: TokenCounts | None = None  # what it cost, where it was asked for here


class AnswerFile:
    """JSONL of {"prompt_id", "answer"} and optionally "truncated", true or false.

    Lines of the same prompt are its repeats, in order. Records, of an evaluation or a training
    run, are such a file too; one of a resumed run takes the place of an earlier one of the same
    answer. Only offsets are kept in memory.
    """

    def __init__(self, path: str | Path):
        """Raises DataError naming file and line for a line that holds no answer."""
        self.path = Path(path)
        if not self.path.exists():
            hint = "give --answers a JSONL file of prompt_id and answer"
            raise DataError(f"{path}: no such file; {hint}")
        # prompt_id -> what tells its answers apart -> offset of the last line of that answer
        found: dict[str, dict[object, int]] = {}
        for number, offset, item in read_jsonl_offsets(self.path):
            fault = _fault(item)
            if fault:
                raise DataError(f"{path}:{number}: {fault}")
            if item["answer"] is None and item["status"] == "ungraded":
                continue  # the policy failed
            offsets = found.setdefault(_prompt_id(item), {})
            answer: object = offset
            if item.get("index") is not None and _is_record(item):
                # Records of several runs may have the same index.
                answer = (item["index"], hash(item["answer"]))
            offsets[answer] = offset
        self._offsets = {prompt_id: list(own.values()) for prompt_id, own in found.items()}

    @property
    def counts(self) -> Counter[str]:
        """How many answers each prompt_id has."""
        return Counter({prompt_id: len(offsets) for prompt_id, offsets in self._offsets.items()})

    def count(self, prompt_id: str) -> int:
        """How many answers one prompt has."""
        return len(self._offsets.get(prompt_id, ()))

    async def get(self, row: Row, repeat: int, key: str) -> Answer:
        """Answer number `repeat` to this row."""
        with open(self.path, "rb") as file:
            item = value_at(file, self._offsets[row.prompt_id][repeat])
        truncated = item.get("truncated") is True
        if item.get("status") == "truncated":
            truncated = True
        response = item["answer"] or ""
        return Answer(response, truncated)


def _prompt_id(item: dict) -> str:
    """A number as text, as prompts have it; "" for none."""
    return known_id({"prompt_id": item.get("prompt_id")})


def _fault(item: object) -> str:
    """What is wrong with a line, and what to do; "" for an answer."""
    if not isinstance(item, dict) or not _prompt_id(item) or "answer" not in item:
        return 'each line needs {"prompt_id": ..., "answer": ...}; fix the line'
    answer = item["answer"]
    if answer is None and item.get("status") not in ("no_answer", "ungraded"):
        return "answer is null; give its text, or leave the line out"
    if not isinstance(answer, str | None):
        return f"answer is {answer!r:.40}, no text; give its text, or leave the line out"
    truncated = item.get("truncated")
    if not isinstance(truncated, bool | None):
        return f"truncated is {truncated!r:.40}; write true or false"
    return ""


def _is_record(item: dict) -> bool:
    try:
        record_from_json(item)
    except DataError:
        return False
    return True


@dataclass(frozen=True)
class Policy:
    """A served policy that answers prompts, with the client's retries, limits and store."""

    client: PolicyClient

    def warn_of_refused(self, rows: RowFile) -> None:
        """Names on stderr the conversations that the policy's chat template refuses.

        Their answers stay ungraded. Raises UserError when it refuses all.
        """
        refused = []
        for row in rows:
            try:
                messages = list(row.messages)
                self.client.api.check(messages)
            except UserError as error:
                refused.append(f"{row.prompt_id}: {error}")
        if not refused:
            return
        count = len(refused)
        total = len(rows.criteria)
        what = f"{count} of {total} prompts, e.g. {refused[0]}"
        if count == total:
            raise UserError(f"no prompt can be answered: {what}")
        print(f"note: these answers will stay ungraded: {what}", file=sys.stderr)

    async def get(self, row: Row, repeat: int, key: str) -> Answer:
        """Answer number `repeat` to this row. Raises Unavailable as Client.ask does."""
        seed = self.client.endpoint.seed + repeat
        messages = list(row.messages)
        question = Question(messages, seed, routing_key=key)
        reply = await self.client.ask(question)
        tokens = TokenCounts(*reply.counts)
        text = self.client.api.usual_thoughts(reply.text)
        return Answer(text, not reply.complete, tokens)
