"""A folder that keeps every reply as it comes, so that a killed evaluation can be resumed."""

import fcntl
import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import IO, Any

from rubric_rl.common.errors import DataError, UserError
from rubric_rl.common.jsonl import append_line, private, read_jsonl, write_jsonl
from rubric_rl.data.record_file import FOLDER, OF_EVALUATION, OF_TRAINING
from rubric_rl.data.schema import Record
from rubric_rl.grading.grade import Grader
from rubric_rl.grading.health import CHECK, check, failure_of
from rubric_rl.serving.client import Client
from rubric_rl.serving.question import Question, Reply

SETTINGS, CALLS, CHECKED = "settings.json", "calls.jsonl", "check.json"
RESULTS = f"{FOLDER}/{OF_EVALUATION}"
# Folders of the first form name these too, which mean nothing in an evaluation.
_ONLY_OF_TRAINING = tuple(
    f"{who}.{name}"
    for who in ("grader", "answers.policy")
    for name in ("engine", "teacher", "teacher_share")
)
# How a training run's SAVE_PATH, slime's or ours, is known, and its folder of records.
_MARKS_OF_TRAINING = (
    "latest_checkpointed_iteration.txt",
    "iter_*",
    "rollout/global_dataset_state_dict_*",
    "experiment.json",
    "metrics.jsonl",
    "eval.jsonl",
    "ray.log",
    ".lock",
    OF_TRAINING,
    f"{FOLDER}/{OF_TRAINING}",
)
_KINDS = {"evaluate": "evaluation", "meta_eval": "meta-evaluation"}


