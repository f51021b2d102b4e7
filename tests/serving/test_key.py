"""A key is read from the environment, sent, and never shown, whatever a server makes of it.

A word that is a key changes nothing but messages.
"""

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import json_line, without_secrets
from rubric_rl.serving.endpoint import Endpoint
from rubric_rl.serving.key import Key, refuse_keys, secrets_of

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
    "parted hexadecimal": lambda key: key.encode().hex(" "),
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


def test_a_short_key_is_hidden_in_messages_as_a_word():
    hidden = key_of("on").hide('no key "on"; one is needed on Monday')
    assert hidden == 'no key "***"; one is needed *** Monday'


# Of the letters that services make keys of, which no escape is written with.
ESCAPES = {
    "all percent": lambda key: "".join(f"%{ord(sign):02X}" for sign in key),
    "all entities": lambda key: "".join(f"&#{ord(sign)};" for sign in key),
    "all escapes": lambda key: "".join(f"\\u{ord(sign):04x}" for sign in key),
    "escapes of bytes": lambda key: "".join(f"\\x{ord(sign):02x}" for sign in key),
    "percent twice": lambda key: quote(quote(key, safe=""), safe=""),
    "long escapes": lambda key: "".join(f"\\U{ord(sign):08x}" for sign in key),
    "percent and u": lambda key: "".join(f"%u{ord(sign):04x}" for sign in key),
    "percent thrice": lambda key: "".join(f"%2525{ord(sign):02x}" for sign in key),
}
# What a reader, or a program that reads base 64, looks past.
PARTED = {
    "lines": lambda key: f"{key[:7]}\n{key[7:12]}\r\n{key[12:]}",
    "spaces": " ".join,
    "NUL": "\0".join,
    "no width": "\u200b".join,
    "bold": lambda key: f"{key[:9]}**{key[9:]}**",
    "lines of base 64": lambda key: base64.encodebytes(f"Authorization: {key}".encode()).decode(),
    "base 64 of UTF-16": lambda key: base64.b64encode(key.encode("utf-16-be")).decode(),
    "base 64 of UTF-16 with a mark": lambda key: base64.b64encode(key.encode("utf-16")).decode(),
}
SECRETS = st.from_regex(r"sk-[A-Za-z0-9/+]{15,40}[0-9]", fullmatch=True)
WORDS = ["EMPTY", "test", "on", "x", "e", "true", "ollama", "lm-studio", "sk-no-key-required"]


class TestLines:
    """What models write is graded and read as it is; a line of it on disk holds no secret."""

    @given(SECRETS, st.sampled_from(list((CODINGS | ESCAPES | PARTED).values())))
    def test_hold_no_secret(self, key, coding):
        key_of(key)
        said = coding(key)
        item = {"answer": f"Take {said} daily.", "verdicts": [{"explanation": said}], "calls": 1}
        written = json.loads(json_line(item))
        assert said not in str(written)
        assert "***" in written["answer"] and "***" in written["verdicts"][0]["explanation"]
        assert written["answer"].startswith("Take ")
        assert written["answer"].endswith(" daily.")
        assert written["calls"] == 1

    @pytest.mark.parametrize("coding", PARTED)
    def test_hold_no_secret_in_parts_and_no_message_does(self, coding):
        key = key_of("sk-abcdef0123456789/x+y")
        said = PARTED[coding]("sk-abcdef0123456789/x+y")
        for shown in (without_secrets(f"Take {said} daily."), key.hide(f"Take {said} daily.")):
            assert said not in shown
            assert shown.startswith("Take ") and "***" in shown and shown.endswith(" daily.")
            assert len(shown) < 50

    def test_hold_no_secret_that_a_reply_spells_in_part(self):
        key_of("sk-abcdef0123456789")
        assert without_secrets('"s\\u006b-abcdef%300123456789"') == '"s\\u006b-abcdef%300123456789"'
        assert without_secrets('"s\\u006b-abcdef%30123456789"') == '"***"'

    @pytest.mark.parametrize("sign", ["&#", "&#0", "&#x", "%", "\\u00", "\\"])
    def test_are_written_whatever_a_model_says(self, sign):
        key = key_of("sk-abcdef0123456789")
        said = sign + "1" * 5000
        assert json.loads(json_line({"answer": said})) == {"answer": said}
        assert key.hide(said) == said

    @pytest.mark.parametrize("key", WORDS)
    def test_keep_every_word(self, key):
        """EMPTY is the usual key of a server that wants none, and `empty` a word of answers."""
        key_of(key)
        item = {"answer": f"On an {key} stomach, do a test: e.g. TRUE, empty%20x."}
        assert json.loads(json_line(item)) == item

    @given(SECRETS, st.dictionaries(st.text(), st.text() | st.lists(st.text()) | st.integers()))
    def test_without_a_secret_are_as_they_were(self, key, item):
        key_of(key)
        assert json.loads(json_line(item)) == item


