"""Whether meeting a criterion speaks for or against an answer, by its wording alone.

"Fails to name the dose" speaks against an answer, "avoids jargon" for it, "names the dose" says
neither: only someone who knows the subject can tell. The rule reads the first sentence from its
left: what opens it (not, fails to, avoids, should) turns or keeps the sign of what follows.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise

from rubric_rl.data.checks.wording import ascii_words, without_label
from rubric_rl.data.checks.words import WORDS, Kind, Object, Word

OBJECT_WORDS = 6  # after a verb, in which its object is looked for
READ = 300  # characters: longer texts are instructions to the grader
_ASIDE = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_SENTENCE_END = re.compile(r"[.!?:;\n](?:(?<=[;\n])|(?=\s|$))")
_TOKEN = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
# Where another part of the sentence begins that may turn the meaning of the whole.
_JOINTS = {"but", "yet", "although", "though", "and", "while", "or", "without", "which"}
# After these it is the topic that the words tell of, and no longer the answer.
_TOPIC = {"that", "who", "how", "why", "whether", "where", "when", "if", "because", "about", "of"}
_DEMANDED = re.compile(r"\bas (?:the )?(?:user |prompt )?(?:is |was )?(?:ask|request|demand)")
# What a phrase holds, so that few are looked for; the phrase; the word that reads alike.
_PHRASES = [
    (holds, re.compile(pattern), word)
    for holds, pattern, word in (
        ("\u2019t", r"n\u2019t\b", " not"),
        ("n't", r"n't\b", " not"),
        ("not ", r"\bnot (?:only|just|merely|simply)\b", "also"),
        (" than", r"\bno (?:longer|more|later|fewer|less) than\b", "within"),
        ("ing out", r"\bleaving out\b", "omits"),
        (" out", r"\bleaves? out\b", "omits"),
        ("clear of", r"\b(?:steer|stay)(?:s|ing)? clear of\b", "avoids"),
        ("away from", r"\b(?:steer|stay)(?:s|ing)? away from\b", "avoids"),
        ("free ", r"\bfree (?:of|from)\b", "avoids"),
        (" within", r"\b(?:stays?|staying|keeps?|remains?) within\b", "respects"),
        (" to ", r"\b(?:hard|difficult) to (?:follow|read|understand)\b", "confusing"),
        (" is ", r"\bin an? (?:way|manner) that is\b", ""),
        ("in a", r"\bin an? (?=[\w-]+ (?:way|manner|tone|style)\b)", ""),
        ("eas", r"\beas(?:y|ier|ily)\b.{0,16} (?:to|for)\b", "clear to"),
    )
]
# One of these is in each phrase without an apostrophe or a hyphen.
_PHRASE_WORDS = {
    *("not", "than", "out", "clear", "away", "free", "within", "hard", "difficult"),
    *("way", "manner", "tone", "style", "easy", "easier", "easily"),
}
_NEUTRAL = Word(Kind.VERB)
# What an answer owes: to avoid it is a fault.
_OWED = {"answering", "addressing", "acknowledging", "responding", "engaging", "answer", "address"}
_CRITIQUE = {"have", "has"}  # "should have named": it did not
_OBJECT_PREPOSITIONS = {"at", "on", "with"}  # relies on, arrives at, advises with
_PREDICATES = {"is", "are", "does", "do", "was", "were"}
_SUBJECT_ENDS = {Kind.MODAL, Kind.FAIL, Kind.OMIT, Kind.AVOID}
_SKIPPED = WORDS["the"]
_GOOD = Word(Kind.VERB, 1, -1)
_BAD = Word(Kind.VERB, -1, 1)
# With these a later part of a sentence says something about the whole.
_TURNING = {Kind.NOT, Kind.FAIL, Kind.OMIT, Kind.AVOID}


class Polarity(StrEnum):
    """What meeting a criterion says about an answer."""

    GOOD = "good"
    BAD = "bad"
    UNSURE = "unsure"


@lru_cache(maxsize=1024)  # sets repeat the criteria of a cluster
def polarity(text: str) -> Polarity:
    """Whether meeting the criterion speaks for an answer or against it; unsure if not plain."""
    unlabelled = without_label(text)
    clause = _first_sentence(unlabelled[:READ].lower())
    sign = _clause_sign(*_read_alike(clause))
    if len(unlabelled) < len(text):
        label = text.removesuffix(unlabelled)
        sign = _with_label(sign, label.lower())
    if not sign:
        return Polarity.UNSURE
    return Polarity.GOOD if sign > 0 else Polarity.BAD


def _first_sentence(clause: str) -> str:
    if "(" in clause or "[" in clause:
        clause = _ASIDE.sub(" ", clause)
    clause = clause.strip()
    end = _SENTENCE_END.search(clause)
    return clause[: end.start()] if end else clause


def _read_alike(clause: str) -> tuple[str, list[str]]:
    """The clause with the word that reads alike for each phrase in it, and its words."""
    is_simple = clause.isascii() and "'" not in clause and "-" not in clause
    if is_simple:
        words = ascii_words(clause)
        if _PHRASE_WORDS.isdisjoint(words):
            return clause, words
    for holds, phrase, word in _PHRASES:
        if holds in clause:
            clause = phrase.sub(word, clause)
    return clause, ascii_words(clause) if is_simple else _TOKEN.findall(clause)


def _with_label(sign: int | None, label: str) -> int | None:
    """A pitfall is often written as its avoidance: only a neutral text is what its label says."""
    labelled = -1 if "pitfall" in label else 1
    if sign == 0:
        return labelled
    if labelled > 0 and sign != labelled:
        return None
    return sign


def _clause_sign(clause: str, words: list[str]) -> int | None:
    """1, -1, 0 for a neutral wording, None for one that takes no side or both."""
    joints = []
    if not _JOINTS.isdisjoint(words):
        joints = [place for place, word in enumerate(words) if word in _JOINTS and place]
    head = words[: joints[0]] if joints else words
    opening = _read(head, 0)
    if opening is None:
        return None
    sign = opening.sign
    for start, end in pairwise([*joints, len(words)]):
        if words[start] != "but" and not _TOPIC.isdisjoint(words[:start]):
            continue
        joined = _joined_sign(words[start], words[start + 1 : end])
        if joined is None or joined == -sign != 0:
            return None
        sign = sign or joined
    demanded = " as " in clause and _DEMANDED.search(clause)
    if not demanded or opening.sign > 0:
        return sign
    # "Does not rhyme, as asked" against "does not rhyme as asked".
    kept = opening.kind is not Kind.NOT or ", as" in clause
    return 1 if kept else -1


def _joined_sign(joint: str, words: list[str]) -> int | None:
    """The sign of a later part of the sentence; 0 unless it opens with a word that sets one."""
    if joint == "without":
        return -_without_sign(words)
    first = _first_telling(words)
    judged = first.kind in (Kind.WELL, Kind.ILL)
    if joint == "which":
        return first.sign if judged else 0
    if first.kind in _TURNING or (judged and joint == "but"):
        opening = _read(words, 0)
        return None if opening is None else opening.sign
    return 0


def _without_sign(words: list[str]) -> int:
    """The sign of what is missing: a fault, or something that an answer should do."""
    first = _first_telling(words)
    if first.kind is Kind.VERB and first.negated < 0:
        return 1
    return _object_sign(words, 0, Object.PART)


def _first_telling(words: list[str]) -> Word:
    for text in words:
        word = WORDS.get(text, _NEUTRAL)
        if word is not _SKIPPED:
            return word
    return _NEUTRAL


def _read(words: list[str], start: int) -> Word | None:
    """What the words from `start` on say, as one word; None where they take no side."""
    place = start
    while place < len(words) and WORDS.get(words[place]) is _SKIPPED:
        place += 1
    if place == len(words):
        return _NEUTRAL
    word = WORDS.get(words[place], _NEUTRAL)
    following = place + 1
    if word is _NEUTRAL and place > start:
        predicate = _predicate(words, following)
        if predicate is not None:
            return _read(words, predicate)
        verb = WORDS.get(words[following], _NEUTRAL) if following < len(words) else _NEUTRAL
        if verb.sign and verb.kind is Kind.VERB:  # "the code crashes"
            return verb
    return _READERS[word.kind](word, words, following)


def _predicate(words: list[str], start: int) -> int | None:
    """Where "is", "must" or a known verb follows a subject of one to three words."""
    for place in range(start, min(start + 3, len(words))):
        word = WORDS.get(words[place], _NEUTRAL)
        if word.kind is Kind.STOP:
            return None
        if words[place] in _PREDICATES or word.kind in _SUBJECT_ENDS:
            return place
    return None


def _read_not(_: Word, words: list[str], start: int) -> Word | None:
    rest = _read(words, start)
    return None if rest is None else Word(Kind.NOT, rest.negated, rest.sign)


def _read_modal(_: Word, words: list[str], start: int) -> Word | None:
    """What is demanded is good, also not to do something."""
    if start < len(words) and words[start] in _CRITIQUE:
        return None
    rest = _read(words, start)
    if rest is None or (rest.sign < 0 and rest.kind is not Kind.NOT):
        return None
    return _GOOD


def _read_omit(_: Word, words: list[str], start: int) -> Word:
    return _GOOD if _object_sign(words, start, Object.PART) < 0 else _BAD


def _read_avoid(_: Word, words: list[str], start: int) -> Word | None:
    if start < len(words) and words[start] in _OWED:
        return _BAD
    rest = _read(words, start)
    if rest is None:
        return None
    return _BAD if rest.sign > 0 else _GOOD


def _read_refuse(_: Word, words: list[str], start: int) -> Word | None:
    if _object_sign(words, start, Object.ADVICE) < 0:
        return _GOOD
    owed = _OWED.intersection(words[start : start + 2])
    return _BAD if owed else None


def _read_well(_: Word, words: list[str], start: int) -> Word | None:
    rest = _read(words, start)
    return _BAD if rest is not None and rest.sign < 0 else _GOOD


def _read_verb(verb: Word, words: list[str], start: int) -> Word:
    """A neutral verb is what its object is; "contains no errors" negates the object."""
    if verb.sign:
        return verb
    if verb.object is Object.TOPIC:
        sign = _adverb_sign(words, start)
        return Word(Kind.VERB, sign, -sign) if sign else verb
    place = start
    while place < len(words) and WORDS.get(words[place]) is _SKIPPED:
        place += 1
    lacks = place < len(words) and WORDS.get(words[place], _NEUTRAL).kind is Kind.NOT
    if lacks:
        return _read_lack(words, place + 1)
    sign = _object_sign(words, start, verb.object)
    return Word(Kind.VERB, sign, -sign or verb.negated)


def _read_lack(words: list[str], start: int) -> Word:
    sign = -_object_sign(words, start, Object.PART)
    if not sign and start < len(words):
        sign = WORDS.get(words[start], _NEUTRAL).negated
    return Word(Kind.VERB, sign, -sign)


def _adverb_sign(words: list[str], start: int) -> int:
    """The sign of how something is done: "handles empty input correctly"."""
    for text in words[start : start + OBJECT_WORDS]:
        word = WORDS.get(text, _NEUTRAL)
        if word.kind is Kind.STOP:
            return 0
        if text.endswith("ly") and word.kind in (Kind.WELL, Kind.ILL):
            return word.sign
    return 0


def _object_sign(words: list[str], start: int, kind: Object) -> int:
    """The sign of the first property among the words of an object."""
    if start < len(words) and words[start] in _OBJECT_PREPOSITIONS:
        start += 1
    for text in words[start : start + OBJECT_WORDS]:
        word = WORDS.get(text, _NEUTRAL)
        if word.kind is Kind.STOP:
            return 0
        if word.kind is Kind.ILL or (word.kind is Kind.WELL and kind is Object.PART):
            return word.sign
    return 0


_READERS: dict[Kind, Callable[[Word, list[str], int], Word | None]] = {
    Kind.NOT: _read_not,
    Kind.MODAL: _read_modal,
    Kind.HEDGE: lambda *_: None,
    Kind.FAIL: lambda *_: _BAD,
    Kind.OMIT: _read_omit,
    Kind.AVOID: _read_avoid,
    Kind.REFUSE: _read_refuse,
    Kind.WELL: _read_well,
    Kind.ILL: lambda *_: _BAD,
    Kind.STOP: lambda *_: _NEUTRAL,
    Kind.VERB: _read_verb,
}
