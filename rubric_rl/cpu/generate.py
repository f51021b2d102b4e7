"""Requests answers from the engines through the router, with timeouts and bounded retries."""

import asyncio
import hashlib
import json
import math

import aiohttp

from rubric_rl.common.errors import UserError
from rubric_rl.common.plain_text import one_line
from rubric_rl.cpu.samples import Sample
from rubric_rl.serving.payload import is_retried

# A minute in all: on an overloaded machine the router takes a healthy engine for dead for a while.
ATTEMPTS = 9
FIRST_PAUSE = 0.5  # seconds before the second attempt, doubled each time
LONGEST_PAUSE = 16.0


def sampling_seed(*whose: int | str | None) -> int:
    """The seed of one answer (31 bits), by what names it: the run's seed, the answer's number.

    slime gives the answers of a group the seeds rollout_seed + 0, 1, 2, ... in every rollout, so
    that answers to prompts of one length share their noise; these share none.
    """
    text = "/".join(map(str, whose))
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:4]) >> 1


class GenerationFailed(UserError):
    """No answer after all attempts, or a request that the engine refuses.

    The message says where and why.
    """


class NoAnswer(Exception):
    """An attempt failed in a way that another one may not."""


class Generator:
    """Fills samples with answers. One per event loop; close it with `await close()`."""

    def __init__(self, args, tokenizer):
        self.args = args
        self.tokenizer = tokenizer
        self.url = f"http://{args.sglang_router_ip}:{args.sglang_router_port}/generate"
        slots = args.sglang_server_concurrency * args.rollout_num_gpus
        self._slots = asyncio.Semaphore(slots)
        seconds = args.sglang_router_request_timeout_secs
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=10),
            connector=aiohttp.TCPConnector(limit=0),
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def abort(self) -> None:
        """Aborts all requests in the engines, which nobody waits for any more.

        An engine that cannot be reached is skipped.
        """
        everything = {"rid": "", "abort_all": True}
        for url in self.args.rollout_engine_urls:
            try:
                response = await self._session.post(f"{url}/abort_request", json=everything)
                await response.release()
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                continue

    def sampling_params(self) -> dict:
        """The rollout's parameters, as slime sends them."""
        return {
            "temperature": self.args.rollout_temperature,
            "top_p": self.args.rollout_top_p,
            "top_k": self.args.rollout_top_k,
            "max_new_tokens": self.args.rollout_max_response_len,
            "stop": self.args.rollout_stop,
            "stop_token_ids": self.args.rollout_stop_token_ids,
            "skip_special_tokens": self.args.rollout_skip_special_tokens,
            "no_stop_trim": True,
            "spaces_between_special_tokens": False,
        }

    async def generate(self, sample: Sample, params: dict) -> None:
        """Appends one answer to `sample`: tokens, log-probabilities, text, status, weight version.

        Raises:
            GenerationFailed: after ATTEMPTS transport failures (or foreign aborts), or at once for
                a refused request.
        """
        prompt_ids = self.tokenizer.encode(sample.prompt, add_special_tokens=False)
        body = {"input_ids": prompt_ids, "sampling_params": params, "return_logprob": True}
        headers = {}
        if sample.session_id:
            headers["X-SMG-Routing-Key"] = sample.session_id
        async with self._slots:
            reply = await self._ask(body, headers)
        _fill_in(sample, prompt_ids, reply)

    async def _ask(self, body: dict, headers: dict) -> dict:
        """A usable reply, asked for up to ATTEMPTS times."""
        pause = FIRST_PAUSE
        attempt = 1
        while True:
            try:
                return await self._ask_once(body, headers)
            except NoAnswer as failure:
                if attempt == ATTEMPTS:
                    tried = f"gave no answer in {ATTEMPTS} attempts"
                    raise GenerationFailed(f"{self.url} {tried}; the last: {failure}") from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            attempt += 1

    async def _ask_once(self, body: dict, headers: dict) -> dict:
        """A usable reply to one request; raises NoAnswer, or GenerationFailed for a refusal."""
        try:
            async with self._session.post(self.url, json=body, headers=headers) as response:
                status = response.status
                text = await response.text()
        except (
            aiohttp.ClientError,
            TimeoutError,
            ConnectionError,
            ValueError,
            LookupError,
        ) as error:  # the last two: a body in no known encoding
            raise NoAnswer(f"{type(error).__name__} {error}".strip()) from None
        if status >= 400:
            failure = f"HTTP {status} {one_line(text, 300)}"
            if is_retried(status):
                raise NoAnswer(failure)
            raise GenerationFailed(f"{self.url} refused a request: {failure}")
        try:
            reply = json.loads(text)
            return _usable(reply)
        except (ValueError, LookupError, TypeError) as error:
            raise NoAnswer(f"{type(error).__name__} {error}") from None


def _usable(reply) -> dict:
    """The reply; raises ValueError, LookupError or TypeError for one that cannot be a sample."""
    is_object = isinstance(reply, dict)
    if not is_object or not isinstance(reply.get("text"), str):
        raise ValueError("a reply without text")
    meta = reply.get("meta_info")
    if not isinstance(meta, dict) or "finish_reason" not in meta:
        raise ValueError("a reply without meta_info.finish_reason")
    entries = meta.get("output_token_logprobs")
    if not entries:
        raise ValueError("a reply without output_token_logprobs")
    for log_prob, token, *_ in entries:
        if not math.isfinite(log_prob) or not isinstance(token, int):
            raise ValueError("a reply with a log-probability that is not a finite number")
    if meta["finish_reason"]["type"] == "abort":
        raise ValueError("the request was aborted")
    return reply


def _fill_in(sample: Sample, prompt_ids: list[int], reply: dict) -> None:
    meta = reply["meta_info"]
    log_probs = []
    tokens = []
    for log_prob, token, *_ in meta["output_token_logprobs"]:
        log_probs.append(log_prob)
        tokens.append(token)
    sample.tokens = prompt_ids + tokens
    sample.rollout_log_probs = log_probs
    sample.response = reply["text"]
    sample.response_length = len(tokens)
    sample.loss_mask = [1] * len(tokens)
    version = meta.get("weight_version", "")
    sample.weight_versions.append(str(version))
    sample.status = Sample.Status.COMPLETED
    if meta["finish_reason"]["type"] == "length":
        sample.status = Sample.Status.TRUNCATED
