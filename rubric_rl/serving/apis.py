"""The two kinds of endpoint: how a question becomes a request, and what comes back a reply.

Each has a `path`, a `body(question)` and a `reply(question, payload)`, which raises Retryable when
the engine ended the request, and Unavailable where no retry can help.
"""

import json
import math
from typing import Any

from rubric_rl.errors import UserError
from rubric_rl.serving.endpoint import Endpoint
from rubric_rl.serving.question import Question, Reply, Retryable, Unavailable
from rubric_rl.tokenizer import THINK, ChatTokenizer

CHOICES = (" true", " false")  # the two tokens after an opening
MIN_MASS = 0.1  # below this probability of the two together, the model was saying something else


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

    def reply(self, question: Question, payload: Any) -> Reply:
        meta, probability = payload["meta_info"], None
        complete = _complete(meta["finish_reason"]["type"])
        if question.opening:
            true, false = meta["output_token_ids_logprobs"][0]
            probability = _share(math.exp(true[0]), math.exp(false[0]))
        return Reply(
            text=self._thought + payload["text"],
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

    def reply(self, question: Question, payload: Any) -> Reply:
        choice, usage = payload["choices"][0], payload.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        metadata = payload.get("metadata") or {}
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
