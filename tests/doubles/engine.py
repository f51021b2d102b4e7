"""An engine that says and fails what a test wants, over HTTP: it grades, and it answers prompts."""

import asyncio
import itertools
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from aiohttp import web
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from rubric_rl.common.tokenizer import ChatTokenizer
from rubric_rl.grading.health import CHECK
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.serving.apis import CHOICES
from rubric_rl.serving.endpoint import GRADER

VERDICT = '{"explanation": "because", "criteria_met": %s}'


@dataclass
class Say:
    """A proper reply. `true` and `false` are the probabilities of the two verdict tokens."""

    text: str = VERDICT % "true"
    reason: str | None = "stop"
    true: float = 0.75
    false: float = 0.25
    tokens: int = 7
    seconds: float = 0.0
    # on top of meta_info (SGLang) or of the whole answer (OpenAI)
    meta: dict = field(default_factory=dict)

    @property
    def other(self) -> float:
        """The probability of any other token."""
        return 1 - self.true - self.false


@dataclass
class Fail:
    """A failure: an HTTP status with a body, or with `reset` a connection that breaks."""

    status: int = 500
    body: str = "no"
    headers: dict = field(default_factory=dict)
    reset: bool = False


def top_logprobs(true: object, false: object, model: str = "") -> list[list]:
    """SGLang's entries for the two verdict tokens of a model, of `chat_model` if none is named."""
    ids = _verdict_tokens(model)
    return [[true, ids[0], None], [false, ids[1], None]]


@cache
def _verdict_tokens(model: str) -> list[int]:
    if model:
        return [ChatTokenizer(model).token_id(text) for text in CHOICES]
    with tempfile.TemporaryDirectory() as folder:
        return _verdict_tokens(chat_model(Path(folder)))


Act = Say | Fail | Callable[[str], Say | Fail]  # a function gets the prompt


def verdict(met: bool) -> Say:
    """A reply that says so in every mode."""
    text = VERDICT % str(met).lower()
    return Say(text, true=0.9, false=0.1) if met else Say(text, true=0.1, false=0.9)


def varied_answers(seconds: float = 0.0) -> Act:
    """A policy's answers, of one to five tokens in turn."""
    numbers = itertools.count(1)

    def act(prompt: str) -> Say:
        tokens = 1 + next(numbers) % 5
        return Say("word " * tokens, tokens=tokens, seconds=seconds)

    return act


