"""Asks a served model one question and gets one reply, or says which kind of failure it was."""

import asyncio
import json
import logging
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp

from rubric_rl.data.schema import TokenCounts
from rubric_rl.errors import UserError
from rubric_rl.grading.prompt import THINK
from rubric_rl.grading.settings import PREFIX, Endpoint
from rubric_rl.tokenizer import ChatTokenizer

LOG = logging.getLogger(__name__)
CHOICES = (" true", " false")  # the two tokens of `direct` mode
MIN_MASS = 0.1  # below this probability of the two together, the model was saying something else
RETRIED_STATUS = {408, 425, 429}  # and every 5xx; any other 4xx fails at once
LONGEST_PAUSE = 120.0  # seconds; a server that asks for more is asked again anyway


class Aborted(Exception):
    """The rollout is being aborted, and its grading with it: there is no verdict."""


class Unavailable(Exception):
    """No reply after all retries, or a refusal (4xx) that no retry can cure."""


class Retryable(Exception):
    """A failure that may pass: the engine aborted, was overloaded, or sent what is no reply."""

    def __init__(self, message: str, retry_after: str | None = None):
        super().__init__(message)
        self.retry_after = _seconds(retry_after.strip()) if retry_after else None


@dataclass(frozen=True)
class Question:
    """What a model is asked: to continue the messages.

    With `opening`, the reply begins with that text, and the probability of CHOICES after it is
    all that is wanted. With `schema`, the reply is JSON of that form.
    """

    messages: list[dict]
    seed: int
    schema: dict | None = None
    opening: str = ""
    routing_key: str = ""  # requests with one key reach the same engine


@dataclass(frozen=True)
class Reply:
    """One reply of an endpoint.

    `probability` is p(true) / (p(true) + p(false)) of the token after the question's opening;
    None where the two together have next to no probability. Raises TypeError for values of
    another type.
    """

    text: str
    complete: bool  # ended by itself, not at the length limit
    probability: float | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    weight_version: str

    def __post_init__(self):
        counts = (self.prompt_tokens, self.cached_tokens, self.completion_tokens)
        if not isinstance(self.text, str):
            raise TypeError(f"text is of type {type(self.text).__name__}")
        for count in counts:
            if not isinstance(count, int):
                raise TypeError(f"a number of tokens is of type {type(count).__name__}")

    @property
    def tokens(self) -> TokenCounts:
        """What the request cost."""
        return TokenCounts(self.prompt_tokens, self.cached_tokens, self.completion_tokens)


class Api(Protocol):
    """A kind of endpoint: how a question becomes a request, and an answer a Reply."""

    path: str

    def body(self, question: Question) -> dict: ...

    def reply(self, question: Question, answer: Any) -> Reply:
        """Raises Retryable when the engine ended the request, Unavailable without logprobs."""
        ...


class SGLang:
    """SGLang's /generate: the chat template is applied here; token probabilities are exact."""

    path = "/generate"

    def __init__(self, endpoint: Endpoint, tokenizer: str):
        self._endpoint = endpoint
        self._template = ChatTokenizer(endpoint.tokenizer or tokenizer)
        rendered = self._template.render([{"role": "user", "content": ""}], endpoint.thinking)
        # Some templates open the thoughts themselves.
        self._thought = THINK if rendered.rstrip().endswith(THINK) else ""
        self._choice_ids: list[int] = []  # looked up when first needed: not every model has them

    def check_choices(self) -> None:
        """Raises UserError for a tokenizer to which a verdict is more than one token."""
        self._choice_ids = [self._template.token_id(text) for text in CHOICES]

    def body(self, question: Question) -> dict:
        endpoint = self._endpoint
        text = self._template.render(question.messages, endpoint.thinking, question.opening)
        if question.opening:
            if not self._choice_ids:
                self.check_choices()
            return {
                "text": text,
                # Read at temperature 1: what is sampled does not matter.
                "sampling_params": {"max_new_tokens": 1, "temperature": 1.0},
                "return_logprob": True,
                "token_ids_logprob": self._choice_ids,
            }
        sampling = {
            "temperature": endpoint.temperature,
            "top_p": endpoint.top_p,
            "top_k": endpoint.top_k,
            "max_new_tokens": endpoint.max_tokens,
            "sampling_seed": question.seed,
        }
        if question.schema and not endpoint.thinking:  # a schema would forbid the thoughts
            sampling["json_schema"] = json.dumps(question.schema)
        return {"text": text, "sampling_params": sampling}

    def reply(self, question: Question, answer: Any) -> Reply:
        meta, probability = answer["meta_info"], None
        complete = _complete(meta["finish_reason"]["type"])
        if question.opening:
            true, false = meta["output_token_ids_logprobs"][0]
            probability = _share(math.exp(true[0]), math.exp(false[0]))
        return Reply(
            text=self._thought + answer["text"],
            complete=complete,
            probability=probability,
            prompt_tokens=meta["prompt_tokens"],
            cached_tokens=meta["cached_tokens"],
            completion_tokens=meta["completion_tokens"],
            weight_version=str(meta.get("weight_version", "")),
        )


