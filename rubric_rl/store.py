"""A folder in which every answered call is kept as it ends, so that a killed run can go on (stage 6, evaluation)."""

import fcntl
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from rubric_rl.client import GraderClient
from rubric_rl.endpoints import Reply
from rubric_rl.schema import UserError, append_line, read_jsonl, write_jsonl

SETTINGS, CALLS = "settings.json", "calls.jsonl"
_MAY_MOVE = ("url",)  # the last part of a settings key that --moved lets change


class Store:
    """Holds DIR/settings.json (what was asked), DIR/calls.jsonl (a line per reply) and the results (a line per answer).

    An answer is finished when its result stands there and is not `ungraded`; only the replies of unfinished ones are
    held in memory. Use it as a context manager: it locks the folder.
    """

    def __init__(
        self, folder: str | Path, settings: Mapping, results: str = "verdicts/verdicts.jsonl", moved: bool = False
    ):
        """`settings` are all that a result depends on; `moved` accepts other endpoint URLs than before.

        Raises UserError when the folder belongs to a run with other settings, naming them, or is in use.
        """
        self.folder, self.results = Path(folder), Path(folder) / results
        self.results.parent.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check(json.loads(json.dumps(settings)), moved)
            self.finished = {r["key"] for _, r in _lines(self.results) if r["status"] != "ungraded"}
            self._replies = defaultdict(list)  # question -> replies, first to last
            for _, call in _lines(self.folder / CALLS):
                if call["answer"] not in self.finished:
                    self._replies[call["question"]].append(Reply(**call["reply"]))
            self._calls = (self.folder / CALLS).open("a+b", buffering=0)
            self._results = self.results.open("a+b", buffering=0)
        except OSError as error:
            self._lock.close()
            raise UserError(
                f"{self.folder}: in use by another run, or not writable ({error.strerror}); choose another --out"
            ) from None
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_) -> None:
        for file in (self._calls, self._results, self._lock):
            file.close()

    def _check(self, settings: dict, moved: bool) -> None:
        path = self.folder / SETTINGS
        if path.exists():
            (_, old), *_ = read_jsonl(path)
            before, now = _flat(old), _flat(settings)
            differing = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
            if moved:
                differing = [key for key in differing if key.rpartition(".")[2] not in _MAY_MOVE]
            if differing:
                shown = "; ".join(
                    f"{key} was {_short(before.get(key))}, is {_short(now.get(key))}" for key in differing
                )
                only_url = all(key.rpartition(".")[2] in _MAY_MOVE for key in differing)
                hint = " (the same model at another place: add --moved)" if only_url else ""
                raise UserError(
                    f"{self.folder}: holds a run with other settings: {shown}; "
                    f"choose another --out or the old settings{hint}"
                )
        write_jsonl(path, [settings])

    def recall(self, question: str) -> Reply | None:
        """The stored reply to a question, each one once: what was asked twice was answered twice."""
        replies = self._replies.get(question)
        return replies.pop(0) if replies else None

    def keep(self, answer: str, question: str, reply: Reply) -> None:
        """Stores a reply that has just come, in one write."""
        append_line(self._calls, {"answer": answer, "question": question, "reply": asdict(reply)})

    def finish(self, key: str, record: Mapping) -> None:
        """Stores the result of an answer; a result with status `ungraded` is asked for again in the next run."""
        append_line(self._results, {"key": key} | record)
        if record["status"] != "ungraded":
            self.finished.add(key)


class Storing(GraderClient):
    """A grader client that asks nothing twice. The routing key must name the answer as the store does."""

    store: Store
    speaker = "grader"  # tells apart who was asked, should policy and grader get the same text

    async def ask(self, content, schema: dict, seed: int, routing_key: str = "") -> Reply:
        """As GraderClient.ask, from the store where it can."""
        parts = json.dumps([self.speaker, routing_key, seed, content]).encode()
        question = hashlib.blake2b(parts, digest_size=16).hexdigest()
        reply = self.store.recall(question)
        if reply is None:
            reply = await super().ask(content, schema, seed, routing_key)
            self.store.keep(routing_key, question, reply)
        return reply


def settings_of(client_settings, left_out: tuple[str, ...] = ()) -> dict:
    """Of grader settings those that a verdict depends on: not how often, how fast or with which key it is asked."""
    transport = ("retries", "timeout", "concurrency", "records", "api_key_env", "warm_prefix", *left_out)
    return {name: value for name, value in asdict(client_settings).items() if name not in transport}


def file_digest(path: str | Path) -> str:
    """The SHA-256 of a file, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lines(path: Path) -> Iterator[tuple[int, dict]]:
    return read_jsonl(path, skip_partial=True) if path.exists() else iter(())


def _flat(value, prefix: str = "") -> dict:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {
        key: one
        for name, item in value.items()
        for key, one in _flat(item, f"{prefix}.{name}" if prefix else name).items()
    }


def _short(value) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 24 else text[:12] + "..."
