"""A folder that keeps every reply as it comes, so that a killed evaluation can be resumed (stage 6, evaluation)."""

import fcntl
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from rubric_rl.errors import UserError
from rubric_rl.grading.client import GraderClient
from rubric_rl.grading.endpoints import Reply
from rubric_rl.jsonl import append_line, read_jsonl, write_jsonl

SETTINGS, CALLS = "settings.json", "calls.jsonl"


class Store:
    """Keeps DIR/settings.json (what was asked), DIR/calls.jsonl (a line per reply) and the results (a line per answer).

    An answer is finished when it has a result that is not `ungraded`; only the replies of unfinished answers are kept
    in memory. Use it as a context manager: it locks the folder.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping,
        results: str = "verdicts/verdicts.jsonl",
        moved: bool = False,
    ):
        """`settings` is everything that a result depends on; `moved` accepts other endpoint URLs than before.

        Raises UserError when the folder belongs to a run with other settings (named in the message), or is in use.
        """
        self.folder, self.results = Path(folder), Path(folder) / results
        self.results.parent.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check(json.loads(json.dumps(settings)), moved)
            self.finished = {r["key"] for _, r in _lines(self.results) if r["status"] != "ungraded"}
            self._replies = defaultdict(list)  # question -> its replies in order
            for _, call in _lines(self.folder / CALLS):
                if call["answer"] not in self.finished:
                    self._replies[call["question"]].append(Reply(**call["reply"]))
            self._calls = (self.folder / CALLS).open("a+b", buffering=0)
            self._results = self.results.open("a+b", buffering=0)
        except OSError as error:
            self._lock.close()
            why = f"in use by another run, or not writable ({error.strerror})"
            raise UserError(f"{self.folder}: {why}; choose another --out") from None
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
            changed = [
                key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)
            ]
            beyond_url = [key for key in changed if key.rpartition(".")[2] != "url"]
            if refused := beyond_url if moved else changed:
                shown = "; ".join(
                    f"{key} was {_short(before.get(key))}, is {_short(now.get(key))}"
                    for key in refused
                )
                hint = "choose another --out or the old settings"
                hint += "" if beyond_url else " (the same model at another place: add --moved)"
                raise UserError(f"{self.folder}: holds a run with other settings: {shown}; {hint}")
        write_jsonl(path, [settings])

    def recall(self, question: str) -> Reply | None:
        """The next stored reply to a question; each is given out once, since what was asked twice has two replies."""
        replies = self._replies.get(question)
        return replies.pop(0) if replies else None

    def keep(self, answer: str, question: str, reply: Reply) -> None:
        """Stores a new reply."""
        append_line(self._calls, {"answer": answer, "question": question, "reply": asdict(reply)})

    def finish(self, key: str, record: Mapping) -> None:
        """Stores the result of an answer; the next run asks again about an `ungraded` one."""
        append_line(self._results, {"key": key} | record)
        if record["status"] != "ungraded":
            self.finished.add(key)


class StoringClient(GraderClient):
    """A grader client that asks nothing twice. The routing key must be the store's key of the answer."""

    store: Store
    role = "grader"  # part of the question: policy and grader may get the same text

    async def ask(self, content, schema: dict, seed: int, routing_key: str = "") -> Reply:
        """As GraderClient.ask, but from the store where possible."""
        parts = json.dumps([self.role, routing_key, seed, content]).encode()
        question = hashlib.blake2b(parts, digest_size=16).hexdigest()
        reply = self.store.recall(question)
        if reply is None:
            reply = await super().ask(content, schema, seed, routing_key)
            self.store.keep(routing_key, question, reply)
        return reply


def settings_of(client_settings, left_out: tuple[str, ...] = ()) -> dict:
    """The settings that a reply depends on: not those of transport (retries, speed, the key)."""
    transport = (
        "retries",
        "timeout",
        "concurrency",
        "records",
        "api_key_env",
        "warm_prefix",
        *left_out,
    )
    return {name: value for name, value in asdict(client_settings).items() if name not in transport}


def _lines(path: Path) -> Iterator[tuple[int, dict]]:
    return read_jsonl(path, skip_partial=True) if path.exists() else iter(())


def _flat(value, prefix: str = "") -> dict:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    parts = (_flat(item, f"{prefix}.{name}" if prefix else name) for name, item in value.items())
    return {key: leaf for part in parts for key, leaf in part.items()}


def _short(value) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 24 else text[:12] + "..."
