"""Texts that are the same, or nearly, whatever characters and small words write them."""

import math
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import combinations, filterfalse

from rubric_rl.common.plain_text import comparable
from rubric_rl.data.checks.wording import words_in

ALIKE = 0.8  # of the words that either of two texts has, how many both must have
FEW = 500  # texts of which each is compared with each
SKETCH_BITS = 256
HELD = 20  # earlier texts that are remembered for a word: of a thousand copies, each meets some
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


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int]]:
    """The pairs (earlier, later) of texts that say the same in the same or nearly the same words.

    At least ALIKE of their words are common to both, and numbers, negations and comparisons are
    the same. Of more than FEW texts, not all pairs are looked at: see `ManyTexts`.
    """
    words = [words_of(text) for text in texts]
    if len(texts) > FEW:
        many = ManyTexts()
        for of_text in words:
            many.add(of_text)
        return many.near_duplicates()
    # A text that is like another one shares most of its words: the cheaper look first.
    seen: set[str] = set()
    shared: set[str] = set()
    for own in words:
        shared |= own & seen
        seen |= own
    sharing = [
        (place, own) for place, own in enumerate(words) if len(own & shared) >= ALIKE * len(own)
    ]
    return [
        (earlier, later)
        for (earlier, one), (later, other) in combinations(sharing, 2)
        if _alike(one, other)
    ]


class ManyTexts:
    """Texts of which only those are compared that share one of their rarest words.

    That is prefix filtering: Chaudhuri, Ganti and Kaushik, 2006. Of a text are kept the numbers of
    its words and a sketch of them: the differing bits of two sketches are no more than the words
    by which the texts differ, so that a comparison of two numbers settles most pairs.
    """

    def __init__(self):
        self._numbers: dict[str, int] = {}  # word -> its number
        self._counts: Counter[int] = Counter()  # number of a word -> texts that hold it
        self._texts: list[array] = []
        self._sketches: list[int] = []

    def add(self, words: Collection[str]) -> None:
        """Remembers the words of one more text, as `words_of` gives them."""
        numbers = self._numbers
        own = array("I", [numbers.setdefault(word, len(numbers)) for word in words])
        self._counts.update(own)
        self._texts.append(own)
        sketch = 0
        for number in own:
            sketch |= 1 << number % SKETCH_BITS
        self._sketches.append(sketch)

    def near_duplicates(self) -> list[tuple[int, int]]:
        """The pairs (earlier, later) of places of texts that are alike."""
        ranks = self._ranks()
        telling = {self._numbers[word] for word in self._numbers if _TELLING.search(word)}
        holders: dict[int, list[int]] = defaultdict(list)  # word -> the first HELD texts with it
        pairs = []
        for later, own in enumerate(self._texts):
            rarest = sorted(own, key=ranks.__getitem__)
            holding = [holders[number] for number in rarest[: len(own) - _needed(len(own)) + 1]]
            for earlier in self._similar(later, set().union(*holding)):
                different = set(own).symmetric_difference(self._texts[earlier])
                common = (len(own) + len(self._texts[earlier]) - len(different)) // 2
                alike = common >= ALIKE * (common + len(different))
                if alike and different.isdisjoint(telling):
                    pairs.append((earlier, later))
            for texts in holding:
                if len(texts) < HELD:
                    texts.append(later)
        return sorted(pairs)

    def _ranks(self) -> list[int]:
        """The number of a word -> its place among all words, the rarest first."""
        words = list(self._numbers)
        counts = self._counts
        rarest_first = sorted(range(len(words)), key=lambda number: (counts[number], words[number]))
        ranks = [0] * len(words)
        for rank, number in enumerate(rarest_first):
            ranks[number] = rank
        return ranks

    def _similar(self, later: int, candidates: Iterable[int]) -> list[int]:
        """Those of the candidates whose sketch does not rule them out."""
        sketches = self._sketches
        sketch = sketches[later]
        # Words by which two alike texts of `size` words differ, at most: the other one has up to
        # size / ALIKE words, of which `size` are common.
        most = len(self._texts[later]) * (1 / ALIKE - 1) + 1e-9
        return [
            earlier for earlier in candidates if (sketches[earlier] ^ sketch).bit_count() <= most
        ]


def words_of(text: str) -> frozenset[str]:
    """The words that tell what a text says, each once: all but small ones, if it has others."""
    if not text.isascii():
        text = text.translate(_TYPOGRAPHIC)
    words = words_in(text) if text.isascii() else _WORD.findall(_normal(text))
    telling = frozenset(filterfalse(_SMALL.__contains__, words))
    return telling or frozenset(words) or frozenset([_normal(text)])


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
