"""Asks a served model and gets its reply, or says which kind of failure it was."""

import asyncio
import logging
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from rubric_rl.common.errors import UserError
from rubric_rl.common.plain_text import one_line
from rubric_rl.serving.address import proxy_for, request_url
from rubric_rl.serving.apis import OpenAI, SGLang, check_name, check_places
from rubric_rl.serving.connections import Connections, allow_descriptors, in_words
from rubric_rl.serving.endpoint import GRADER, Endpoint
from rubric_rl.serving.in_flight import InFlight, Limit
from rubric_rl.serving.key import Key, refuse_keys, secrets_of
from rubric_rl.serving.lists import PAUSE, Lists
from rubric_rl.serving.payload import error_in, is_retried, kind_of_refusal, raise_error_in
from rubric_rl.serving.question import (
    Aborted,
    Question,
    Refused,
    Reply,
    Retryable,
    Unavailable,
)
from rubric_rl.serving.wire import decoded, encoded

LOG = logging.getLogger(__name__)
Result = TypeVar("Result")
LONGEST_PAUSE = 120.0  # seconds; a server that asks for more is asked again anyway
LARGEST_REPLY = 2**25  # bytes of a reply, unpacked; a small compressed one can hold gigabytes
LONGEST_HEADER = 100_000  # bytes of one header of a reply, as gateways write them
LONGEST_EXCERPT = 300  # characters of a server's words that are shown ...
LONGEST_READ = 10_000  # ... and read for it, as a page may hold millions
GONE_FOR = 30.0  # seconds in which nothing is sent to an endpoint that was silent for too long
_EVENTS = re.compile(r"^(?:data|event):", re.MULTILINE)  # as servers that stream send them
_USER_NAME = re.compile(r"//[^/\s@]+@")
# Of one attempt; another one may do.
FAILURES = (
    Retryable,
    aiohttp.ClientError,
    TimeoutError,
    ConnectionError,
    UnicodeError,
    RecursionError,  # of what a reply holds, nested too deeply to be shown
)