SECRET = "sk-abcdef0123456789"
HOLDING = {
    "url": f"http://h/?x=%73{SECRET[1:]}",
    "model": SECRET,
    "extra_body": {"user": [SECRET]},
}


class TestSettings:
    @pytest.mark.parametrize("name", HOLDING)
    def test_that_hold_the_key_are_refused_by_name(self, name):
        key_of(SECRET)
        endpoint = Endpoint.of({name: HOLDING[name]})
        with pytest.raises(UserError, match=f"grader_{name} holds the key") as refusal:
            refuse_keys(endpoint.model_dump(), "grader_")
        assert SECRET not in str(refusal.value)

    @pytest.mark.parametrize("key", WORDS)
    def test_may_hold_a_word_that_is_a_key(self, key):
        key_of(key)
        refuse_keys({"model": key, "url": f"http://{key}:8000"})

    @pytest.mark.parametrize("name", ["api_key", "API_KEY", "Api-Key", "x-api-key", "token"])
    def test_name_no_key_in_a_request(self, name):
        with pytest.raises(UserError, match=f"grader_extra_body must not hold {name}") as refusal:
            Endpoint.of({"extra_body": {name: "sk-1"}})
        assert "sk-1" not in str(refusal.value)


def shown_by(proxy: str, message: str) -> str:
    for secret in secrets_of(proxy):
        message = secret.hide(message)
    return message


class TestProxy:
    """What opens a proxy is hidden as a key is."""

    @given(SECRETS, st.sampled_from(list((CODINGS | ESCAPES).values())))
    def test_shows_its_password_in_no_coding(self, password, coding):
        echo = coding(password)
        shown = shown_by(f"http://me:{quote(password, safe='')}@proxy:80", f"who? {echo}!")
        assert echo not in shown and "***" in shown and shown.startswith("who? ")

    @pytest.mark.parametrize("login", ["me:P@ss", "me:x", "me:paß", "sk-abcdef0123456789:", "me:"])
    def test_shows_no_header_that_is_made_of_it(self, login):
        header = base64.b64encode(login.encode("latin-1")).decode()
        shown = shown_by(f"http://{login}@proxy:80", f"Proxy-Authorization: Basic {header}")
        assert shown.startswith("Proxy-Authorization: Basic ***")
        assert header not in shown

    def test_may_have_a_user_whose_name_is_a_word(self):
        assert shown_by("http://me:P%40ss@proxy:80", "me: P@ss, no") == "me: ***, no"
        assert shown_by("http://me@proxy:80", "me: no") == "***: no"
        assert shown_by("http://sk-abcdef0123456789:x@p", "no sk-abcdef0123456789") == "no ***"

    @pytest.mark.parametrize("proxy", [None, "http://proxy:80"])
    def test_that_wants_nobody_has_no_secret(self, proxy):
        assert secrets_of(proxy) == []
