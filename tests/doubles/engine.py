"""A scripted grader server for tests: speaks SGLang's /generate and OpenAI's chat route, fails on demand (stage 3)."""

import asyncio
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

VERDICT = '{"explanation": "because", "criteria_met": %s}'


@dataclass
class Say:
    """A proper reply. `true` and `false` are the probabilities of the two verdict tokens."""

    text: str = VERDICT % "true"
    reason: str | None = "stop"
    true: float = 0.75
    false: float = 0.25
    seconds: float = 0.0
    meta: dict = field(
        default_factory=dict
    )  # on top of meta_info (SGLang) or of the whole answer (OpenAI)


@dataclass
class Fail:
    """A failure: an HTTP status with a body, or with `reset` a connection that breaks."""

    status: int = 500
    body: str = "no"
    headers: dict = field(default_factory=dict)
    reset: bool = False


def verdict(met: bool) -> Say:
    """A reply that says so in every mode."""
    return Say(VERDICT % str(met).lower(), true=0.9 if met else 0.1, false=0.1 if met else 0.9)


class FakeEngine:
    """Answers by `script`: a list that is used up call by call (its last entry stays), or a function of the prompt."""

    def __init__(self, *script):
        self.script = list(script) or [Say()]
        self.bodies, self.headers, self.finished = [], [], []
        self.in_flight = self.peak = 0

    @property
    def prompts(self) -> list[str]:
        """What the grader was asked, as it stood in the requests."""
        return [
            body["text"] if "text" in body else body["messages"][0]["content"]
            for body in self.bodies
        ]

    async def __aenter__(self) -> "FakeEngine":
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = "http://127.0.0.1:%d" % self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        number = len(self.bodies) - 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            act = self.script[min(number, len(self.script) - 1)]
            act = act(self.prompts[number]) if callable(act) else act
            if isinstance(act, Say):
                await asyncio.sleep(act.seconds)
                self.finished.append(number)
                answer = _generate(act, number) if request.path == "/generate" else _chat(act)
                return web.Response(text=json.dumps(answer), content_type="application/json")
            if act.reset:
                request.transport.abort()
            return web.Response(status=act.status, text=act.body, headers=act.headers)
        finally:
            self.in_flight -= 1


def _generate(say: Say, number: int) -> dict:
    reason = {
        "stop": {"type": "stop", "matched": 3},
        "length": {"type": "length", "length": 1},
        None: None,
    }
    meta = {
        "id": str(number),
        "finish_reason": reason.get(say.reason, {"type": say.reason, "message": ""}),
        "prompt_tokens": 100,
        "cached_tokens": 90 if number else 0,
        "completion_tokens": 7,
        "weight_version": "3",
        "output_token_ids_logprobs": [[[_log(say.true), 1, None], [_log(say.false), 2, None]]],
    }
    return {"text": say.text, "output_ids": [], "meta_info": meta | say.meta}


def _chat(say: Say) -> dict:
    top = [
        {"token": " true", "logprob": _log(say.true)},
        {"token": " false", "logprob": _log(say.false)},
    ]
    choice = {
        "message": {"role": "assistant", "content": say.text},
        "finish_reason": say.reason,
        "logprobs": {"content": [{"token": " true", "logprob": 0.0, "top_logprobs": top}]},
    }
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 90},
    }
    return {"choices": [choice], "usage": usage, "metadata": {"weight_version": "3"}} | say.meta


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -9999.0


def skip_pauses(monkeypatch) -> list[float]:
    """Retries without waiting from now on; the list collects the pauses that were due, in seconds."""
    pauses = []

    async def note(self, seconds):
        pauses.append(seconds)

    monkeypatch.setattr("rubric_rl.grading.client.GraderClient._pause", note)
    return pauses


TEMPLATE = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""


def chat_model(folder: Path, template: str = TEMPLATE) -> str:
    """Makes a model folder with a tokenizer and a ChatML template, as far as a grader client reads one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    trainer = trainers.BpeTrainer(
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["is it true or false"] * 9, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"chat_template": template, "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)