class Client:
    """A pool of connections to one endpoint, with a limit on requests in flight.

    For one event loop only.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        url: str = "",
        tokenizer: str = "",
        stopped: Callable[[], bool] = lambda: False,
        prefix: str = GRADER,
    ):
        """`url` and `tokenizer` are used where the endpoint leaves its own empty.

        `stopped` says that the rollout aborts; `prefix` is that of the settings' names in errors.
        Raises UserError when no endpoint is named, the tokenizer is unusable, or the key's
        variable is unset.
        """
        self.endpoint = endpoint
        base = (endpoint.url or url).strip()
        if not base:
            hint = f"set {prefix}url, or run inside a rollout that has a router"
            raise UserError(f"no {prefix.rstrip('_')} endpoint: {hint}")
        self._url = request_url(base, endpoint.api, prefix)
        # The router of a run is in the cluster, whatever the environment says of the world.
        self._proxy = proxy_for(self._url) if endpoint.url else None
        self.api: SGLang | OpenAI
        if endpoint.api == "sglang":
            self.api = SGLang(endpoint, tokenizer, prefix)
        else:
            self.api = OpenAI(endpoint, prefix)
        self._key = Key(endpoint.api_key_env, prefix)
        refuse_keys(endpoint.model_dump() | {"url": base}, prefix)
        self._shown_url = self._key.hide(self._url.partition("?")[0])
        self._secrets = [self._key, *secrets_of(self._proxy)]
        self._headers = self._key.headers(self._url) | {"Content-Type": "application/json"}
        self._prefix = prefix
        self._stopped, self._warned = stopped, False
        self._warned_of_reading = False
        # Whether the endpoint reads ahead. If that failed before it ever went well, it is not tried
        # again; later failures may be of one request.
        self._reads_ahead: bool | None = None
        self._lists = Lists()
        allow_descriptors(endpoint.concurrency, prefix)
        self._limit = Limit(endpoint.concurrency)
        self._in_flight = InFlight(stopped, endpoint.timeout)
        self._turns = asyncio.Semaphore(endpoint.concurrency)
        self._asking = 0  # questions that wait for their reply, answers for their verdicts
        self._silent_since = 0.0  # the last response, or when asking began
        self._gone_until = 0.0
        # A request may take its whole time-out, and have another try.
        self._longest_silence = max(endpoint.silence, 1.5 * endpoint.timeout)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        if self._session:
            await self._session.close()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The time in which one answer is asked about: no more of them than `concurrency` have it.

        As each has a request, they fill the limit; more would push each other's prefixes out of
        the engine's cache before they are used.
        """
        self._begin()
        try:
            async with self._turns:
                yield
        finally:
            self._asking -= 1

    def _begin(self) -> None:
        if not self._asking:  # silence is that of an endpoint that is being asked
            self._silent_since = time.monotonic()
        self._asking += 1

    async def ask(self, question: Question) -> Reply:
        """The reply to a question.

        Raises:
            Aborted: the rollout is being aborted.
            Unavailable: refused (4xx), or still failing after `retries` repetitions.
        """
        (reply,) = await self._replies([question])
        return reply

    async def read_ahead(self, question: Question) -> Reply | None:
        """Has the engine read the question's prompt into its cache, and write nothing.

        None where it cannot, after a single try; what is against it is shown once. Raises Aborted.
        """
        if not self.api.reads_ahead or self._reads_ahead is False:
            return None
        try:
            reply = await self.ask(replace(question, only_read=True))
        except Unavailable as error:
            if self._reads_ahead is None and not isinstance(error, Refused):  # of this prompt
                self._reads_ahead = False
            if not self._warned_of_reading:
                self._warned_of_reading = True
                what = "a prompt was not read ahead, and its first reply is waited for"
                LOG.warning("%s: %s", what, error)
            return None
        self._reads_ahead = True
        return reply

    async def ask_together(self, questions: list[Question]) -> list[Reply]:
        """The replies to questions of one routing key: in one request where the endpoint can.

        One that is refused may be so for a single question: then each is asked alone, and so are
        later ones if none was to blame. Raises as `ask` does, for all where one stays without a
        reply.
        """
        refused = False
        if len(questions) > 1 and self._takes_list(questions):
            try:
                return await self._replies(questions)
            except Refused:
                refused = True
        replies = await all_or_none(self.ask(question) for question in questions)
        if refused:
            self._lists.was_refused(questions)
        return replies

    def _takes_list(self, questions: list[Question]) -> bool:
        """Whether these go in one request: no more replies in words than may be in flight."""
        if not self.api.takes_lists:
            return False
        in_words = not questions[0].opening
        if in_words and len(questions) > self.endpoint.concurrency:
            return False
        return self._lists.may_be_sent(questions)

    async def _replies(
        self, questions: list[Question], received: Callable[[int, Reply], None] | None = None
    ) -> list[Reply]:
        """The replies to the questions of one request.

        `received` hears of each at once, with the question's place: those of a list that fails
        later would be lost.
        """
        self._begin()
        try:
            return await self._ask(questions, received)
        except Unavailable as error:
            said = self._excerpt(str(error), LONGEST_EXCERPT + 100)
            raise type(error)(f"{self._shown_url}: {said}") from None
        finally:
            self._asking -= 1

    async def _ask(
        self, questions: list[Question], received: Callable[[int, Reply], None] | None
    ) -> list[Reply]:
        """The same; those that fail are asked again, each alone: they may fail as a list."""
        attempts = 1 if questions[0].only_read else self.endpoint.retries + 1
        replies: dict[int, Reply] = {}  # by the question's place
        failure = await self._attempt(questions, range(len(questions)), replies, received)
        hung = isinstance(failure, TimeoutError)
        if len(questions) > 1:
            if replies:
                self._lists.went_well(questions)
            else:  # to ask each alone is no repetition
                attempts = max(attempts, 2)
        for attempt in range(1, attempts):
            if not failure:
                break
            self._warn_once(failure)
            await self._pause(_pause_seconds(attempt - 1, failure))
            first, *others = (place for place in range(len(questions)) if place not in replies)
            # Not all at once: an endpoint that is gone would be asked so much longer.
            failure = await self._attempt(questions, [first], replies, received)
            if others and not failure:
                if len(replies) == 1 and self._lists.failed(questions, hung):
                    what = f"a list of questions fails: for {PAUSE:g} seconds each is asked alone"
                    LOG.warning("%s: %s", self._shown_url, what)
                again = (self._attempt(questions, [one], replies, received) for one in others)
                failure = next(filter(None, await all_or_none(again)), None)
        if not failure:
            return [replies[place] for place in range(len(questions))]
        if self._stopped():
            raise Aborted
        raise Unavailable(f"{self._described(failure)} ({attempts} attempts)")

    async def _attempt(
        self,
        questions: list[Question],
        places: Sequence[int],
        replies: dict[int, Reply],
        received: Callable[[int, Reply], None] | None,
    ) -> Exception | None:
        """Sends the questions at these places in one request, and adds to the replies.

        What it gives is the last failure that another attempt may cure.
        """
        headers = dict(self._headers)
        if routing_key := questions[0].routing_key:
            headers["X-SMG-Routing-Key"] = quote(routing_key, errors="replace")
        body = self.api.body(*(questions[place] for place in places))
        # What is only read takes a moment, together too; replies in words are written side by side.
        written = 1 if questions[0].opening else len(places)
        try:
            payload = await self._send(body, headers, written)
            parts = _parts(payload, body, len(places))
        except FAILURES as error:
            return error
        failure = None
        for place, part in zip(places, parts, strict=True):
            try:
                reply = replies[place] = self._read(questions[place], part)
            except Retryable as error:
                failure = error
            else:
                if received:
                    received(place, reply)
        return failure

    async def _send(self, body: dict, headers: dict, count: int) -> Any:
        """The decoded JSON of a reply, once so many may be in flight besides the others."""
        async with self._limit.holding(count):
            if self._stopped():
                raise Aborted
            self._check_life()
            try:
                return await self._in_flight.reply(self._post(encoded(body), headers))
            except aiohttp.ClientHttpProxyError as error:
                raise _refused_by(self._proxy, error.status) from None

    def _check_life(self) -> None:
        """Raises Unavailable for an endpoint that has been silent for too long.

        Else each question would wait for a place, and then for its own time-outs.
        """
        now = time.monotonic()
        silent = now - self._silent_since >= self._longest_silence
        if silent:
            self._gone_until, self._silent_since = now + GONE_FOR, now + GONE_FOR
        if silent or now < self._gone_until:
            what = f"no response at all for {self._longest_silence:g} seconds"
            raise Unavailable(f"{what}; is it still running?")

    async def _post(self, body: bytes, headers: dict) -> Any:
        """The decoded JSON of one reply."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None)  # in InFlight is the limit
            # No cookies: a question depends on no other one.
            self._session = aiohttp.ClientSession(
                timeout=timeout,
                connector=Connections(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                max_line_size=LONGEST_HEADER,
                max_field_size=LONGEST_HEADER,
            )
            self._target = URL(self._url, encoded=True)
        request = self._session.post(
            self._target, data=body, headers=headers, proxy=self._proxy, allow_redirects=False
        )
        async with request as response:
            content = await _read_bounded(response)
            # Not before: headers may come at once, and a body never.
            self._silent_since, self._gone_until = time.monotonic(), 0.0
            if response.status >= 300:
                _raise_failure(response, content)
            try:
                return decoded(content)
            except (ValueError, RecursionError):
                words = content.decode(errors="replace") or "empty"
                if _EVENTS.search(words):
                    hint = f'set {self._prefix}extra_body to {{"stream": false}}'
                    words = f"a stream of events, not asked for; {hint}: {words}"
                raise Retryable(f"a reply of unexpected form: {words}") from None

    def _read(self, question: Question, payload: Any) -> Reply:
        try:
            return self.api.reply(question, payload)
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            detail = "a field is missing or of another type"
            if isinstance(error, ValueError):
                detail = str(error)
            elif isinstance(error, KeyError):
                detail = f"no field {error}"
            raise Retryable(f"a reply of unexpected form ({detail})") from None

    def _warn_once(self, failure: Exception) -> None:
        """Shows the first failure: the retries of a wrong URL would take minutes in silence."""
        if self._warned or self._stopped():
            return
        self._warned = True
        again = f"each request is sent again up to {self.endpoint.retries} times"
        LOG.warning("%s: %s; %s", self._shown_url, self._described(failure), again)

    def _described(self, failure: Exception) -> str:
        return self._excerpt(in_words(failure))

    def _excerpt(self, text: str, length: int = LONGEST_EXCERPT) -> str:
        """The beginning of an error page on one line, without a secret, should it be repeated."""
        text = one_line(text[:LONGEST_READ])
        for secret in self._secrets:
            text = secret.hide(text)
        return _USER_NAME.sub("//***@", text)[:length]  # a proxy's, with its password

    async def _pause(self, seconds: float) -> None:
        """Waits in short steps, so that an abort ends it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stopped():
            await asyncio.sleep(min(left, 1.0))


