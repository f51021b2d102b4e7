"""Sends one grading request and gets one reply, or says which kind of failure it was (stage 3, rubric grading)."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from urllib.parse import quote

import aiohttp

from rubric_rl.errors import UserError
from rubric_rl.grading.endpoints import OpenAI, Reply, Retryable, SGLang, Unavailable, authorization
from rubric_rl.grading.settings import GraderSettings

LOG = logging.getLogger(__name__)
RETRIED_STATUS = {408, 425, 429}  # and every 5xx; any other 4xx fails at once
LONGEST_PAUSE = 120.0  # seconds; a server that asks for more is asked again anyway


class Aborted(Exception):
    """The rollout is being aborted, and its grading with it: there is no verdict."""


class GraderClient:
    """A pool of connections to one grader endpoint, with a limit on requests in flight. For one event loop only."""

    def __init__(
        self,
        settings: GraderSettings,
        url: str = "",
        tokenizer: str = "",
        stopped: Callable[[], bool] = lambda: False,
    ):
        """`url` and `tokenizer` are used where the settings leave theirs empty; `stopped` says that the rollout aborts.

        Raises UserError when no endpoint is named, the tokenizer is unusable, or the key's variable is unset.
        """
        self.settings = settings
        self._url = (settings.url or url).rstrip("/").removesuffix("/v1")
        if not self._url:
            raise UserError(
                "no grader endpoint: set grader_url, or run inside a rollout that has a router"
            )
        if (
            not self._url.startswith(("http://", "https://")) or "@" in self._url
        ):  # not shown: it may hold a password
            hint = "name the key in grader_api_key_env"
            raise UserError(
                f"grader_url must begin with http:// or https:// and hold no user name; {hint}"
            )
        self._endpoint = (
            SGLang(settings, tokenizer) if settings.api == "sglang" else OpenAI(settings)
        )
        self._headers = authorization(settings.api_key_env)
        self._stopped, self._warned = stopped, False
        self._limit = asyncio.Semaphore(settings.concurrency)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "GraderClient":
        return self

    async def __aexit__(self, *_) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        if self._session:
            await self._session.close()

    async def ask(self, content: str, schema: dict, seed: int, routing_key: str = "") -> Reply:
        """Asks for the reply to the user message `content`; requests with one `routing_key` reach the same engine.

        Raises:
            Aborted: the rollout is being aborted.
            Unavailable: refused (4xx), or still failing after `settings.retries` repetitions.
        """
        body = self._endpoint.body(content, schema, seed)
        headers = self._headers | (
            {"X-SMG-Routing-Key": quote(routing_key, errors="replace")} if routing_key else {}
        )
        attempts = self.settings.retries + 1
        for attempt in range(attempts):
            try:
                async with self._limit:
                    if self._stopped():
                        raise Aborted
                    return await self._post(body, headers)
            except (
                Retryable,
                aiohttp.ClientError,
                TimeoutError,
                ConnectionError,
                UnicodeError,
            ) as error:
                failure = error
            if attempt + 1 < attempts:
                self._warn_once(failure)
                await self._pause(_pause_seconds(attempt, failure))
        if self._stopped():
            raise Aborted
        raise Unavailable(f"{self._described(failure)} ({attempts} attempts)")

    def _warn_once(self, failure: Exception) -> None:
        """Shows the first failure: the retries of a wrong URL would take minutes without a word."""
        if not self._warned and not self._stopped():
            self._warned = True
            retries = self.settings.retries
            LOG.warning(
                "%s; each request is sent again up to %d times", self._described(failure), retries
            )

    def _described(self, failure: Exception) -> str:
        return f"{self._url}: {type(failure).__name__} {self._excerpt(str(failure))}"

    async def _post(self, body: dict, headers: dict) -> Reply:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self.settings.timeout)
            self._session = aiohttp.ClientSession(
                timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
            )
        path = self._endpoint.path
        async with self._session.post(
            self._url + path, json=body, headers=headers, allow_redirects=False
        ) as response:
            if response.status >= 500 or response.status in RETRIED_STATUS:
                raise Retryable(f"HTTP {response.status}", response.headers.get("Retry-After"))
            if (
                response.status >= 300
            ):  # a redirect is not followed: another host would get rubric and answer
                page = response.headers.get("Location") or (await response.read()).decode(
                    errors="replace"
                )
                raise Unavailable(
                    f"{self._url}{path}: HTTP {response.status}: {self._excerpt(page)}"
                )
            try:
                return self._endpoint.reply(await response.json(content_type=None))
            except (
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
                OverflowError,
                RecursionError,
            ) as error:
                raise Retryable(
                    f"a reply of unexpected form ({type(error).__name__} {error})"
                ) from None

    def _excerpt(self, text: str) -> str:
        """The beginning of an error page on one line, without the key, should the server repeat it."""
        for value in self._headers.values():
            text = text.replace(value.removeprefix("Bearer "), "***")
        return " ".join(text[:300].split())

    async def _pause(self, seconds: float) -> None:
        """Waits in short steps, so that an abort ends it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stopped():
            await asyncio.sleep(min(left, 1.0))


def _pause_seconds(attempt: int, failure: Exception) -> float:
    """Seconds before the next attempt: what the server asked for, else 0.5, 1, 2, ... with jitter."""
    asked = getattr(failure, "retry_after", None)
    pause = 0.5 * 2**attempt * random.uniform(0.75, 1.25) if asked is None else max(asked, 0.5)
    return min(pause, LONGEST_PAUSE)
