"""What an evaluation grades: rows of a rubric file, and answers from a file or a served policy (stages 1 and 2)."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rubric_rl.data.healthbench import to_row
from rubric_rl.data.schema import Row, row_from_metadata
from rubric_rl.errors import DataError, UserError
from rubric_rl.evaluation.resume import StoringClient
from rubric_rl.grading.endpoints import OpenAI, SGLang
from rubric_rl.grading.record import is_record
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.jsonl import read_jsonl, read_jsonl_offsets


class RowFile:
    """A rubric file: raw HealthBench rows, or those of data_preprocess.py.

    Checked as a whole at the start; then read row by row.
    """

    def __init__(self, path: str, limit: int = 0):
        """With `limit`, that many rows are drawn, the same ones that simple-evals draws.

        Raises DataError for a broken row or a repeated prompt_id.
        """
        self.path, self.criteria = path, {}  # prompt_id -> number of criteria
        for number, row in self._rows():
            if row.prompt_id in self.criteria:
                where = f"{path}:{number}, prompt_id {row.prompt_id}"
                raise DataError(f"{where}: duplicate of an earlier line; leave one of them out")
            self.criteria[row.prompt_id] = len(row.rubric)
        if not self.criteria:
            raise DataError(f"{path}: holds no rows")
        if 0 < limit < len(self.criteria):
            self.keep(set(random.Random(0).sample(list(self.criteria), limit)))

    def keep(self, prompt_ids) -> None:
        """Keeps only the rows with one of these ids."""
        self.criteria = {key: count for key, count in self.criteria.items() if key in prompt_ids}

    def __iter__(self) -> Iterator[Row]:
        return (row for _, row in self._rows() if row.prompt_id in self.criteria)

    def _rows(self) -> Iterator[tuple[int, Row]]:
        for number, item in read_jsonl(self.path):
            where = f"{self.path}:{number}"
            if not isinstance(item, dict):
                raise DataError(
                    f"{where}: not a JSON object; give --rows a file of HealthBench rows"
                )
            yield (
                number,
                row_from_metadata(item["metadata"], where)
                if "metadata" in item
                else to_row(item, where),
            )


@dataclass(frozen=True)
class Answer:
    """A raw response, thoughts and special tokens included; `truncated`: it was cut at the length limit."""

    response: str
    truncated: bool = False
    tokens: dict = field(default_factory=lambda: {"prompt": 0, "cached": 0, "completion": 0})


class AnswerFile:
    """JSONL of {"prompt_id", "answer"} and optionally "truncated"; lines of the same prompt are its repeats, in order.

    Verdict records, of an evaluation or a training run, are such a file too. Only offsets are kept in memory.
    """

    def __init__(self, path: str | Path):
        """Raises DataError naming file and line for a line without prompt_id and answer."""
        self.path = Path(path)
        self._offsets: dict[
            str, dict[int, int]
        ] = {}  # prompt_id -> number of the repeat -> offset of its last line
        if not self.path.is_file():
            raise DataError(
                f"{path}: no such file; give --answers a JSONL file of prompt_id and answer"
            )
        for number, offset, item in read_jsonl_offsets(self.path):
            if (
                not isinstance(item, dict)
                or not isinstance(item.get("prompt_id"), str)
                or not _has_answer(item)
            ):
                raise DataError(
                    f'{path}:{number}: each line needs {{"prompt_id": ..., "answer": ...}}; fix the line'
                )
            if (
                item["answer"] is None and item["status"] == "ungraded"
            ):  # the policy failed: there is no answer
                continue
            offsets = self._offsets.setdefault(item["prompt_id"], {})
            offsets[item["index"] if is_record(item) else len(offsets)] = offset

    @property
    def counts(self) -> Counter:
        """How many answers each prompt_id has."""
        return Counter({prompt_id: len(offsets) for prompt_id, offsets in self._offsets.items()})

    async def get(self, row: Row, repeat: int, key: str) -> Answer:
        """Answer number `repeat` to this row."""
        with self.path.open("rb") as file:
            file.seek(list(self._offsets[row.prompt_id].values())[repeat])
            item = json.loads(file.readline())
        return Answer(
            item["answer"] or "", item.get("truncated") is True or item.get("status") == "truncated"
        )


def _has_answer(item: dict) -> bool:
    answer = item.get("answer", 0)
    return isinstance(answer, str) or (
        answer is None and item.get("status") in ("no_answer", "ungraded")
    )


class _GenerateAnswer(SGLang):
    """SGLang's /generate, asked for an answer to a conversation instead of a verdict."""

    def body(self, content: list[dict], schema: dict, seed: int) -> dict:
        body = super().body("", schema, seed)
        body["sampling_params"].pop("json_schema", None)
        return body | {"text": self._template.render(content, self._settings.thinking)}


class _ChatAnswer(OpenAI):
    """A chat endpoint, asked for an answer to a conversation instead of a verdict."""

    def body(self, content: list[dict], schema: dict, seed: int) -> dict:
        body = super().body("", schema, seed) | {"messages": content}
        body.pop("response_format", None)
        return body | self._settings.extra_body


class Policy(StoringClient):
    """A served policy that answers prompts, with the grader client's retries, limits and store."""

    role = "policy"

    def __init__(self, settings: GraderSettings):
        try:
            super().__init__(settings)
        except UserError as error:  # its flags begin with --policy-
            raise UserError(str(error).replace("grader_", "policy_")) from None
        self._endpoint = (
            _GenerateAnswer(settings, "") if settings.api == "sglang" else _ChatAnswer(settings)
        )

    async def get(self, row: Row, repeat: int, key: str) -> Answer:
        """Answer number `repeat` to this row; raises Unavailable as GraderClient.ask does."""
        reply = await self.ask(list(row.messages), {}, self.settings.seed + repeat, key)
        tokens = {
            "prompt": reply.prompt_tokens,
            "cached": reply.cached_tokens,
            "completion": reply.completion_tokens,
        }
        return Answer(reply.text, not reply.complete, tokens)
