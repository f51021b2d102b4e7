"""Asks a served model one question and gets one reply, or says which kind of failure it was."""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import aiohttp

from rubric_rl.errors import UserError
from rubric_rl.serving.apis import OpenAI, SGLang
from rubric_rl.serving.endpoint import GRADER, Endpoint
from rubric_rl.serving.question import Aborted, Question, Reply, Retryable, Unavailable

LOG = logging.getLogger(__name__)
RETRIED_STATUS = {408, 425, 429}  # and every 5xx; any other 4xx fails at once
LONGEST_PAUSE = 120.0  # seconds; a server that asks for more is asked again anyway


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
        self._url = (endpoint.url or url).rstrip("/").removesuffix("/v1")
        if not self._url:
            hint = f"set {prefix}url, or run inside a rollout that has a router"
            raise UserError(f"no {prefix.rstrip('_')} endpoint: {hint}")
        # Not shown: it may hold a password.
        if not self._url.startswith(("http://", "https://")) or "@" in self._url:
            what = f"{prefix}url must begin with http:// or https:// and hold no user name"
            raise UserError(f"{what}; name the key in {prefix}api_key_env")
        self.api: SGLang | OpenAI
        if endpoint.api == "sglang":
            self.api = SGLang(endpoint, tokenizer)
        else:
            self.api = OpenAI(endpoint, prefix)
        self._headers = _authorization(endpoint.api_key_env, prefix)
        self._stopped, self._warned = stopped, False
        self._limit = asyncio.Semaphore(endpoint.concurrency)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        if self._session:
            await self._session.close()

    async def ask(self, question: Question) -> Reply:
        """The reply to a question.

        Raises:
            Aborted: the rollout is being aborted.
            Unavailable: refused (4xx), or still failing after `retries` repetitions.
        """
        body = self.api.body(question)
        headers = dict(self._headers)
        if question.routing_key:
            headers["X-SMG-Routing-Key"] = quote(question.routing_key, errors="replace")
        attempts = self.endpoint.retries + 1
        failure: Exception = Unavailable("no attempt was made")
        for attempt in range(attempts):
            if attempt:
                self._warn_once(failure)
                await self._pause(_pause_seconds(attempt - 1, failure))
            try:
                async with self._limit:
                    if self._stopped():
                        raise Aborted
                    payload = await self._post(body, headers)
                return self._read(question, payload)
            except (
                Retryable,
                aiohttp.ClientError,
                TimeoutError,
                ConnectionError,
                UnicodeError,
            ) as error:
                failure = error
        if self._stopped():
            raise Aborted
        raise Unavailable(f"{self._described(failure)} ({attempts} attempts)")

    async def _post(self, body: dict, headers: dict) -> Any:
        """The decoded JSON of one answer."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self.endpoint.timeout)
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
        url = self._url + self.api.path
        request = self._session.post(url, json=body, headers=headers, allow_redirects=False)
        async with request as response:
            if response.status >= 500 or response.status in RETRIED_STATUS:
                raise Retryable(f"HTTP {response.status}", response.headers.get("Retry-After"))
            # A redirect is not followed: another host would get rubric and answer.
            if response.status >= 300:
                page = response.headers.get("Location")
                page = page or (await response.read()).decode(errors="replace")
                raise Unavailable(f"{url}: HTTP {response.status}: {self._excerpt(page)}")
            try:
                return await response.json(content_type=None)
            except (ValueError, LookupError, RecursionError) as error:
                raise _unexpected(error) from None

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
            raise _unexpected(error) from None

    def _warn_once(self, failure: Exception) -> None:
        """Shows the first failure: the retries of a wrong URL would take minutes in silence."""
        if self._warned or self._stopped():
            return
        self._warned = True
        again = f"each request is sent again up to {self.endpoint.retries} times"
        LOG.warning("%s; %s", self._described(failure), again)

    def _described(self, failure: Exception) -> str:
        return f"{self._url}: {type(failure).__name__} {self._excerpt(str(failure))}"

    def _excerpt(self, text: str) -> str:
        """The beginning of an error page on one line, without the key, should it be repeated."""
        for value in self._headers.values():
            text = text.replace(value.removeprefix("Bearer "), "***")
        return " ".join(text[:300].split())

    async def _pause(self, seconds: float) -> None:
        """Waits in short steps, so that an abort ends it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stopped():
            await asyncio.sleep(min(left, 1.0))


def _unexpected(error: Exception) -> Retryable:
    return Retryable(f"a reply of unexpected form ({type(error).__name__} {error})")


def _authorization(variable: str, prefix: str) -> dict:
    """The header with the key that the environment variable holds.

    Raises UserError when it is unset. The key is never logged.
    """
    if not variable:
        return {}
    key = os.environ.get(variable, "").strip()
    if not key:  # the message does not repeat the name: someone may have put the key itself there
        what = f"{prefix}api_key_env must name an environment variable that holds the key"
        raise UserError(f"{what}; it is not set")
    return {"Authorization": f"Bearer {key}"}


def _pause_seconds(attempt: int, failure: Exception) -> float:
    """Seconds before the next attempt: what the server asked, else 0.5, 1, 2, ... and jitter."""
    asked = getattr(failure, "retry_after", None)
    if asked is not None:
        return min(max(asked, 0.5), LONGEST_PAUSE)
    return min(0.5 * 2**attempt * random.uniform(0.75, 1.25), LONGEST_PAUSE)
