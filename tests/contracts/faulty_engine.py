"""An engine and its router in one, as far as slime's rollout and the grader use them; it fails on demand (contract)."""

import asyncio
import json
import math
import threading
from collections import Counter

from aiohttp import web

ANSWER = "rest and drink water<|im_end|>"


class FaultyEngine:
    """Serves until the `with` block ends.

    `fault(text, number)` decides about each grading request: None, an HTTP status, "reset", "garbage" or seconds to
    wait; `p(text, number)` is the probability of true.
    """

    def __init__(
        self,
        tokens: list[int],
        fault=lambda text, number: None,
        p=lambda text, number: 0.9 if number % 3 else 0.1,
    ):
        self.tokens, self.fault, self.p = tokens, fault, p
        self.generated = self.graded = self.aborts = 0
        self.keys: Counter[str] = Counter()  # grading requests per routing key
        self._running: set[asyncio.Event] = set()

    def __enter__(self):
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
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
        app.add_routes([web.post("/generate", self._generate), web.post("/abort_request", self._abort),
                        web.get("/workers", self._workers), web.get("/v1/loads", self._loads),
                        web.post("/v1/chat/completions", self._chat),
                        web.get("/{path:.*}", self._info)])  # fmt: skip
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._ready.set()
        await self._end.wait()
        await runner.cleanup()

    async def _workers(self, request):
        return web.json_response({"workers": [{"url": self.url, "is_healthy": True}]})

    async def _info(self, request):
        """What a router asks before it takes an engine in."""
        return web.json_response({"model_path": "policy", "served_model_name": "policy"})

    async def _loads(self, request):
        return web.json_response(
            {"loads": [{"num_running_reqs": len(self._running), "num_waiting_reqs": 0}]}
        )

    async def _abort(self, request):
        self.aborts += 1
        for event in self._running:
            event.set()
        return web.Response(text="ok")

    async def _generate(self, request):
        body = await request.json()
        if "input_ids" in body:
            self.generated += 1
            return web.json_response(
                self._answer(
                    ANSWER, body["input_ids"], {"type": "stop", "matched": self.tokens[-1]}
                )
            )
        self.keys[request.headers.get("X-SMG-Routing-Key", "")] += 1
        number, self.graded = self.graded, self.graded + 1
        fault = self.fault(body["text"], number)
        if fault == "reset":
            request.transport.abort()
        if isinstance(fault, int):
            return web.Response(status=fault, text="fault")
        if fault == "garbage":
            return web.Response(text="<html>not JSON")
        if await self._wait(fault or 0.0):
            return web.json_response(self._answer("", [], {"type": "abort", "message": "Aborted"}))
        p = self.p(body["text"], number)
        answer = self._answer(
            json.dumps({"explanation": "x", "criteria_met": p > 0.5}),
            [],
            {"type": "stop", "matched": 1},
        )
        answer["meta_info"]["output_token_ids_logprobs"] = [
            [[math.log(p), 1, None], [math.log(1 - p), 2, None]]
        ]
        return web.json_response(answer)

    async def _wait(self, seconds: float) -> bool:
        """Whether an abort came within that time."""
        event = asyncio.Event()
        self._running.add(event)
        try:
            await asyncio.wait_for(event.wait(), seconds or 0.001)
            return True
        except TimeoutError:
            return False
        finally:
            self._running.discard(event)

    def _answer(self, text: str, prompt: list[int], reason: dict) -> dict:
        logprobs = [[-0.5, token, None] for token in self.tokens]
        meta = {"id": "1", "finish_reason": reason, "prompt_tokens": len(prompt),
                "completion_tokens": len(self.tokens), "cached_tokens": 0,
                "weight_version": "0", "output_token_logprobs": logprobs}  # fmt: skip
        return {"text": text, "output_ids": self.tokens, "meta_info": meta}

    async def _chat(self, request):
        self.graded += 1
        message = {
            "role": "assistant",
            "content": json.dumps({"explanation": "x", "criteria_met": self.graded % 2 == 0}),
        }
        choice = {"message": message, "finish_reason": "stop"}
        return web.json_response(
            {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 9}}
        )
