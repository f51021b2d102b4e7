"""JSON on its way: whatever can be said arrives, whatever is no JSON is refused."""

import codecs
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.serving.wire import decoded, encoded

ANY_TEXT = st.text(st.characters(codec=None))  # lone surrogates too
FINITE = st.floats(allow_nan=False, allow_infinity=False)  # a setting is nothing else
INTEGERS = st.integers(-(2**63), 2**64 - 1)  # larger ones are read as floats: none counts anything


def values(integers):
    return st.recursive(
        st.none() | st.booleans() | integers | FINITE | ANY_TEXT,
        lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
        max_leaves=20,
    )


@given(values(st.integers()))
def test_what_is_sent_is_what_is_meant(body):
    assert json.loads(encoded(body)) == body


@given(values(INTEGERS), st.booleans())
def test_a_reply_is_read_as_it_was_written(value, with_mark):
    content = json.dumps(value).encode()
    assert decoded(codecs.BOM_UTF8 + content if with_mark else content) == value


def test_nan_and_infinity_are_read_and_left_to_the_reader_to_refuse():
    not_a_number, too_large = decoded(b"[NaN, 1e999]")
    assert math.isnan(not_a_number)
    assert too_large == math.inf


@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff\xfe{}", b'{"a": ', b"{} {}"])
def test_no_json_is_no_reply(content):
    with pytest.raises(ValueError):
        decoded(content)


def test_neither_is_what_is_nested_too_deep():
    with pytest.raises((ValueError, RecursionError)):
        decoded(b"[" * 100_000 + b"]" * 100_000)
