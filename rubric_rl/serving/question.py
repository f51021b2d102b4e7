"""A question to a served model, its reply, and the ways in which there is none."""

import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from rubric_rl.common.tokenizer import THINK, THINK_END, after_thoughts

BLANKS = 20  # so many at the end of a reply that was cut are no indentation


class Aborted(Exception):
    """The rollout is being aborted, and its grading with it: there is no verdict."""


class Unavailable(Exception):
    """No reply after all retries, or a refusal (4xx) that no retry can cure."""


class Refused(Unavailable):
    """A refusal of this very request (REFUSALS of serving.payload): others may be answered."""


class TooLong(Refused):
    """A refusal of a question that does not fit into the model's context."""


class Retryable(Exception):
    """A failure that may pass: the engine aborted, was overloaded, or sent what is no reply."""

    def __init__(self, message: str, retry_after: str | None = None, in_milliseconds: bool = False):
        super().__init__(message)
        pause = _seconds(retry_after.strip()) if retry_after else None
        self.retry_after = pause / 1000 if pause and in_milliseconds else pause


@dataclass(frozen=True)
class Question:
    """What a model is asked: to continue the messages.

    With `opening`, the reply begins with that text, and the probability of CHOICES after it is
    all that is wanted; `thoughtless` says that no thoughts stand before it, also where the model
    thinks. With `schema`, the reply is JSON of that form. With `only_read`, no reply is wanted: the
    engine reads the prompt, and keeps it in its cache.
    """

    messages: list[dict]
    seed: int
    schema: dict | None = None
    opening: str = ""
    routing_key: str = ""  # requests with one key reach the same engine
    thoughtless: bool = False
    only_read: bool = False


@dataclass(frozen=True)
class Reply:
    """One reply of an endpoint.

    `probability` is p(true) / (p(true) + p(false)) of the token after the question's opening, None
    where the two together have next to none; `mass` is p(true) + p(false). `thoughts` and
    `refusal` say that the endpoint sent such a text beside the reply's, `tools` that it sent the
    call of a tool. Raises TypeError for values of another type.
    """

    text: str
    complete: bool  # ended by itself, not at the length limit
    probability: float | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    weight_version: str
    thoughts: bool = False
    refusal: bool = False
    mass: float | None = None
    tools: bool = False

    def __post_init__(self):
        if not isinstance(self.text, str):
            raise TypeError(f"text is of type {type(self.text).__name__}")
        for count in self.counts:
            if not isinstance(count, int):
                raise TypeError(f"a number of tokens is of type {type(count).__name__}")
        for number in (self.probability, self.mass):
            if not isinstance(number, float | int | None):
                raise TypeError(f"a probability is of type {type(number).__name__}")

    @property
    def defect(self) -> str:
        """What a reply without a readable verdict looks like: a key of serving.defects.CURES."""
        if not self.complete:
            blanks = len(self.text) - len(self.text.rstrip())
            if blanks >= BLANKS:
                return "blanks"
            return "cut"
        if self.refusal:
            return "refusal"
        if after_thoughts(self.text).strip():
            return "no verdict"
        if THINK in self.text.rpartition(THINK_END)[2]:
            return "open thoughts"
        if self.tools:
            return "tools"
        return "thoughts" if self.thoughts or self.text.strip() else "empty"

    @property
    def counts(self) -> tuple[int, int, int]:
        """Tokens of the prompt, of these cached, of the reply."""
        return self.prompt_tokens, self.cached_tokens, self.completion_tokens


def _seconds(retry_after: str) -> float | None:
    """The pause that a Retry-After header asks for, in seconds or as a date.

    None for a past date or anything else.
    """
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", retry_after):
        return float(retry_after)
    try:
        left = parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return left if left > 0 else None
