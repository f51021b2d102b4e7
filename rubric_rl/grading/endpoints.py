"""The two kinds of grader endpoint: request bodies, and how replies are read (stage 3, rubric grading)."""

import json
import math
import os
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from rubric_rl.errors import UserError
from rubric_rl.grading.prompt import THINK, verdict_opening
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.tokenizer import ChatTokenizer

CHOICES = (" true", " false")  # the two tokens of `direct` mode
MIN_MASS = (
    0.1  # below this probability of the two choices together, the grader was saying something else
)


class Unavailable(Exception):
    """No reply after all retries, or a refusal (4xx) that no retry can cure: the answer stays ungraded."""


class Retryable(Exception):
    """A failure that may pass: the engine aborted, was overloaded, or sent something that is no reply."""

    def __init__(self, message: str, retry_after: str | None = None):
        super().__init__(message)
        self.retry_after = _seconds(retry_after.strip()) if retry_after else None


@dataclass(frozen=True)
class Reply:
    """One reply of an endpoint.

    `probability` is p(true) / (p(true) + p(false)) of the verdict token, in `direct` mode only; None where the two
    together have next to no probability. Raises TypeError for values of another type.
    """

    text: str
    complete: bool  # ended by itself, not at the length limit
    probability: float | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    weight_version: str

    def __post_init__(self):
        kinds = {"text": str, "prompt_tokens": int, "cached_tokens": int, "completion_tokens": int}
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"{name} is of type {type(getattr(self, name)).__name__}")


class SGLang:
    """SGLang's /generate: the chat template is applied here, and the reply has exact token probabilities."""

    path = "/generate"

    def __init__(self, settings: GraderSettings, tokenizer: str):
        self._settings = settings
        self._template = ChatTokenizer(settings.tokenizer or tokenizer)
        rendered = self._template.render([{"role": "user", "content": ""}], settings.thinking)
        self._thought = (
            THINK if rendered.rstrip().endswith(THINK) else ""
        )  # some templates open the thoughts
        self._choice_ids = (
            [self._template.token_id(text) for text in CHOICES] if settings.mode == "direct" else []
        )

    def body(self, content: str, schema: dict, seed: int) -> dict:
        """The request that asks for the reply to the user message `content`."""
        settings, messages = self._settings, [{"role": "user", "content": content}]
        if settings.mode == "direct":  # read at temperature 1: what is sampled does not matter
            text = self._template.render(messages, settings.thinking, verdict_opening())
            body = {"text": text, "sampling_params": {"max_new_tokens": 1, "temperature": 1.0}}
            return body | {"return_logprob": True, "token_ids_logprob": self._choice_ids}
        sampling = {name: getattr(settings, name) for name in ("temperature", "top_p", "top_k")}
        sampling |= {"max_new_tokens": settings.max_tokens, "sampling_seed": seed}
        if not settings.thinking:  # a schema would forbid the thoughts
            sampling["json_schema"] = json.dumps(schema)
        return {
            "text": self._template.render(messages, settings.thinking),
            "sampling_params": sampling,
        }

    def reply(self, answer: dict) -> Reply:
        """Reads the response body; raises Retryable when the engine aborted the request."""
        meta, probability = answer["meta_info"], None
        complete = _complete(meta["finish_reason"]["type"])
        if self._settings.mode == "direct":
            true, false = (math.exp(entry[0]) for entry in meta["output_token_ids_logprobs"][0])
            probability = _share(true, false)
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
    """Any OpenAI-compatible chat endpoint; for `direct` mode it must continue the last message and return logprobs."""

    path = "/v1/chat/completions"

    def __init__(self, settings: GraderSettings):
        if not settings.model:
            raise UserError(
                "grader_api openai needs grader_model, the name under which the endpoint serves the model"
            )
        self._settings = settings

    def body(self, content: str, schema: dict, seed: int) -> dict:
        """The request that asks for the reply to the user message `content`; `extra_body` goes on top."""
        settings = self._settings
        body: dict = {
            "model": settings.model,
            "messages": [{"role": "user", "content": content}],
            "seed": seed,
        }
        if settings.mode == "direct":
            body["messages"].append({"role": "assistant", "content": verdict_opening()})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
            body |= {"max_tokens": 1, "temperature": 1.0, "logprobs": True, "top_logprobs": 20}
        else:
            body |= {
                "max_tokens": settings.max_tokens,
                "temperature": settings.temperature,
                "top_p": settings.top_p,
            }
            if not settings.thinking:
                form = {"name": "verdict", "schema": schema, "strict": True}
                body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body | settings.extra_body

    def reply(self, answer: dict) -> Reply:
        """Reads the response body.

        Raises Retryable when the engine aborted the request, Unavailable without logprobs in `direct` mode.
        """
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        return Reply(
            text=choice["message"]["content"] or "",
            complete=_complete(choice["finish_reason"]),
            probability=self._probability(choice) if self._settings.mode == "direct" else None,
            prompt_tokens=usage.get("prompt_tokens") or 0,
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
            completion_tokens=usage.get("completion_tokens") or 0,
            weight_version=str((answer.get("metadata") or {}).get("weight_version", "")),
        )

    def _probability(self, choice: dict) -> float | None:
        if not choice.get("logprobs"):
            raise Unavailable(
                "grader_mode direct: the endpoint returns no logprobs; use mode explain"
            )
        mass = dict.fromkeys(("true", "false"), 0.0)
        for token in choice["logprobs"]["content"][0]["top_logprobs"]:
            if token["token"].strip() in mass:
                mass[token["token"].strip()] += math.exp(token["logprob"])
        return _share(mass["true"], mass["false"])


def authorization(variable: str) -> dict:
    """The header with the key that the environment variable holds; raises UserError when it is unset.

    The key is never logged.
    """
    if not variable:
        return {}
    key = os.environ.get(variable, "").strip()
    if not key:  # the message does not repeat the name: someone may have put the key itself there
        raise UserError(
            "grader_api_key_env must name an environment variable that holds the key; it is not set"
        )
    return {"Authorization": f"Bearer {key}"}


def _seconds(retry_after: str) -> float | None:
    """The pause that a Retry-After header asks for, in seconds or as a date; None for a past date or anything else."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        left = parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return left if left > 0 else None


def _complete(finish_reason: str) -> bool:
    """Whether the reply ended by itself, not at the length limit; raises Retryable when the engine ended it."""
    if finish_reason not in ("stop", "length"):
        raise Retryable(f"ended by the engine ({finish_reason})")
    return finish_reason == "stop"


def _share(true: float, false: float) -> float | None:
    """The share of `true`; None when both together are too improbable to be a verdict."""
    mass = true + false
    return true / mass if math.isfinite(mass) and mass >= MIN_MASS else None
