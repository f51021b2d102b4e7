"""The parts of a reply as the services of the field write them."""

import json
import re
from typing import Any

from rubric_rl.serving.question import Refused, Retryable, TooLong, Unavailable

# Codes and types of errors that the same request gets again, as letters alone: some services write
# invalid_api_key, others InvalidApiKey.
_FATAL = (
    "invalidrequest",
    "invalidapikey",
    "authentication",
    "permission",
    "insufficientquota",
    "billing",
    "notfound",
    "contextlength",
    "unsupported",
    "badrequest",
    "unauthorized",
    "forbidden",
    "contentfilter",
)
_PLACES = ("detail", "errors", "base_resp")  # where else than in `error` it may stand
_WORDS = ("message", "msg", "errorMessage", "status_msg", "text")  # where it says what it is
# As some write that there is none.
_NOTHING = ("", "0", "200", "none", "null", "false", "ok", "success")
# And every 5xx; any other 4xx fails at once.
RETRIED_STATUS = {
    408,  # the server waited too long
    409,  # in conflict with another request
    425,  # too early
    429,  # too many
}
# What SGLang says where something between us has sent a request again that it still works on.
_SENT_TWICE = "Duplicate request ID"
# What a server says of a request that is too long or not to its liking.
REFUSALS = {400, 413, 422}
# Of these, the words for a question that is too long: SGLang's, vLLM's, OpenAI's, llama.cpp's.
# Others wait too long, or lack the memory for a context.
_TOO_LONG = re.compile(
    r"(?:exceeds?|longer than|maximum)\b.{0,40}\b(?:context|allowed|input|prompt) "
    r"(?:length|size|window)|context.(?:length|size|window).exceeded"
    r"|\b(?:prompt|input|conversation)(?: \([^)]*\))?(?: is)? too long",
    re.IGNORECASE,
)
# Parts of the names of an ending at a limit of the length.
_CUT = re.compile(
    "length|max_?(?:[a-z]+_)?tokens?|token_limit|context_window_exceeded|^incomplete$"
)
# A model that says nothing at all may end so; any other name may be that of a failure.
ENDED = (
    "",
    "stop",
    "stop_sequence",
    "eos",
    "eos_token",
    "end_turn",
    "tool_calls",
    "function_call",
)
# Parts of the names of other endings.
_FILTERED = re.compile(
    "filter|safety|^block$|block(?:ed|list)|prohibited|recitation|refus|(?<!in)sensitive"
    "|guardrail|^policy$|(?:content|usage)_policy|policy_violation|moderat|spii"
)
_BROKEN = re.compile("abort|(?<!no_)error|cancel|time.?out|resource|fail|overload")


def is_retried(status: int, message: str = "") -> bool:
    """Whether a request that got this HTTP status, and these words, is sent again."""
    return status >= 500 or status in RETRIED_STATUS or _SENT_TWICE in message


def kind_of_refusal(status: int, message: str) -> type[Unavailable]:
    """Which failure it is that a request got this HTTP status, and is not sent again."""
    if status not in REFUSALS:
        return Unavailable
    return TooLong if _TOO_LONG.search(message) else Refused


def error_in(payload: Any) -> tuple[str, bool] | None:
    """(message, whether to send the request again) of an error, as services write it.

    It stands under `error`, also in a list, or a text or an object is one; also with HTTP status
    200. An object that holds no reply is one, whatever it holds.
    """
    if payload and isinstance(payload, str):
        payload = {"error": payload}
    if isinstance(payload, list) and payload and isinstance(payload[0], dict):
        payload = {"choices": payload, "error": payload[0].get("error")}
    if not isinstance(payload, dict):
        return None
    error = payload.get("error")
    if error and _says_nothing(error):
        error = None
    if not error and not payload.get("choices") and "meta_info" not in payload:
        error = next(filter(None, map(payload.get, _PLACES)), payload)
    if not error:
        return None
    fields = error if isinstance(error, dict) else {"message": error}
    codes = (*map(fields.get, ("code", "status", "status_code")), payload.get("code"))
    code = next(filter(None, codes), None)
    message = next(filter(None, map(fields.get, _WORDS)), None)
    message = message or json.dumps(error, ensure_ascii=False)
    kinds = re.sub("[^a-z]", "", f"{code} {fields.get('type')}".lower())
    again = not any(word in kinds for word in _FATAL)
    if re.fullmatch("[45][0-9]{2}", str(code)):
        again = again and is_retried(int(str(code)))
    again = again or _SENT_TWICE in str(message)  # whatever code and type say of it
    return str(message) + (f" ({code})" if code else ""), again


def _says_nothing(error: Any) -> bool:
    values = error.values() if isinstance(error, dict) else [error]
    return all(not value or str(value).strip().lower() in _NOTHING for value in values)


def raise_error_in(payload: Any) -> None:
    """Raises Retryable or Unavailable when the payload is an error."""
    if found := error_in(payload):
        message, again = found
        if again:
            raise Retryable(f"an error in place of a reply: {message}")
        raise Unavailable(f"an error in place of a reply: {message}")


def is_complete(finish_reason: Any, text: str) -> bool:
    """Whether the reply of this text ended by itself; False: at the length limit.

    Services have many names for an ordinary end, or none. Raises Retryable when the engine broke
    it off, or sends nothing and ends it in an unknown way, and Unavailable when a filter withholds
    it: it would do so again.
    """
    why = ""
    if isinstance(finish_reason, dict):  # as SGLang writes it
        why = finish_reason.get("message") or ""
        finish_reason = finish_reason.get("type")
    reason = finish_reason.lower() if isinstance(finish_reason, str) else ""
    if _CUT.search(reason):
        return False
    if _BROKEN.search(reason):
        raise Retryable(f"ended by the engine ({reason}{why and ': '}{why})")
    if _FILTERED.search(reason):
        raise Unavailable(f"the endpoint's filter withholds the reply ({reason})")
    if reason not in ENDED and not text.strip():
        raise Retryable(f"an empty reply that ended otherwise than by itself ({reason[:40]})")
    return True


def text_of(content: Any) -> str:
    """The text of a message's content, which may be a list of parts: thoughts are left out.

    Raises TypeError for anything else.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TypeError(f"content is of type {type(content).__name__}")
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type", "text") in ("text", "output_text"):
            texts.append(text_of(part.get("text")))
    return "".join(texts)


def is_refusal(message: dict) -> bool:
    """Whether a message says that the model refuses, in a field of its own or a part."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    refused = any(isinstance(part, dict) and part.get("type") == "refusal" for part in parts)
    return refused or bool(message.get("refusal"))


def count_of(tokens: Any) -> int:
    """A number of tokens, whatever form it has; 0 where it is none: no verdict depends on it."""
    try:
        return max(int(float(tokens)), 0)
    except (TypeError, ValueError, OverflowError):
        return 0
