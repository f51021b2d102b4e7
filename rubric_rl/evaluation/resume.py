"""A folder that keeps every reply as it comes, so that a killed evaluation can be resumed."""

import fcntl
import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Container, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import IO, Any

from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import append_line, private, write_jsonl
from rubric_rl.data.record_file import FOLDER, OF_EVALUATION, OF_TRAINING
from rubric_rl.data.schema import Record
from rubric_rl.evaluation.stored import (
    ANOTHER,
    EARLIER_URLS,
    KINDS,
    LEFT_URLS,
    RESTORE,
    SETTINGS,
    damaged,
    flat,
    is_url,
    lines,
    only_line,
    run_name,
    stored_settings,
)
from rubric_rl.grading.grade import Grader
from rubric_rl.grading.health import CHECK, check, failure_of
from rubric_rl.grading.prompt import verdict_opening
from rubric_rl.grading.verdict import holds_verdict
from rubric_rl.serving.client import Client
from rubric_rl.serving.key import refuse_keys
from rubric_rl.serving.question import Question, Reply

CALLS = "calls.jsonl"
CHECKED = "check.json"
RESULTS = f"{FOLDER}/{OF_EVALUATION}"
_FOLDERS_OF_RESULTS = (FOLDER, "meta", "generated")
# Folders of the first form name these too, which mean nothing in an evaluation.
_ONLY_OF_TRAINING = (
    "grader.engine",
    "grader.teacher",
    "grader.teacher_share",
    "answers.policy.engine",
    "answers.policy.teacher",
    "answers.policy.teacher_share",
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


@dataclass(frozen=True, slots=True)
class _Result:
    """What a stored result says of its grader."""

    status: str
    asked_again: bool
    verdicts: int
    unreadable: int

    def is_sick(self, most_unreadable: float) -> bool:
        return self.unreadable > most_unreadable * self.verdicts


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
        other settings (named in the message), holds something else, or is in use, and for a
        setting that holds a key.
        """
        self.folder = Path(folder)
        self.results = self.folder / results
        self._settings_file = self.folder / SETTINGS
        self._calls_file = self.folder / CALLS
        self._check_file = self.folder / CHECKED
        as_json = json.dumps(settings)
        asked: dict = json.loads(as_json)  # as it will be read again, without tuples
        refuse_keys(flat(asked))
        self._refuse_what_is_not_ours(asked["kind"])
        self.run = run_name(asked)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._moved = False  # since the last run
        self._earlier_urls: list[str] = []  # where replies of this folder came from before
        self._left_urls: list[str] = []  # the same, once there is a reply from elsewhere
        self.again: set[str] = set()  # keys of answers that are asked about once more
        self._sick_results: Counter[str] = Counter()
        self._to_void: list[str] = []
        try:
            with ExitStack() as self._open_files:  # closes the lock last
                lock = self._open(self.folder / "lock", mode="w")
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._check(asked, moved)
                self.finished = self._finished(most_unreadable)
                self._replies = self._unfinished_replies()
                self._asked = asked
                self._write_settings()
                self.results.parent.mkdir(mode=0o700, exist_ok=True)
                self._calls = self._open_to_append(self._calls_file)
                for answer in self._to_void:
                    voiding = {"answer": answer, "voided": True}
                    append_line(self._calls, voiding)
                self._results = self._open_to_append(self.results)
                self._open_files = self._open_files.pop_all()  # from now on closed by __exit__
        except BlockingIOError:  # another run has the lock
            hint = f"wait for it, or {ANOTHER}"
            raise self._refusal("in use by another run", hint) from None
        except OSError as error:
            where = error.filename or self.folder
            what = f"{where}: {error.strerror}"
            raise UserError(f"{what}; check path, rights and space") from None

    def __enter__(self) -> "EvaluationFolder":
        return self

    def __exit__(self, *_) -> None:
        self._open_files.close()

    def _open_to_append(self, path: Path) -> IO[bytes]:
        return self._open(path, mode="a+b", buffering=0, opener=private)

    def _open(self, path: Path, **how) -> IO:
        return self._open_files.enter_context(open(path, **how))

    def _refuse_what_is_not_ours(self, kind: str) -> None:
        """Raises UserError for a folder with something else in it, before anything is written."""
        folder = self.folder
        for mark in _MARKS_OF_TRAINING:
            for found in folder.glob(mark):
                raise self._refusal(f"holds a training run ({found.name})")
        result = folder / "result.json"
        if result.exists() and not self._settings_file.exists():
            raise self._refusal("holds a result.json of something else")
        parent = folder.parent
        settings_of_parent = parent / SETTINGS
        if folder.name in _FOLDERS_OF_RESULTS and settings_of_parent.exists():
            raise self._refusal(f"belongs to the run in {parent}")
        what = KINDS[kind]
        settings = stored_settings(folder)
        if settings and settings["kind"] != kind:
            other = KINDS[settings["kind"]]
            raise self._refusal(f"holds a run of another kind ({other}, not {what})")
        for name in _FOLDERS_OF_RESULTS:
            results = folder / name
            for found in sorted(results.glob("*")):
                if found == self.results:
                    continue
                if found.name.startswith((".", "report.")):
                    continue
                hint = f"move it away, or {ANOTHER}"
                raise UserError(f"{found}: no file of this {what}; {hint}")

    def _refusal(self, what: str, hint: str = ANOTHER) -> UserError:
        return UserError(f"{self.folder}: {what}; {hint}")

    def _check(self, settings: dict, moved: bool) -> None:
        """Raises UserError where the folder has other settings."""
        if not self._settings_file.exists():
            return
        stored = only_line(self._settings_file)
        earlier = stored.pop(EARLIER_URLS, [])
        left = stored.pop(LEFT_URLS, [])
        before = flat(stored)
        now = flat(settings)
        for setting in _ONLY_OF_TRAINING:
            before.pop(setting, None)
        changed = []
        all_keys = before.keys() | now.keys()
        for key in sorted(all_keys):
            if before.get(key) != now.get(key):
                changed.append(key)
        self._moved = bool(changed)
        beyond_url = [key for key in changed if not is_url(key)]
        refused = beyond_url if moved else changed
        if not refused:
            self._earlier_urls = earlier
            # A URL from which no reply came since the last move has left nothing here.
            urls = left or [str(before.get(key)) for key in changed]
            self._left_urls = [url for url in urls if url not in now.values()]
            return
        differences = []
        for key in refused:
            was = _short(before.get(key))
            value = _short(now.get(key))
            differences.append(f"{key} was {was}, is {value}")
        shown = "; ".join(differences)
        hint = f"{ANOTHER} or the old settings"
        if not beyond_url:
            hint += " (the same model at another place: add --moved)"
        raise self._refusal(f"holds a run with other settings: {shown}", hint)

    def _finished(self, most_unreadable: float) -> set[str]:
        """The keys of answers with a result that counts; `again` gets those of a sick grader."""
        results: dict[str, _Result] = {}  # the last line of an answer counts
        for where, line in lines(self.results):
            key = line.get("key")
            if not isinstance(key, str):
                raise damaged(where)
            result = _result(line, where)
            results[key] = result
            is_graded = result.status == "graded"
            if is_graded and result.is_sick(most_unreadable):
                self._sick_results[key] += 1
        verdicts = unreadable = 0
        for result in results.values():
            verdicts += result.verdicts
            unreadable += result.unreadable
        still_sick = unreadable > most_unreadable * verdicts
        finished: set[str] = set()
        for key, result in results.items():
            second_try = still_sick or not result.asked_again
            if result.is_sick(most_unreadable) and second_try:
                self.again.add(key)
            elif result.status != "ungraded":
                finished.add(key)
        return finished

    def _unfinished_replies(self) -> dict[str, list[Reply]]:
        """Question -> its stored replies in order, of answers that are not finished.

        What a grader said before a sick result is left out: a line in calls.jsonl says so once for
        each such result, and what comes after it counts. So is each of its replies without a
        verdict: a judge that was sick when the run ended may be well again.
        """
        replies = defaultdict(list)
        of_grader = defaultdict(set)  # answer -> questions about it
        voided: Counter[str] = Counter()

        def forget(answer: str) -> None:
            for question in of_grader.pop(answer, ()):
                replies.pop(question, None)

        for where, call in lines(self._calls_file):
            answer = call.get("answer")
            if not isinstance(answer, str):
                raise damaged(where)
            if call.get("voided") is True:
                voided[answer] += 1
                forget(answer)
                continue
            question = call.get("question")
            if not isinstance(question, str):
                raise damaged(where)
            if answer in self.finished:
                continue
            reply = _reply(call.get("reply"), where)
            role = call.get("role")
            if role == StoringClient.role and not holds_verdict(reply):
                continue
            replies[question].append(reply)
            if role != PolicyClient.role:
                of_grader[answer].add(question)
        for answer in self.again:
            if voided[answer] < self._sick_results[answer]:
                self._to_void.append(answer)
                forget(answer)
        return replies

    def refuse_others(self, keys: Container[str]) -> None:
        """Raises UserError for a result of another answer than these."""
        for key in self.finished | self.again:
            if key not in keys:
                what = f"the result {key} is of no answer that is graded here"
                raise UserError(f"{self.results}: {what}; {RESTORE}")

    async def check(self, grader: Grader) -> None:
        """Asks the grader its check question, unless it has passed it in this folder.

        Raises UserError when it fails.
        """
        if self._passed_check(grader) and not self._moved:
            return
        record = await check(grader)
        failure = failure_of(record, grader.grading.most_unreadable)
        if failure:
            raise UserError(failure)
        passed = record.to_json()
        passed["switch"] = grader.client.api.switch
        write_jsonl(self._check_file, [passed])

    def _passed_check(self, grader: Grader) -> bool:
        """Whether no other check is due; the grader gets the switch that the last one found."""
        if self.again:
            return False
        if not self._check_file.exists():
            # Folders of before the check question have replies, but no such file.
            return self._calls_file.stat().st_size > 0
        if not self._check_file.stat().st_size:  # emptied by `revoke`
            return False
        switch = only_line(self._check_file).get("switch")
        is_ours = isinstance(switch, dict)
        grader.client.api.switch = switch if is_ours else {}
        return is_ours

    def recall(self, question: str) -> Reply | None:
        """The next stored reply to a question.

        Each is given out once, since what was asked twice has two replies.
        """
        replies = self._replies.get(question)
        return replies.pop(0) if replies else None

    def put_back(self, question: str, reply: Reply) -> None:
        """Gives a recalled or just kept reply to whoever asks next."""
        self._replies.setdefault(question, []).insert(0, reply)

    def _write_settings(self) -> None:
        """Those of this run, and where it was asked before."""
        urls = {EARLIER_URLS: self._earlier_urls, LEFT_URLS: self._left_urls}
        written = {name: value for name, value in urls.items() if value}
        write_jsonl(self._settings_file, [self._asked | written])

    def keep(self, role: str, answer: str, question: str, reply: Reply) -> None:
        """Stores a new reply of the grader or the policy."""
        call = {
            "role": role,
            "answer": answer,
            "question": question,
            "reply": vars(reply),
        }
        append_line(self._calls, call)
        if self._left_urls:
            self._earlier_urls = list(dict.fromkeys([*self._earlier_urls, *self._left_urls]))
            self._left_urls = []
            self._write_settings()

    def store_result(self, key: str, record: Record) -> None:
        """Stores the result of an answer; the next run asks again about an `ungraded` one."""
        record.run = self.run
        record.time = round(time.time(), 6)
        result: dict = {"key": key}
        if key in self.again:
            result["asked_again"] = True
        result |= record.to_json()
        append_line(self._results, result)
        if record.status == "ungraded":
            self.finished.discard(key)
        else:
            self.finished.add(key)

    def store_other_result(self, key: str, line: Mapping) -> None:
        """Stores a result that is no record; its `status` says what became of it."""
        append_line(self._results, {"key": key, **line})
        self.finished.add(key)

    def revoke(self, key: str, record: Record, reason: str) -> None:
        """Takes back what a sick grader said of an answer: the next run asks it all that again."""
        self._check_file.write_text("")
        nothing = replace(record, status="ungraded", score=nan, verdicts=[], error=reason)
        self.store_result(key, nothing)


class StoringClient(Client):
    """A client that asks for no stored reply. The routing key is the folder's of the answer."""

    store: EvaluationFolder
    role = "grader"  # part of the question: policy and grader may get the same text

    async def _replies(self, questions: list[Question], received=None) -> list[Reply]:
        """As Client's own, for questions asked alone or together, but from the store if it can."""
        of_the_day = questions[0].routing_key == CHECK.prompt_id
        if of_the_day or questions[0].only_read:  # not to be kept
            return await super()._replies(questions)
        names = [self._name(question) for question in questions]
        replies: dict[int, Reply] = {}  # by the question's place
        for place, name in enumerate(names):
            if reply := self.store.recall(name):
                replies[place] = reply
        missing = [place for place in range(len(questions)) if place not in replies]

        def keep(number: int, reply: Reply) -> None:
            place = missing[number]
            self.store.keep(self.role, questions[place].routing_key, names[place], reply)
            replies[place] = reply

        if missing:
            try:
                await super()._replies([questions[place] for place in missing], keep)
            except BaseException:  # the next attempt, with each question alone, finds them again
                for place in sorted(replies, reverse=True):
                    self.store.put_back(names[place], replies[place])
                raise
        return [replies[place] for place in range(len(questions))]

    def _name(self, question: Question) -> str:
        """What tells a question from all others, in 32 digits."""
        content = self._content(question)
        parts = [self.role, question.routing_key, question.seed, content]
        if question.opening not in ("", verdict_opening()):  # a reply that is finished
            parts.append(question.opening)
        if question.thoughtless:  # in `cascade` mode the same is asked with words too
            parts.append("thoughtless")
        text = json.dumps(parts)
        digest = hashlib.blake2b(text.encode(), digest_size=16)
        return digest.hexdigest()

    def _content(self, question: Question) -> object:
        last = question.messages[-1]
        return last["content"]


class PolicyClient(StoringClient):
    """The same for a policy, which is asked to continue whole conversations."""

    role = "policy"

    def _content(self, question: Question) -> object:
        return question.messages


def _result(line: dict, where: str) -> _Result:
    status = line.get("status")
    if not isinstance(status, str):
        raise damaged(where)
    verdicts, unreadable = _verdict_counts(line)
    asked_again = line.get("asked_again") is True
    return _Result(status, asked_again, verdicts, unreadable)


def _verdict_counts(result: dict) -> tuple[int, int]:
    """How many verdicts a result has, and how many of them could not be read."""
    causes = result.get("unreadable_causes")
    is_ungraded = result["status"] == "ungraded"
    if is_ungraded and isinstance(causes, dict) and causes:  # `revoke` took its verdicts back
        taken_back = 0
        for count in causes.values():
            if isinstance(count, int):
                taken_back += count
        return taken_back, taken_back
    verdicts = result.get("verdicts")
    if not isinstance(verdicts, list):
        return 0, 0
    unreadable = 0
    for verdict in verdicts:
        met = verdict  # of the first form
        if isinstance(verdict, dict):
            met = None if verdict.get("finished") is True else verdict.get("met")
        if met is None:
            unreadable += 1
    return len(verdicts), unreadable


def _reply(item: Any, where: str) -> Reply:
    try:
        return Reply(**item)
    except TypeError:
        raise damaged(where) from None


def _short(value: object) -> str:
    if value is None:
        return "unset"
    text = str(value)
    if len(text) <= 24:
        return text
    return text[:12] + "..."
