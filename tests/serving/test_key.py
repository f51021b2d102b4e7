"""A key is read from the environment, sent, and never shown, whatever a server makes of it."""

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.common.errors import UserError
from rubric_rl.serving.key import Key

URL = "https://h/v1/chat/completions"
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60)


def key_of(value: str) -> Key:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THE_KEY", value)
        return Key("THE_KEY", "grader_")


def test_without_a_variable_there_is_none():
    none = Key("", "grader_")
    assert none.headers(URL) == {}
    assert none.hide("text") == "text"


def test_white_space_around_it_is_none_of_it():
    assert key_of(" sk-1 \n").headers(URL) == {"Authorization": "Bearer sk-1"}


def test_azures_endpoints_have_a_header_of_their_own():
    assert key_of("sk-1").headers(URL + "?api-version=2024-10-21") == {"api-key": "sk-1"}


@pytest.mark.parametrize(
    "value",
    ["sk-1\nsk-2", "sk\t1", "sk-1\x0b", "\x1bsk-1", "sk-\x7f", "sk 1", "schlüssel", "“sk-1”"],
)
def test_what_no_header_can_carry_is_refused_at_the_start_and_not_shown(value):
    with pytest.raises(
        UserError, match=r"grader_api_key_env names .* no key.* export it"
    ) as refusal:
        key_of(value)
    assert value not in str(refusal.value)


CODINGS = {
    "plain": str,
    "other case": str.swapcase,
    "percent": lambda key: quote(key, safe=""),
    "form": quote_plus,
    "JSON": lambda key: json.dumps(key)[1:-1],
    "HTML": html.escape,
    "hexadecimal": lambda key: key.encode().hex(),
    "base 64": lambda key: base64.b64encode(key.encode()).decode(),
    "basic authorization": lambda key: base64.b64encode(f"user:{key}".encode()).decode(),
    "bearer in base 64": lambda key: base64.b64encode(f"Bearer {key}".encode()).decode(),
    "base 64 for URLs": lambda key: base64.urlsafe_b64encode(f"ab{key}".encode()).decode(),
}


@pytest.mark.parametrize("coding", CODINGS)
@given(key=KEYS)
def test_an_echo_in_any_common_coding_is_hidden(coding, key):
    echo = CODINGS[coding](key)
    shown = key_of(key).hide(f"no such key: {echo}!")
    assert echo not in shown
    assert "***" in shown
    assert shown.startswith("no such key: ")


@given(KEYS, st.text(max_size=40))
def test_other_text_stays(key, text):
    if not any(form in text.lower() for form in (key.lower(), "***")):
        assert len(key_of(key).hide(text)) <= len(text)


@pytest.mark.parametrize("shown", ["sk-Secret****", "sk-SecretKey12***", "sk-SecretKey12\n34"])
def test_what_a_server_masks_or_splits_shows_little_more_than_its_end(shown):
    hidden = key_of("sk-SecretKey1234").hide(f"bad key {shown} given")
    assert hidden in ("bad key *** given", "bad key ***\n34 given")
