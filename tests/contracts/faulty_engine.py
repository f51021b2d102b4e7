"""An engine and its router in one, as far as slime's rollout and the grader use them.

It fails on demand.
"""

import asyncio
import json
import math
import threading
from collections import Counter
from collections.abc import Callable

from aiohttp import web
from doubles.engine import is_list, questions_in, top_logprobs
from tokenizers import Tokenizer

ANSWER = "rest and drink water<|im_end|>"

# An HTTP status, "reset", "garbage" or seconds to wait.
Fault = int | str | float


def no_fault(text: str, number: int) -> None:
    """Every request is answered at once."""


def mostly_true(text: str, number: int) -> float:
    """Two verdicts of three are true."""
    return 0.9 if number % 3 else 0.1


class FaultyEngine:
    """Serves until the `with` block ends.

    Both functions are given the text of a grader's question and how many came before it. `fault`
    says how the request fails, None if it does not; a request of several questions fails as its
    first. `p` is the probability of true. `model` is the folder of the tokenizer.
    Once so many gradings run at a time as `update_at` says, the weights are updated in their midst.
    """

    def __init__(
        self,
        model: str,
        fault: Callable[[str, int], Fault | None] = no_fault,
        p: Callable[[str, int], float] = mostly_true,
        update_at: int = 0,
    ):
        self.model = model
        tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
        self.tokens = tokenizer.encode(ANSWER, add_special_tokens=False).ids
        self.fault = fault
        self.p = p
        self.update_at = update_at
        self.version = 0  # of the weights
        self.generated = 0
        self.graded = 0
        self.aborts = 0
        self.keys: Counter[str] = Counter()  # a grader's questions per routing key
        self._running: set[asyncio.Event] = set()

    # ---- the server

    def __enter__(self):
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _serve(self):
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self):
        self._end = asyncio.Event()
        app = web.Application(client_max_size=2**26)
        app.add_routes(
            [
                web.post("/generate", self._generate),
                web.post("/abort_request", self._abort),
                web.get("/workers", self._workers),
                web.get("/v1/loads", self._loads),
                web.post("/v1/chat/completions", self._chat),
                web.get("/{path:.*}", self._info),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._ready.set()
        await self._end.wait()
        await runner.cleanup()

    # ---- what slime and a router ask

    async def _workers(self, request):
        return web.json_response({"workers": [{"url": self.url, "is_healthy": True}]})

    async def _info(self, request):
        """What a router asks before it takes an engine in."""
        return web.json_response({"model_path": "policy", "served_model_name": "policy"})

    async def _loads(self, request):
        load = {"num_running_reqs": len(self._running), "num_waiting_reqs": 0}
        return web.json_response({"loads": [load]})

    async def _abort(self, request):
        self.aborts += 1
        self._abort_running()
        return web.Response(text="ok")

    def _abort_running(self) -> None:
        for event in self._running:
            event.set()

    # ---- answers and verdicts

    async def _generate(self, request):
        body = await request.json()
        if "input_ids" in body and not is_list(body):  # slime's; a grader sends texts, or lists
            self.generated += 1
            reason = {"type": "stop", "matched": self.tokens[-1]}
            return web.json_response(self._reply(ANSWER, body["input_ids"], reason))
        questions = questions_in(body, self.model)
        self.keys[request.headers.get("X-SMG-Routing-Key", "")] += len(questions)
        replies = await self._grade(request, questions)
        if isinstance(replies, web.Response):
            return replies
        return web.json_response(replies if is_list(body) else replies[0])

    async def _grade(self, request, questions: list[dict]) -> list[dict] | web.Response:
        """The replies to the questions of a request, or how it fails."""
        first = self.graded
        self.graded += len(questions)
        fault = self.fault(questions[0]["text"], first)
        if fault == "reset":
            request.transport.abort()
            return web.Response()
        if isinstance(fault, int):
            return web.Response(status=fault, text="fault")
        if fault == "garbage":
            return web.Response(text="<html>not JSON")
        seconds = fault if isinstance(fault, float) else 0.001
        if await self._aborted_within(seconds):
            reason = {"type": "abort", "message": "Aborted"}
            return [self._reply("", [], reason) for _ in questions]
        return [self._verdict(question, first + at) for at, question in enumerate(questions)]

    def _verdict(self, question: dict, number: int) -> dict:
        p = self.p(question["text"], number)
        verdict = json.dumps({"explanation": "x", "criteria_met": p > 0.5})
        reply = self._reply(verdict, [], {"type": "stop", "matched": 1})
        if "top_logprobs_num" in question:
            entries = top_logprobs(math.log(p), math.log(1 - p), self.model)
            reply["meta_info"]["output_top_logprobs"] = [entries]
        return reply

    async def _aborted_within(self, seconds: float) -> bool:
        """Whether an abort, or an update of the weights, came within that time."""
        event = asyncio.Event()
        self._running.add(event)
        if self.update_at and len(self._running) >= self.update_at:
            self.update_at = 0
            self.version += 1
            self._abort_running()
        try:
            await asyncio.wait_for(event.wait(), seconds)
            return True
        except TimeoutError:
            return False
        finally:
            self._running.discard(event)

    def _reply(self, text: str, prompt: list[int], reason: dict) -> dict:
        """What SGLang's /generate returns."""
        meta = {
            "id": "1",
            "finish_reason": reason,
            "prompt_tokens": len(prompt),
            "completion_tokens": len(self.tokens),
            "cached_tokens": 0,
            "weight_version": str(self.version),
            "output_token_logprobs": [[-0.5, token, None] for token in self.tokens],
        }
        return {"text": text, "output_ids": self.tokens, "meta_info": meta}

    async def _chat(self, request):
        """A teacher's verdict: every other one is true."""
        self.graded += 1
        verdict = {"explanation": "x", "criteria_met": self.graded % 2 == 0}
        message = {"role": "assistant", "content": json.dumps(verdict)}
        choice = {"message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 9, "completion_tokens": 9}
        return web.json_response({"choices": [choice], "usage": usage})
