"""When two texts are the same to a reader, and when a text shows nothing."""

import unicodedata

import pytest
from doubles.texts import any_text
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.common.plain_text import comparable, conversation, one_line, shows_something

WHITE = " \t\n\r\x0b\x0c\x85\u00a0\u1680\u2003\u2007\u2028\u2029\u202f\u205f\u3000"
UNSEEN = "".join(
    [
        "\x00\x07\x1b\x7f",  # controls
        "\u00ad\u034f\u061c",  # soft hyphen, grapheme joiner, Arabic letter mark
        "\u180e\u200b\u200c\u200d\u2060\ufeff",  # spaces and joiners of no width
        "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",  # directions
        "\u2061\u2062\u2063\u2064\u206a\u206f",  # invisible operators
        "\u180b\ufe00\ufe0f\U000e0100",  # selectors of variants
        "\U000e0001\U000e0041\U000e007f",  # tags
        "\u115f\u1160\u3164\uffa0\U00016fe4",  # fillers of Hangul and of Khitan
        "\u2800\U0001d159",  # blanks of Braille and of music
    ]
)
FORMS = ("NFC", "NFD", "NFKC", "NFKD")
CASES = (str.upper, str.lower, str.title, str.swapcase, str.casefold)


@st.composite
def rewritten(draw) -> tuple[str, str]:
    """A text, and how another tool may have left it."""
    text = draw(any_text())
    other = text
    for _ in range(draw(st.integers(1, 3))):
        change = draw(st.sampled_from([*FORMS, *CASES, "spaces", "unseen"]))
        if change == "spaces":
            other = draw(st.text(WHITE + UNSEEN, max_size=3)).join(other.split())
        elif change == "unseen":
            place = draw(st.integers(0, len(other)))
            other = other[:place] + draw(st.text(WHITE + UNSEEN, min_size=1)) + other[place:]
        elif callable(change):
            other = change(other)
        else:
            other = unicodedata.normalize(change, other)
    return text, other


@given(rewritten())
def test_no_form_of_a_text_makes_it_another_one(texts):
    text, other = texts
    assert comparable(other) == comparable(text)


@given(any_text())
def test_the_comparable_form_is_its_own(text):
    assert comparable(comparable(text)) == comparable(text)


@pytest.mark.parametrize("other", ["Ask me twice.", "Ask me", "Ask you.", "Me ask.", "Ask me!"])
def test_other_words_are_another_text(other):
    assert comparable(other) != comparable("Ask me.")


@given(st.text(WHITE + UNSEEN + "\u0301\u20dd"))
def test_white_space_fillers_and_accents_alone_show_nothing(text):
    assert not shows_something(text)


@pytest.mark.parametrize("seen", ["a", "0", ".", "é", "…", "中", "한", "👍", "\ufffd", "⠁"])
@given(st.text(WHITE + UNSEEN), st.text(WHITE + UNSEEN))
def test_one_character_among_them_shows(seen, before, after):
    assert shows_something(before + seen + after)


def test_every_format_character_of_unicode_is_unseen():
    characters = (chr(code) for code in range(0x110000))
    formats = [one for one in characters if unicodedata.category(one) == "Cf"]
    assert not shows_something("".join(formats))
    assert comparable("".join(formats)) == ""


def test_ascii_alone_is_compared_as_amid_other_characters():
    for code in range(128):
        text = f"A{chr(code)}b"
        assert comparable(text) == comparable(text + "\u200b")


@pytest.mark.parametrize("nothing", ["", " \n", "\u200b", "\u3164"])
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_a_message_that_shows_nothing_is_no_part_of_a_conversation(nothing, role):
    asks = {"role": "user", "content": "Ask me."}
    assert conversation([{"role": role, "content": nothing}, asks]) == conversation([asks])


def test_one_line_holds_every_word_and_no_more_than_the_limit():
    assert one_line(" a\n\tb  c ") == "a b c"
    assert one_line("a\nb c", 3) == "a b"
    assert one_line(" \n") == ""
    assert one_line("\x1b[31mred\x07\x9b") == "[31mred"  # no order to a terminal
    assert one_line("\u202e\u2066\u200fsaw") == "saw"  # and none to turn round