class EvaluationFolder:
    """The folder of one evaluation: settings.json, calls.jsonl and the results.

    settings.json says what was asked, calls.jsonl has a line per reply, the results a line per
    answer. An answer is finished when it has a result that is not `ungraded`; only the replies of
    unfinished answers are kept in memory. Use it as a context manager: it locks the folder.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping,
        results: str = RESULTS,
        moved: bool = False,
        most_unreadable: float = 1.0,
    ):
        """`settings` is everything that a result depends on.

        An answer of which more than the share `most_unreadable` of the verdicts could not be read
        is asked about once more, and for as long as that is true of all verdicts. `moved` accepts
        other endpoint URLs than before. Raises UserError when the folder belongs to a run with
        other settings (named in the message), holds something else, or is in use.
        """
        self.folder, self.results = Path(folder), Path(folder) / results
        asked: dict = json.loads(json.dumps(settings))
        self._refuse_what_is_not_ours(asked["kind"])
        self.run = _run_name(asked)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._moved = False  # since the last run
        self._open_files = ExitStack()  # closes the lock last
        try:
            lock = self._open(self.folder / "lock", "w")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check(asked, moved)
            self.again: set[str] = set()  # keys of answers that are asked about once more
            self._sick_results: Counter[str] = Counter()
            self._to_void: list[str] = []
            self.finished = self._finished(most_unreadable)
            self._replies = self._unfinished_replies()
            write_jsonl(self.folder / SETTINGS, [asked])
            self.results.parent.mkdir(mode=0o700, exist_ok=True)
            appending: dict[str, Any] = {"mode": "a+b", "buffering": 0, "opener": private}
            self._calls = self._open(self.folder / CALLS, **appending)
            for answer in self._to_void:
                append_line(self._calls, {"answer": answer, "voided": True})
            self._results = self._open(self.results, **appending)
        except BlockingIOError:
            self._open_files.close()
            hint = "wait for it, or choose another --out"
            raise UserError(f"{self.folder}: in use by another run; {hint}") from None
        except OSError as error:
            self._open_files.close()
            where = error.filename or self.folder
            raise UserError(f"{where}: {error.strerror}; check path, rights and space") from None
        except BaseException:
            self._open_files.close()
            raise

    def __enter__(self) -> "EvaluationFolder":
        return self

    def __exit__(self, *_) -> None:
        self._open_files.close()

    def _open(self, path: Path, mode: str, **how) -> IO:
        return self._open_files.enter_context(open(path, mode, **how))

    def _refuse_what_is_not_ours(self, kind: str) -> None:
        """Raises UserError for a folder with something else in it, before anything is written."""
        hint = "choose another --out"
        for mark in _MARKS_OF_TRAINING:
            for found in self.folder.glob(mark):
                raise UserError(f"{self.folder}: holds a training run ({found.name}); {hint}")
        what = _KINDS[kind]
        if (self.folder / "result.json").exists() and not (self.folder / SETTINGS).exists():
            raise UserError(f"{self.folder}: holds a result.json of something else; {hint}")
        if self.folder.name in (FOLDER, "meta") and (self.folder.parent / SETTINGS).exists():
            raise UserError(f"{self.folder}: belongs to the run in {self.folder.parent}; {hint}")
        before = stored_settings(self.folder).get("kind", kind)
        if before != kind:
            other = f"holds a run of another kind ({_KINDS[before]}, not {what})"
            raise UserError(f"{self.folder}: {other}; {hint}")
        for name in (FOLDER, "meta"):
            for found in sorted((self.folder / name).glob("*")):
                if found == self.results or found.name.startswith((".", "report.")):
                    continue
                raise UserError(f"{found}: no file of this {what}; move it away, or {hint}")

    def _check(self, settings: dict, moved: bool) -> None:
        path = self.folder / SETTINGS
        if path.exists():
            before, now = flat(_only_line(path)), flat(settings)
            for setting in _ONLY_OF_TRAINING:
                before.pop(setting, None)
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
                if not beyond_url:
                    hint += " (the same model at another place: add --moved)"
                what = f"{self.folder}: holds a run with other settings: {shown}"
                raise UserError(f"{what}; {hint}")
            self._moved = bool(changed)

    def _finished(self, most_unreadable: float) -> set[str]:
        """The keys of answers with a result that counts; `again` gets those of a sick grader."""
        finished: set[str] = set()
        counts: dict[str, tuple[int, int]] = {}  # verdicts, those that could not be read
        asked_again: set[str] = set()
        for where, result in _lines(self.results):
            key, status = result.get("key"), result.get("status")
            if not isinstance(key, str) or not isinstance(status, str):
                raise _damaged(where)
            finished.discard(key)  # the last line counts
            asked_again.discard(key)
            if status != "ungraded":
                finished.add(key)
            if result.get("asked_again") is True:
                asked_again.add(key)
            counts[key] = count, bad = _verdict_counts(result)
            if status == "graded" and bad > most_unreadable * count:
                self._sick_results[key] += 1
        verdicts = sum(count for count, _ in counts.values())
        unreadable = sum(count for _, count in counts.values())
        still_sick = unreadable > most_unreadable * verdicts
        for key, (count, bad) in counts.items():
            if bad > most_unreadable * count and (still_sick or key not in asked_again):
                self.again.add(key)
        return finished - self.again

    def _unfinished_replies(self) -> dict[str, list[Reply]]:
        """Question -> its stored replies in order, of answers that are not finished.

        What a grader said before a sick result is left out: a line in calls.jsonl says so once for
        each such result, and what comes after it counts.
        """
        replies = defaultdict(list)
        of_grader = defaultdict(set)  # answer -> questions about it
        voided: Counter[str] = Counter()
        for where, call in _lines(self.folder / CALLS):
            answer, question = call.get("answer"), call.get("question")
            if isinstance(answer, str) and call.get("voided") is True:
                voided[answer] += 1
                for asked in of_grader.pop(answer, ()):
                    replies.pop(asked, None)
                continue
            if not isinstance(answer, str) or not isinstance(question, str):
                raise _damaged(where)
            if answer not in self.finished:
                replies[question].append(_reply(call.get("reply"), where))
                if call.get("role") != PolicyClient.role:
                    of_grader[answer].add(question)
        for answer in self.again:
            if voided[answer] < self._sick_results[answer]:
                self._to_void.append(answer)
                for asked in of_grader.pop(answer, ()):
                    replies.pop(asked, None)
        return replies

    def refuse_others(self, keys: Container[str]) -> None:
        """Raises UserError for a result of another answer than these."""
        for key in self.finished | self.again:
            if key not in keys:
                where = f"{self.results}: the result {key}"
                hint = "restore the file, or choose another --out"
                raise UserError(f"{where} is of no answer that is graded here; {hint}")

    async def check(self, grader: Grader) -> None:
        """Asks the grader its check question, unless it has passed it in this folder.

        Raises UserError when it fails.
        """
        path = self.folder / CHECKED
        sick = bool(self.again) or (path.exists() and not path.stat().st_size)
        if path.exists() and not sick:
            switch = _only_line(path).get("switch")
            sick = not isinstance(switch, dict)  # not what `check` writes there
            grader.client.api.switch = switch if isinstance(switch, dict) else {}
        # Folders of before the check question have replies, but no such file.
        passed = path.exists() or (self.folder / CALLS).stat().st_size
        if passed and not sick and not self._moved:
            return
        record = await check(grader)
        if failure := failure_of(record, grader.grading.most_unreadable):
            raise UserError(failure)
        write_jsonl(path, [record.to_json() | {"switch": grader.client.api.switch}])

    def recall(self, question: str) -> Reply | None:
        """The next stored reply to a question.

        Each is given out once, since what was asked twice has two replies.
        """
        replies = self._replies.get(question)
        return replies.pop(0) if replies else None

    def keep(self, role: str, answer: str, question: str, reply: Reply) -> None:
        """Stores a new reply of the grader or the policy."""
        call = {"role": role, "answer": answer, "question": question, "reply": vars(reply)}
        append_line(self._calls, call)

    def finish(self, key: str, record: Record) -> None:
        """Stores the result of an answer; the next run asks again about an `ungraded` one."""
        record.run, record.time = self.run, round(time.time(), 6)
        asked_again = {"asked_again": True} if key in self.again else {}
        append_line(self._results, {"key": key} | asked_again | record.to_json())
        if record.status == "ungraded":
            self.finished.discard(key)
        else:
            self.finished.add(key)

    def revoke(self, key: str, record: Record, reason: str) -> None:
        """Takes back what a sick grader said of an answer: the next run asks it all that again."""
        (self.folder / CHECKED).write_text("")
        self.finish(key, replace(record, status="ungraded", score=nan, verdicts=[], error=reason))


class StoringClient(Client):
    """A client that asks nothing twice. The routing key must be the folder's key of the answer."""

    store: EvaluationFolder
    role = "grader"  # part of the question: policy and grader may get the same text

    async def ask(self, question: Question) -> Reply:
        """As Client.ask, but from the store where possible."""
        if question.routing_key == CHECK.prompt_id:  # the answer of the day, not to be kept
            return await super().ask(question)
        name = self._name(question)
        reply = self.store.recall(name)
        if reply is None:
            reply = await super().ask(question)
            self.store.keep(self.role, question.routing_key, name, reply)
        return reply

    def _name(self, question: Question) -> str:
        """What tells a question from all others, in 32 digits."""
        parts = [self.role, question.routing_key, question.seed, self._content(question)]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    def _content(self, question: Question) -> object:
        return question.messages[-1]["content"]


