"""Texts that are the same, or nearly, whatever characters and small words write them."""

import math
import re
import string
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations

from rubric_rl.common.plain_text import comparable

ALIKE = 0.8  # of the words that either of two texts has, how many both must have
FEW = 40  # texts of which each is compared with each
HELD = 50  # earlier texts that are remembered for a word: of a thousand copies, each meets some
_PUNCTUATION = re.compile(r"[\W_]+")
_BLANKED = str.maketrans(string.punctuation, " " * len(string.punctuation))
# Typographic quotation marks, dashes and an ellipsis, which alone make many a text no ASCII.
_TYPOGRAPHIC = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201c\u201d\u2010\u2011\u2012\u2013\u2014\u2022\u2026", " ")
)
_WORD = re.compile(r"[^\W_]+")
_SMALL_WORDS = """
a an the of to in on for and that is are be it its this with as by at any response answer should
must user
"""
_SMALL = frozenset(_SMALL_WORDS.split())
# Two texts that differ in one of these say different things, however alike the rest is.
_TELLING = re.compile(
    r"\d|^(?:no|not|never|without|or|fails?|omits?|avoids?|less|more|before|after|low|high|left|"
    r"right|first|last|increases?|decreases?|in\w+ly|min\w*|max\w*)$"
)


def same_text_key(text: str) -> str:
    """What two texts share that differ in case, Unicode form, white space or punctuation only."""
    key = comparable(text)
    return _PUNCTUATION.sub("", key) or key


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int]]:
    """The pairs (earlier, later) of texts that say the same in the same or nearly the same words.

    At least ALIKE of their words are common to both, and numbers, negations and comparisons are
    the same. Of many texts, only those that share one of their rarest words are
    compared (prefix filtering: Chaudhuri, Ganti and Kaushik, 2006).
    """
    if len(texts) > FEW:
        return _among_many(texts)
    words = [_words(text) for text in texts]
    pairs = combinations(range(len(words)), 2)
    return [(earlier, later) for earlier, later in pairs if _alike(words[earlier], words[later])]


def _among_many(texts: Sequence[str]) -> list[tuple[int, int]]:
    """As `near_duplicates`; a text is kept as the numbers of its words, which are small."""
    vocabulary: dict[str, int] = {}
    counts: Counter[int] = Counter()
    numbers = []
    for text in texts:
        own = array("I", [vocabulary.setdefault(word, len(vocabulary)) for word in _words(text)])
        counts.update(own)
        numbers.append(own)
    words = list(vocabulary)
    telling = {number for word, number in vocabulary.items() if _TELLING.search(word)}
    holders: dict[int, list[int]] = defaultdict(list)
    pairs = []
    for later, own in enumerate(numbers):
        rarest = sorted(own, key=lambda number: (counts[number], words[number]))
        candidates: set[int] = set()
        for number in rarest[: len(own) - _needed(len(own)) + 1]:
            holding = holders[number]
            candidates.update(holding)
            if len(holding) < HELD:
                holding.append(later)
        mine = frozenset(own)
        for earlier in sorted(candidates):
            other = numbers[earlier]
            common = len(mine.intersection(other))
            if common < ALIKE * (len(mine) + len(other) - common):
                continue
            if mine.symmetric_difference(other).isdisjoint(telling):
                pairs.append((earlier, later))
    return sorted(pairs)


def _words(text: str) -> frozenset[str]:
    if not text.isascii():
        text = text.translate(_TYPOGRAPHIC)
    if text.isascii():
        plain = text.lower()
        found = frozenset(plain.translate(_BLANKED).split())
    else:
        plain = _normal(text)
        found = frozenset(_WORD.findall(plain))
    return found - _SMALL or found or frozenset([plain])


def _normal(text: str) -> str:
    return " ".join(map(comparable, text.split()))


def _needed(size: int) -> int:
    """How many of `size` words an alike text has in common with it, at least."""
    return math.ceil(ALIKE * size - 1e-9)  # 0.8 is no binary fraction


def _alike(one: frozenset[str], other: frozenset[str]) -> bool:
    common = len(one & other)
    if common < ALIKE * (len(one) + len(other) - common):
        return False
    return not any(map(_TELLING.search, one ^ other))