class OpenAI:
    """Any OpenAI-compatible chat endpoint.

    For an opening it must continue the last message and return logprobs.
    """

    path = "/v1/chat/completions"

    def __init__(self, endpoint: Endpoint, prefix: str):
        if not endpoint.model:
            what = f"{prefix}api openai needs {prefix}model"
            raise UserError(f"{what}, the name under which the endpoint serves the model")
        self._endpoint, self._prefix = endpoint, prefix

    def body(self, question: Question) -> dict:
        endpoint = self._endpoint
        body: dict = {
            "model": endpoint.model,
            "messages": question.messages,
            "seed": question.seed,
        }
        if question.opening:
            beginning = {"role": "assistant", "content": question.opening}
            body["messages"] = [*question.messages, beginning]
            body |= {"continue_final_message": True, "add_generation_prompt": False}
            body |= {"max_tokens": 1, "temperature": 1.0, "logprobs": True, "top_logprobs": 20}
            return body | endpoint.extra_body
        body |= {
            "max_tokens": endpoint.max_tokens,
            "temperature": endpoint.temperature,
            "top_p": endpoint.top_p,
        }
        if question.schema and not endpoint.thinking:
            form = {"name": "verdict", "schema": question.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body | endpoint.extra_body

    def reply(self, question: Question, answer: Any) -> Reply:
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        metadata = answer.get("metadata") or {}
        return Reply(
            text=choice["message"]["content"] or "",
            complete=_complete(choice["finish_reason"]),
            probability=self._probability(choice) if question.opening else None,
            prompt_tokens=usage.get("prompt_tokens") or 0,
            cached_tokens=details.get("cached_tokens") or 0,
            completion_tokens=usage.get("completion_tokens") or 0,
            weight_version=str(metadata.get("weight_version", "")),
        )

    def _probability(self, choice: dict) -> float | None:
        if not choice.get("logprobs"):
            hint = "the endpoint returns no logprobs; use mode explain"
            raise Unavailable(f"{self._prefix}mode direct: {hint}")
        mass = {"true": 0.0, "false": 0.0}
        for token in choice["logprobs"]["content"][0]["top_logprobs"]:
            word = token["token"].strip()
            if word in mass:
                mass[word] += math.exp(token["logprob"])
        return _share(mass["true"], mass["false"])


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
        prefix: str = PREFIX,
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
                    answer = await self._post(body, headers)
                return self._read(question, answer)
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

    def _read(self, question: Question, answer: Any) -> Reply:
        try:
            return self.api.reply(question, answer)
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


def _seconds(retry_after: str) -> float | None:
    """The pause that a Retry-After header asks for, in seconds or as a date.

    None for a past date or anything else.
    """
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        left = parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return left if left > 0 else None


def _complete(finish_reason: str) -> bool:
    """Whether the reply ended by itself, not at the length limit.

    Raises Retryable when the engine ended it.
    """
    if finish_reason not in ("stop", "length"):
        raise Retryable(f"ended by the engine ({finish_reason})")
    return finish_reason == "stop"


def _share(true: float, false: float) -> float | None:
    """The share of `true`; None when both together are too improbable to be a verdict."""
    mass = true + false
    return true / mass if math.isfinite(mass) and mass >= MIN_MASS else None
