"""Where the answers come from that an evaluation grades: a file, or a served policy."""

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rubric_rl.common.errors import DataError, UserError
from rubric_rl.common.jsonl import read_jsonl_offsets
from rubric_rl.data.parse import record_from_json
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
    """JSONL of {"prompt_id", "answer"} and optionally "truncated".

    Lines of the same prompt are its repeats, in order. Records, of an evaluation or a training
    run, are such a file too. Only offsets are kept in memory.
    """

    def __init__(self, path: str | Path):
        """Raises DataError naming file and line for a line without prompt_id and answer."""
        self.path = Path(path)
        # prompt_id -> number of the repeat -> offset of its last line
        self._offsets: dict[str, dict[int, int]] = {}
        if not self.path.exists():
            hint = "give --answers a JSONL file of prompt_id and answer"
            raise DataError(f"{path}: no such file; {hint}")
        for number, offset, item in read_jsonl_offsets(self.path):
            if not _is_answer(item):
                wanted = 'each line needs {"prompt_id": ..., "answer": ...}'
                raise DataError(f"{path}:{number}: {wanted}; fix the line")
            if item["answer"] is None and item["status"] == "ungraded":
                continue  # the policy failed: there is no answer
            offsets = self._offsets.setdefault(item["prompt_id"], {})
            # A record of a resumed run replaces an earlier one of the same answer.
            repeat = item["index"] if _is_record(item) else len(offsets)
            offsets[repeat] = offset

    @property
    def counts(self) -> Counter[str]:
        """How many answers each prompt_id has."""
        return Counter({prompt_id: len(offsets) for prompt_id, offsets in self._offsets.items()})

    async def get(self, row: Row, repeat: int, key: str) -> Answer:
        """Answer number `repeat` to this row."""
        offset = list(self._offsets[row.prompt_id].values())[repeat]
        with self.path.open("rb") as file:
            file.seek(offset)
            item = json.loads(file.readline())
        truncated = item.get("truncated") is True or item.get("status") == "truncated"
        return Answer(item["answer"] or "", truncated)


def _is_answer(item: object) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("prompt_id"), str):
        return False
    if "answer" in item and item["answer"] is None:
        return item.get("status") in ("no_answer", "ungraded")
    return isinstance(item.get("answer"), str)


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
        refused = {}
        for row in rows:
            try:
                self.client.api.check(list(row.messages))
            except UserError as error:
                refused[row.prompt_id] = str(error)
        if not refused:
            return
        first, reason = next(iter(refused.items()))
        what = f"{len(refused)} of {len(rows.criteria)} prompts, e.g. {first}: {reason}"
        if len(refused) == len(rows.criteria):
            raise UserError(f"no prompt can be answered: {what}")
        print(f"note: these answers will stay ungraded: {what}", file=sys.stderr)

    async def get(self, row: Row, repeat: int, key: str) -> Answer:
        """Answer number `repeat` to this row. Raises Unavailable as Client.ask does."""
        seed = self.client.endpoint.seed + repeat
        question = Question(list(row.messages), seed, routing_key=key)
        reply = await self.client.ask(question)
        return Answer(reply.text, not reply.complete, TokenCounts(*reply.counts))
