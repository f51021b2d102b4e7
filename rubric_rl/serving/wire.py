"""JSON on its way to and from an endpoint.

orjson costs a fraction of json, which counts: a prompt is sent for every criterion. What it refuses
goes the slow way: lone surrogates, larger integers than 64 bits hold, a reply's NaN.
"""

import codecs
import json
from typing import Any

import orjson


def encoded(body: Any) -> bytes:
    """The JSON of a request."""
    try:
        return orjson.dumps(body)
    except TypeError:
        return json.dumps(body).encode()


def decoded(content: bytes) -> Any:
    """What a reply holds; a byte order mark before it is left out.

    Raises ValueError, or RecursionError, for what is no JSON.
    """
    text = content.removeprefix(codecs.BOM_UTF8)
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text.decode())