def _parts(payload: Any, body: dict, count: int) -> list:
    """The replies to a request of so many questions, in their order."""
    if count == 1:
        check_name(payload, body)
        return [payload]
    if not isinstance(payload, list):
        raise_error_in(payload)
    if not isinstance(payload, list) or len(payload) != count:
        raise Retryable(f"no list of {count} replies to as many questions")
    check_places(payload, body)
    return payload


async def all_or_none(work: Iterable[Coroutine[None, None, Result]]) -> list[Result]:
    """Results in order; the first failure cancels the others: no request outlives its answer."""
    coroutines = list(work)
    if len(coroutines) < 2:  # no task of its own, which would cost more than to read a reply
        return [await coroutine for coroutine in coroutines]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except* Exception as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


@asynccontextmanager
async def beside(
    work: Coroutine[None, None, Result],
) -> AsyncIterator[asyncio.Task[Result]]:
    """A task that runs beside the body; one that fails cancels it, so that nothing is left over."""
    task = asyncio.create_task(work)
    try:
        yield task
    except BaseException:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


def _raise_failure(response: aiohttp.ClientResponse, content: bytes) -> NoReturn:
    """Raises Retryable or Unavailable, with the server's own words."""
    status, headers = response.status, response.headers
    page = content.decode(errors="replace")
    try:
        found = error_in(decoded(content))
    except (ValueError, RecursionError):
        found = None
    message, again = found or (page, True)
    # A redirect is not followed: another host would get rubric and answer.
    message = headers.get("Location") or message
    wanted = headers.get("x-should-retry")
    if wanted in ("true", "false"):
        again = wanted == "true"
    else:
        again = is_retried(status, message) and again
    told = f"HTTP {status}: {message}" if message else f"HTTP {status}"
    if again:
        pause = headers.get("Retry-After-Ms") or headers.get("Retry-After")
        raise Retryable(told, pause, in_milliseconds="Retry-After-Ms" in headers)
    raise kind_of_refusal(status, told)(told)


def _refused_by(proxy: str | None, status: int) -> Exception:
    """The failure of a request whose proxy opens no way to the endpoint."""
    place = urlsplit(proxy or "").netloc.rpartition("@")[2]  # without a password
    told = f"the proxy {place} opens no way to the endpoint (HTTP {status})"
    return Retryable(told) if is_retried(status) else Unavailable(told)


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    try:
        async for part in response.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > LARGEST_REPLY:
                response.close()
                raise Retryable(f"a reply of more than {LARGEST_REPLY} bytes")
    except aiohttp.ClientPayloadError:
        if response.status < 300:
            raise
        # Of a failure the status tells what to do, whatever became of its page.
    return b"".join(parts)


def _pause_seconds(attempt: int, failure: Exception) -> float:
    """Seconds before the next attempt: what the server asked, else 0.5, 1, 2, ... and jitter."""
    asked = getattr(failure, "retry_after", None)
    if asked is not None:
        return min(max(asked, 0.5), LONGEST_PAUSE)
    return min(0.5 * 2**attempt * random.uniform(0.75, 1.25), LONGEST_PAUSE)
