"""Requests answers from the engines through the router, with timeouts and bounded retries (stage 2, rollout)."""

import asyncio
import json
import math

import aiohttp

from rubric_rl.cpu.samples import Sample
from rubric_rl.errors import UserError

ATTEMPTS = 9  # a minute in all: on an overloaded machine the router takes a healthy engine for a dead one for a while
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 16.0  # seconds before the second attempt, doubled each time


class GenerationFailed(UserError):
    """No answer after all attempts, or a request that the engine refuses; the message says where and why."""


class Generator:
    """Fills samples with answers. One per event loop; close it with `await close()`."""

    def __init__(self, args, tokenizer):
        self.args = args
        self.tokenizer = tokenizer
        self.url = f"http://{args.sglang_router_ip}:{args.sglang_router_port}"
        self._slots = asyncio.Semaphore(args.sglang_server_concurrency * args.rollout_num_gpus)
        timeout = aiohttp.ClientTimeout(
            total=args.sglang_router_request_timeout_secs, sock_connect=10
        )
        self._session = aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def abort(self) -> None:
        """Aborts all requests in the engines, which nobody waits for any more; an unreachable engine is skipped."""
        for url in self.args.rollout_engine_urls:
            try:
                await (
                    await self._session.post(
                        f"{url}/abort_request", json={"rid": "", "abort_all": True}
                    )
                ).release()
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
        """Appends one answer to `sample`: tokens, log-probabilities, text, status and the weight version that wrote it.

        Raises:
            GenerationFailed: after ATTEMPTS transport failures (or foreign aborts), or at once for a refused request.
        """
        prompt_ids = self.tokenizer.encode(sample.prompt, add_special_tokens=False)
        body = {"input_ids": prompt_ids, "sampling_params": params, "return_logprob": True}
        headers = {"X-SMG-Routing-Key": sample.session_id} if sample.session_id else {}
        async with self._slots:
            reply = await self._ask(body, headers)
        _append(sample, prompt_ids, reply)

    async def _ask(self, body: dict, headers: dict) -> dict:
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE))
            try:
                async with self._session.post(
                    f"{self.url}/generate", json=body, headers=headers
                ) as response:
                    status, text = response.status, await response.text()
                if status < 400:
                    return _checked(json.loads(text))
                failure = f"HTTP {status} {' '.join(text.split())[:300]}"
            except (
                aiohttp.ClientError,
                TimeoutError,
                ConnectionError,
                ValueError,
                LookupError,
                TypeError,
            ) as error:
                status, failure = 0, f"{type(error).__name__} {error}".strip()
            if 400 <= status < 500 and status not in (408, 429):
                raise GenerationFailed(f"{self.url}/generate refused a request: {failure}")
        raise GenerationFailed(
            f"{self.url}/generate gave no answer in {ATTEMPTS} attempts; the last: {failure}"
        )


def _checked(reply) -> dict:
    """The reply; raises ValueError, LookupError or TypeError for one that cannot be a sample."""
    if not isinstance(reply, dict) or not isinstance(reply.get("text"), str):
        raise ValueError("a reply without text")
    meta = reply.get("meta_info")
    if (
        not isinstance(meta, dict)
        or "finish_reason" not in meta
        or not meta.get("output_token_logprobs")
    ):
        raise ValueError("a reply without meta_info.finish_reason or output_token_logprobs")
    if not all(
        math.isfinite(entry[0]) and isinstance(entry[1], int)
        for entry in meta["output_token_logprobs"]
    ):
        raise ValueError("a reply with a log-probability that is not a finite number")
    if meta["finish_reason"]["type"] == "abort":
        raise ValueError("the request was aborted")
    return reply


def _append(sample: Sample, prompt_ids: list[int], reply: dict) -> None:
    meta = reply["meta_info"]
    tokens = [entry[1] for entry in meta["output_token_logprobs"]]
    sample.tokens = prompt_ids + tokens
    sample.rollout_log_probs = [entry[0] for entry in meta["output_token_logprobs"]]
    sample.response = reply["text"]
    sample.response_length = len(tokens)
    sample.loss_mask = [1] * len(tokens)
    sample.weight_versions.append(str(meta.get("weight_version", "")))
    sample.status = (
        Sample.Status.TRUNCATED
        if meta["finish_reason"]["type"] == "length"
        else Sample.Status.COMPLETED
    )