class FakeEngine:
    """Speaks SGLang's /generate and /abort_request and OpenAI's chat route.

    Each question uses up one act of the script, also those that come in one request; the last act
    stays. A list of questions fails as the first of them does; it comes as token ids, whose text is
    known where `model` names the folder. `version` is that of the weights. A check question is
    answered as a healthy grader does, and leaves no trace, unless `checked` is False. Asked how
    likely an answer is, it gives `log_prob` for each token, or fails as `rescore` says.
    """

    def __init__(
        self,
        *script: Act,
        version: str = "3",
        checked: bool = True,
        model: str | None = None,
        reads_ahead: bool = True,
    ):
        self.model, self.reads_ahead = model, reads_ahead
        self.checked = checked
        self.script: list[Act] = list(script) or [Say()]
        self.version = version
        self.bodies: list[dict] = []  # of each question
        self.log_prob: float = -0.5
        self.rescore: Fail | None = None
        self.rescored: list[dict] = []  # the requests that asked how likely an answer is
        self.rescoring = self.peak_of_rescored = 0
        self.read_ahead: list[str] = []  # prompts that no reply was asked for
        self.requests: list[int] = []  # how many questions each request had
        self.headers: list[dict] = []
        self.replied: list[int] = []  # numbers of the requests that got a reply
        self.in_flight = self.peak = self.aborts = 0
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens, once it does."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def prompts(self) -> list[str]:
        """What was asked, as it stood in the requests; "" for token ids."""
        return [_prompt(body) for body in self.bodies]

    @property
    def routing_keys(self) -> list[str | None]:
        """The key of each request that names an engine for it."""
        return [headers.get("X-SMG-Routing-Key") for headers in self.headers]

    async def __aenter__(self) -> "FakeEngine":
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/abort_request", self._abort)
        app.router.add_post("/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_) -> None:
        await self._runner.cleanup()

    async def _abort(self, request: web.Request) -> web.Response:
        self.aborts += 1
        return web.json_response({})

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if "logprob_start_len" in body:
            return await self._rescore(request, body)
        if _sampling(body).get("max_new_tokens") == 0:
            if not self.reads_ahead:
                return web.Response(status=400, text="max_new_tokens must be at least 1")
            self.read_ahead.append(_prompt(body))
            empty = Say("", reason="length", tokens=0)
            return web.json_response(self._reply(request, empty, 0, body))
        first, questions = len(self.bodies), questions_in(body, self.model)
        if self.checked and CHECK.messages[0]["content"] in _prompt(questions[0]):
            replies = [self._reply(request, check_answer(one), 0, one) for one in questions]
            _name_by_place(replies, body)
            return web.json_response(replies if is_list(body) else replies[0])
        self.bodies += questions
        self.requests.append(len(questions))
        self.headers.append(dict(request.headers))
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            replies = []
            for number, question in enumerate(questions, first):
                act = self.script[min(number, len(self.script) - 1)]
                if callable(act):
                    act = act(_prompt(question))
                if isinstance(act, Fail):
                    if act.reset:
                        request.transport.abort()
                    return web.Response(status=act.status, text=act.body, headers=act.headers)
                await asyncio.sleep(act.seconds)
                replies.append(self._reply(request, act, number, question))
            self.replied += range(first, first + len(questions))
            _name_by_place(replies, body)
            return web.json_response(replies if is_list(body) else replies[0])
        finally:
            self.in_flight -= 1

    async def _rescore(self, request: web.Request, body: dict) -> web.StreamResponse:
        self.rescored.append(body)
        self.rescoring += 1
        self.peak_of_rescored = max(self.peak_of_rescored, self.rescoring)
        await asyncio.sleep(0.001)
        self.rescoring -= 1
        if self.rescore:
            return web.Response(status=self.rescore.status, text=self.rescore.body)
        start = body["logprob_start_len"]
        first, *others = body["input_ids"][start:]
        entries = [[None, first, None], *([self.log_prob, token, None] for token in others)]
        say = Say("", reason="length", tokens=0, meta={"input_token_logprobs": entries})
        return web.json_response(self._reply(request, say, 0, {}))

    def _reply(self, request: web.Request, say: Say, number: int, body: dict) -> dict:
        if request.path == "/generate":
            return self._generated(say, number, body)
        return self._chat(say)

    def _generated(self, say: Say, number: int, body: dict) -> dict:
        meta = {
            "id": str(number),
            "finish_reason": _finish_reason(say.reason),
            "prompt_tokens": 100,
            "cached_tokens": 90 if number else 0,
            "completion_tokens": say.tokens,
            "weight_version": self.version,
        }
        if body.get("return_logprob"):
            meta["output_token_logprobs"] = [[-0.5, 7, None]] * say.tokens
        if "top_logprobs_num" in body:
            entries = top_logprobs(_log(say.true), _log(say.false), self.model or "")
            meta["output_top_logprobs"] = [[*entries, [_log(say.other), 0, None]]]
        return {"text": say.text, "output_ids": [], "meta_info": meta | say.meta}

    def _chat(self, say: Say) -> dict:
        top = [
            {"token": " true", "logprob": _log(say.true)},
            {"token": " false", "logprob": _log(say.false)},
            {"token": "Well", "logprob": _log(say.other)},
        ]
        choice = {
            "message": {"role": "assistant", "content": say.text},
            "finish_reason": say.reason,
            "logprobs": {"content": [{"token": " true", "logprob": 0.0, "top_logprobs": top}]},
        }
        usage = {
            "prompt_tokens": 100,
            "completion_tokens": say.tokens,
            "prompt_tokens_details": {"cached_tokens": 90},
        }
        metadata = {"weight_version": self.version}
        return {"choices": [choice], "usage": usage, "metadata": metadata} | say.meta


def check_answer(body: dict) -> Say:
    """What a healthy grader says to the check question, in each mode."""
    prompt = _prompt(body)
    if "Criterion 1:" in prompt:
        verdicts = ", ".join(VERDICT % word for word in ("true", "false"))
        return Say(f'{{"verdicts": [{verdicts}]}}')
    return verdict("codeine" not in prompt)


def _prompt(body: dict) -> str:
    if "text" in body:
        return body["text"]
    if "messages" in body:
        users = [each["content"] for each in body["messages"] if each["role"] == "user"]
        return users[0]
    return ""


def _sampling(body: dict) -> dict:
    """How the reply is sampled, or the first one of a list."""
    sampling = body.get("sampling_params", {})
    return sampling[0] if isinstance(sampling, list) else sampling


def is_list(body: dict) -> bool:
    """Whether a request holds several questions."""
    return isinstance(body.get("text"), list) or isinstance(body.get("input_ids", [0])[0], list)


def questions_in(body: dict, model: str | None) -> list[dict]:
    """The questions of a request, as each would have been asked alone."""
    if not is_list(body):
        return [{key: value for key, value in body.items() if key != "rid"}]
    field = "text" if "text" in body else "input_ids"
    prompts, sampling = body[field], body["sampling_params"]
    if field == "input_ids" and model:
        tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
        field, prompts = "text", tokenizer.decode_batch(prompts, skip_special_tokens=False)
    common = {key: value for key, value in body.items() if key not in ("text", "input_ids", "rid")}
    each = sampling if isinstance(sampling, list) else [sampling] * len(prompts)
    return [
        common | {field: prompt, "sampling_params": own}
        for prompt, own in zip(prompts, each, strict=True)
    ]


def _name_by_place(replies: list[dict], body: dict) -> None:
    """Gives each reply the id that SGLang gives it, unless a test named another."""
    for place, reply in enumerate(replies if "rid" in body else []):
        if reply["meta_info"]["id"].isdigit():
            reply["meta_info"]["id"] = f"{body['rid']}_{place}" if is_list(body) else body["rid"]


def _finish_reason(reason: str | None) -> dict | None:
    if reason == "stop":
        return {"type": "stop", "matched": 3}
    if reason == "length":
        return {"type": "length", "length": 1}
    return {"type": reason, "message": ""} if reason else None


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -9999.0


def grader_settings(**named) -> GraderSettings:
    """Settings by their bare names, whichever group each belongs to."""
    return GraderSettings.load({GRADER + name: value for name, value in named.items()})


def skip_pauses(monkeypatch) -> list[float]:
    """Retries without waiting from now on.

    The list collects the pauses that were due, in seconds.
    """
    pauses = []

    async def note(self, seconds):
        pauses.append(seconds)

    monkeypatch.setattr("rubric_rl.serving.client.Client._pause", note)
    return pauses


TEMPLATE = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""


def chat_model(
    folder: Path, template: str | None = TEMPLATE, trained_on: str = "is it true or false"
) -> str:
    """Makes a model folder with a tokenizer and a chat template, as far as a client reads one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([trained_on] * 9, trainer)
    tokenizer.add_tokens(["<think>", "</think>"])  # as Qwen's are: not special
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"chat_template": template, "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)