class PolicyClient(StoringClient):
    """The same for a policy, which is asked to continue whole conversations."""

    role = "policy"

    def _content(self, question: Question) -> object:
        return question.messages


def stored_lines(results: Path) -> Iterator[dict]:
    """The results of an evaluation's folder as they stand there, also those made anew later."""
    for _, line in _lines(results):
        yield line


def _lines(path: Path) -> Iterator[tuple[str, dict]]:
    """The objects of a file that may not be there yet, each with its place."""
    if not path.exists():
        return
    for number, item in read_jsonl(path, skip_partial=True):
        if not isinstance(item, dict):
            raise _damaged(f"{path}:{number}")
        yield f"{path}:{number}", item


def _verdict_counts(result: dict) -> tuple[int, int]:
    """How many verdicts a result has, and how many of them could not be read."""
    causes, verdicts = result.get("unreadable_causes"), result.get("verdicts")
    if result["status"] == "ungraded" and isinstance(causes, dict) and causes:
        lost = sum(count for count in causes.values() if isinstance(count, int))
        return lost, lost  # what `revoke` took back
    if not isinstance(verdicts, list):
        return 0, 0
    mets = [verdict.get("met") if isinstance(verdict, dict) else verdict for verdict in verdicts]
    return len(mets), mets.count(None)


def _only_line(path: Path) -> dict:
    lines = list(_lines(path))
    if len(lines) != 1:
        raise _damaged(str(path))
    ((_, item),) = lines
    return item


def _reply(item: Any, where: str) -> Reply:
    try:
        return Reply(**item)
    except TypeError:
        raise _damaged(where) from None


def _damaged(where: str) -> DataError:
    hint = "restore the file, or choose another --out"
    return DataError(f"{where}: not what an evaluation writes there; {hint}")


def stored_settings(folder: Path) -> dict:
    """What was asked in an evaluation's or meta-evaluation's folder; {} where none can be read."""
    path = folder / SETTINGS
    if not path.is_file():
        return {}
    try:
        settings = _only_line(path)
    except DataError:
        return {}
    kind = settings.get("kind")
    return settings if isinstance(kind, str) and kind in _KINDS else {}


def _run_name(settings: Mapping) -> str:
    """The run's name in its records: one for the same settings, wherever they are served."""
    asked = {key: value for key, value in flat(settings).items() if not key.endswith(".url")}
    digest = hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=6)
    return f"{settings['kind']}-{digest.hexdigest()}"


def flat(value: object, prefix: str = "") -> dict:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    parts = {}
    for name, item in value.items():
        parts |= flat(item, f"{prefix}.{name}" if prefix else name)
    return parts


def _short(value: object) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 24 else text[:12] + "..."
