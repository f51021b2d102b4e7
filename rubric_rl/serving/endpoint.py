"""The settings of an endpoint: where a model is served, and how it is asked for a reply."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from rubric_rl.common.errors import UserError
from rubric_rl.common.pydantic_fields import TopK, first_fault

# Fields of a request that are not to be set: their letters.
_REFUSED = {"messages", "apikey", "xapikey", "key", "token", "authorization"}
GRADER = "grader_"  # how the names of most settings begin, in files and in messages


def setting(default: Any, about: str, **rules: Any) -> Any:
    """A field with its explanation, which is also its help on command lines."""
    return Field(default, description=about, **rules)


def transport(default: Any, about: str, **rules: Any) -> Any:
    """A field on which no reply depends: `identity` leaves it out."""
    return setting(default, about, exclude=True, **rules)


def added(default: Any, about: str, **rules: Any) -> Any:
    """A field that older evaluations do not name: at its default `identity` leaves it out."""
    return setting(default, about, json_schema_extra={"added": True}, **rules)


def _request_fields(fields: dict) -> dict:
    try:
        json.dumps(fields, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ValueError("must be an object of JSON, with finite numbers") from None
    for name, value in fields.items():
        # What is read is one reply, whole.
        several = name in ("n", "best_of") and value not in (None, 1)
        breaks = several or (name in ("stream", "echo") and value)
        if breaks or re.sub("[^a-z]", "", str(name).lower()) in _REFUSED:
            raise ValueError(f"must not hold {name}")
    return fields


class Settings(BaseModel):
    """A frozen group of settings; a value of the wrong type or out of range is refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    @classmethod
    def of(cls, values: Mapping[str, Any], prefix: str = GRADER) -> Self:
        """The settings among `values` that belong to this class, by name without the prefix.

        Raises UserError with the prefixed name of the first value that cannot be.
        """
        own = {name: value for name, value in values.items() if name in cls.model_fields}
        try:
            return cls(**own)
        except ValidationError as error:
            field, fault = first_fault(error)
            raise UserError(f"{prefix}{field} {fault}") from None

    def identity(self) -> dict:
        """The settings that a reply depends on: not those of transport, such as retries."""
        said = self.model_dump()
        for name, field in type(self).model_fields.items():
            if field.json_schema_extra and said[name] == field.default:
                del said[name]
        return said


class Endpoint(Settings):
    """Where a model is served, and how it is asked for a reply."""

    api: Literal["sglang", "openai"] = setting("sglang", "sglang or openai")
    url: str = setting("", "base URL, e.g. http://127.0.0.1:30000; empty: the policy's")
    model: str = setting("", "name of the model at an OpenAI-compatible endpoint")
    tokenizer: str = setting(
        "", "folder with tokenizer.json and chat template, for api sglang; empty: the policy's"
    )
    api_key_env: str = transport("", "environment variable that holds the key")
    extra_body: Annotated[dict, AfterValidator(_request_fields)] = setting(
        {}, "further request fields of an OpenAI endpoint, as JSON; null leaves one out"
    )

    thinking: bool = setting(False, "whether the model thinks before it replies")
    temperature: FiniteFloat = setting(0.6, "sampling temperature of the replies", ge=0)
    top_p: FiniteFloat = setting(0.95, "nucleus of the replies", gt=0, le=1)
    top_k: TopK = setting(20, "top-k of the replies (api sglang only); -1: all tokens")
    max_tokens: int = setting(1024, "length limit of one reply, thoughts included", ge=1)
    seed: int = setting(0, "sampling seed")

    retries: int = transport(
        4, "how often a failed request is sent again before the answer is left ungraded", ge=0
    )
    timeout: FiniteFloat = transport(300.0, "seconds for one request", gt=0)
    silence: FiniteFloat = transport(
        600.0,
        "seconds without any response after which the endpoint counts as gone; at least "
        "1.5 time-outs",
        gt=0,
    )
    concurrency: int = transport(
        256, "requests in flight, per process; each reply of a list in words is one", ge=1
    )

    @property
    def shown_name(self) -> str:
        """The name of its model, or its host."""
        return (self.model or urlsplit(self.url).netloc).replace("/", "-")
