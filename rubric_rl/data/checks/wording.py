"""What the words of a criterion reward, and the script that a text is written in."""

import re
import unicodedata
from collections import Counter
from functools import cache, lru_cache

from rubric_rl.data.checks.words import WORDS, Kind, Object

READ = 300  # characters of a text that tell its script
# What sets of RaR's form write before a criterion: "Essential Criteria: ".
_LABEL = re.compile(
    r"\W*(?:essential|important|optional|pitfall)s?(?: criteri(?:a|on))?\W*:[\s*_]*", re.IGNORECASE
)
# Of ASCII: letters as small ones, digits, and a space for all else.
_WORDS_ALONE = bytes(
    ord(chr(code).lower()) if code < 128 and chr(code).isalnum() else ord(" ")
    for code in range(256)
)
_SCRIPTS = {"HIRAGANA": "JAPANESE", "KATAKANA": "JAPANESE", "CJK": "HAN"}


def without_label(text: str) -> str:
    """The criterion without the class that may stand before it."""
    label = _LABEL.match(text) if ":" in text else None
    return text[label.end() :] if label else text


def ascii_words(text: str) -> list[str]:
    """The words of a text of ASCII alone, in small letters; all but letters and digits parts them.

    A regular expression takes three times as long.
    """
    return text.encode().translate(_WORDS_ALONE).decode().split()


def is_simple(text: str) -> bool:
    """Whether letters and digits of ASCII alone make the words of a text."""
    return text.isascii() and "'" not in text and "-" not in text


@lru_cache(maxsize=64)  # check after check reads the criteria of a rubric
def words_in(text: str) -> tuple[str, ...]:
    """The words of a text of ASCII, as `ascii_words`."""
    return tuple(ascii_words(text))


def rewards_presence(text: str) -> bool:
    """Whether the criterion asks that something be said: "mentions", "recommends", "must list".

    An answer meets such a criterion by an added sentence.
    """
    for part in without_label(text)[:80].lower().split():
        word = WORDS.get(part.strip(",.;:()"))
        if word is None:
            return False
        if word.kind is Kind.VERB:
            said = word.negated < 0 or word.object is not Object.TOPIC
            return said and word.sign == 0
        if word.kind not in (Kind.SKIPPED, Kind.MODAL, Kind.WELL):
            return False
    return False


def script(text: str) -> str:
    """The script of most of the text's letters, as Unicode names it, such as LATIN; "" for none."""
    if text.isascii():
        return "LATIN" if any(map(str.isalpha, text[:READ])) else ""
    scripts = Counter(map(_script_of, text[:READ]))
    del scripts[""]
    if scripts["JAPANESE"] and scripts["HAN"]:
        return "JAPANESE"
    return max(scripts, key=scripts.__getitem__, default="")


@cache
def _script_of(character: str) -> str:
    if not character.isalpha():
        return ""
    first, _, _ = unicodedata.name(character, "").partition(" ")
    return _SCRIPTS.get(first, first)
