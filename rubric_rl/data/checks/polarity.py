"""Whether meeting a criterion speaks for or against an answer, by its wording alone.

"Fails to name the dose" speaks against an answer, "avoids jargon" for it, "names the dose" says
neither: only someone who knows the subject can tell. The rule reads the first sentence from its
left: what opens it (not, fails to, avoids, should) turns or keeps the sign of what follows.
Much hangs on the object: who ignores the question fails, who ignores an injected instruction does
not. Where the object is not one of the plain ones that words.py lists, the rule is unsure.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise

from rubric_rl.data.checks.wording import ascii_words, is_simple, without_label, words_in
from rubric_rl.data.checks.words import (
    DECIDING,
    GUIDES,
    HARMS,
    HEEDED,
    OWED,
    PHRASE_WORDS,
    SAID,
    TELLING,
    WORDS,
    Kind,
    Object,
    Word,
)

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
        ("not ", r"\bnot (?:only|just|merely|simply)\b", "perhaps"),
        (" than", r"\bno (?:longer|more|later|fewer|less) than\b", "within"),
        ("ing out", r"\bleaving out\b", "omits"),
        (" out", r"\bleaves? out\b", "omits"),
        ("al ", r"\b(?:factual|logical) (?=(?:error|mistake)s?\b)", ""),
        ("missing ", r"\bmissing (?=(?:any|an?|the)\b)", "lacks "),
        ("failure", r"\bfailures? to\b", "fails to"),
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
_NEUTRAL = Word(Kind.VERB)
# To avoid or refuse it is a fault, where it is about what an answer owes to heed.
_ANSWERING = {"answering", "addressing", "acknowledging", "responding", "answer", "address"}
# What they should do is no property of the answer, which may be wrong to say so.
_PERSONS = {"patient", "patients", "user", "users", "person", "people", "child", "children", "you"}
_NEEDS = (["needs"], ["need"])  # as the first word
_CRITIQUE = {"have", "has"}  # "should have named": it did not
_OBJECT_PREPOSITIONS = {"at", "on", "with", "from"}  # relies on, arrives at, deviates from
_AMOUNTS = {"several", "some", "many", "other", "highly"}
_POSSESSORS = {f"{who}{mark}s" for who in ("user", "patient", "client") for mark in "'\u2019"}
_CLAUSES = {"that", "whether", "why", "how", "if", "when", "where", "which", "about"}
# Fault nouns that tell what another word is of ("error and exception handling") without an article,
# and after which these say what it is for: "an error when the file is missing".
_SINGULAR = {"error", "mistake", "typo", "gap", "bias", "contradiction", "repetition"}
_PURPOSES = {"when", "if", "for", "where"}
_NOT_OF_THE_ANSWER = {"of", "as", "by", "from"}  # the mistakes of somebody else
_TOWARDS = {"to", "against"}  # code to detect errors, reasons against false claims
_PREDICATES = {"is", "are", "does", "do", "was", "were"}
_DOES = {"does", "do", "did"}
_SUBJECT_ENDS = {Kind.MODAL, Kind.FAIL, Kind.OMIT, Kind.AVOID}
_PROPERTIES = (Kind.WELL, Kind.ILL)
_SKIPPED = WORDS["the"]
_GOOD = Word(Kind.AVOID, 1, -1)
_BAD = Word(Kind.VERB, -1, 1)
_MAY_FAIL = Word(Kind.FAIL)  # ignores something: it may be right to
# Without one of these an object has no sign, and a verb no adverb that judges it.
_SIGNED = {text for text, word in WORDS.items() if word.sign} | GUIDES | {"how"}
_JUDGING = {text for text in _SIGNED if text.endswith("ly")}
# With these a later part of a sentence says something about the whole.
_TURNING = {Kind.NOT, Kind.FAIL, Kind.OMIT, Kind.AVOID}


class Polarity(StrEnum):
    """What meeting a criterion says about an answer."""

    GOOD = "good"
    BAD = "bad"
    UNSURE = "unsure"

    __hash__ = str.__hash__  # that of enums is written in Python, and each criterion counts by it


@lru_cache(maxsize=1024)  # sets repeat the criteria of a cluster
def polarity(text: str) -> Polarity:
    """Whether meeting the criterion speaks for an answer or against it; unsure if not plain."""
    if is_simple(text) and ":" not in text and TELLING.isdisjoint(words_in(text)):
        return Polarity.UNSURE  # a cheap look at the whole text
    unlabelled = without_label(text)
    clause, words = _read_alike(_first_sentence(unlabelled[:READ].lower()))
    sign = _clause_sign(clause, words)
    if label := text.removesuffix(unlabelled):
        sign = _with_label(sign, label.lower(), words)
    return (Polarity.GOOD if sign > 0 else Polarity.BAD) if sign else Polarity.UNSURE


def _first_sentence(clause: str) -> str:
    if "(" in clause or "[" in clause:
        clause = _ASIDE.sub(" ", clause)
    clause = clause.strip()
    end = _SENTENCE_END.search(clause)
    return clause[: end.start()] if end else clause


def _read_alike(clause: str) -> tuple[str, list[str]]:
    """The clause with the word that reads alike for each phrase in it, and its words."""
    simple = is_simple(clause)
    if simple:
        words = ascii_words(clause)
        if PHRASE_WORDS.isdisjoint(words):
            return clause, words
    for holds, phrase, word in _PHRASES:
        if holds in clause:
            clause = phrase.sub(word, clause)
    return clause, ascii_words(clause) if simple else _TOKEN.findall(clause)


def _with_label(sign: int | None, label: str, words: list[str]) -> int | None:
    """A pitfall is often written as its avoidance: only a plain deed is what its label says."""
    if "pitfall" not in label:
        return 1 if sign in (0, 1) else None
    if sign != 0:
        return sign
    opening = _first_telling(words)
    if opening.kind is Kind.AVOID:
        return 1
    negates = any(WORDS.get(text, _NEUTRAL).kind is Kind.NOT for text in words)
    return None if negates or opening.negated < 0 else -1


def _clause_sign(clause: str, words: list[str]) -> int | None:
    """1, -1, 0 for a neutral wording, None for one that takes no side or both."""
    if DECIDING.isdisjoint(words):
        return 0
    joints = [
        place
        for place, word in enumerate(words)
        if word in _JOINTS and place and not _joins_properties(words, place)
    ]
    head = words[: joints[0]] if joints else words
    opening = _read(head, 0)
    if opening is None:
        return None
    sign = opening.sign
    if sign > 0 and opening.kind is Kind.VERB and not HARMS.isdisjoint(words):
        return None
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


def _joins_properties(words: list[str], joint: int) -> bool:
    """Whether it is one part still: "in a clear and concise tone"."""
    before = WORDS.get(words[joint - 1])
    if before is None or before.kind not in _PROPERTIES or words[joint] not in ("and", "or"):
        return False
    return joint + 1 < len(words) and WORDS.get(words[joint + 1], _NEUTRAL).kind in _PROPERTIES


def _joined_sign(joint: str, words: list[str]) -> int | None:
    """The sign of a later part of the sentence; 0 unless it opens with a word that sets one."""
    if joint == "without":
        return -_without_sign(words)
    first = _first_telling(words)
    judged = first.kind in _PROPERTIES
    if joint == "which":
        return first.sign if judged else 0
    if first.kind in _TURNING or (judged and joint == "but"):
        opening = _read(words, 0)
        return (opening.sign or None) if opening else None
    return 0


def _without_sign(words: list[str]) -> int:
    """The sign of what is missing: a fault, or something that an answer should do."""
    missing = _read(words, 0)
    if missing is None:
        return 0
    return missing.sign or -missing.negated or _object_sign(words, 0, Object.PART)


def _first_telling(words: list[str]) -> Word:
    for text in words:
        word = WORDS.get(text, _NEUTRAL)
        if word is not _SKIPPED:
            return word
    return _NEUTRAL


def _read(words: list[str], start: int) -> Word | None:
    """What the words from `start` on say, as one word; None where they take no side."""
    place = _after_skipped(words, start)
    if place == len(words):
        return _NEUTRAL
    word = WORDS.get(words[place], _NEUTRAL)
    following = place + 1
    if place > start and (word is _NEUTRAL or words[place] in OWED):
        predicate = _predicate(words, following)
        if predicate is not None:
            does_person = words[place] in _PERSONS and WORDS[words[predicate]].kind is Kind.MODAL
            return None if does_person else _read(words, predicate)
        verb = WORDS.get(words[following], _NEUTRAL) if following < len(words) else _NEUTRAL
        if verb.kind is Kind.VERB and (verb.sign or verb.object is Object.PART):
            return _read_verb(verb, words, following + 1)  # "the code crashes"
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
    if rest is None or rest is _MAY_FAIL:
        return None
    return Word(Kind.NOT, rest.negated, rest.sign)


def _read_modal(_: Word, words: list[str], start: int) -> Word | None:
    """What is demanded is good, also not to do something; "needs rest" may be of the patient."""
    if words[:1] in _NEEDS or (start < len(words) and words[start] in _CRITIQUE):
        return None
    rest = _read(words, start)
    if rest is None or (rest.sign < 0 and rest.kind is not Kind.NOT):
        return None
    return _GOOD


def _read_fail(fail: Word, words: list[str], start: int) -> Word | None:
    if _is_negated(words, start):
        return None
    opens_clause = start < len(words) and words[start] in ("to", "that")
    if fail.object is Object.HEEDED and not opens_clause and not _is_heeded(words, start):
        return _MAY_FAIL
    if words[start : start + 1] != ["to"]:
        return _BAD
    rest = _read(words, start)
    return None if rest is None or rest.sign < 0 else _BAD


def _read_omit(omit: Word, words: list[str], start: int) -> Word | None:
    if _is_negated(words, start):
        return None
    if _object_sign(words, start, Object.PART) < 0:
        return _GOOD
    if omit.object is Object.HEEDED and not _is_heeded(words, start):
        return None
    return _BAD


def _read_avoid(_: Word, words: list[str], start: int) -> Word | None:
    if words[start : start + 1] == ["from"]:
        start += 1
    if start < len(words) and words[start] in _ANSWERING:
        return _BAD if _is_heeded(words, start + 1) else None
    rest = _read(words, start)
    if rest is None:
        return None
    sign = rest.sign or -max(rest.negated, 0) or _object_sign(words, start, Object.PART)
    if not sign:
        avoided = _first_telling(words[start:])
        is_owed = avoided.negated < 0 or avoided.object is Object.CLAUSE
        return None if is_owed else Word(Kind.AVOID)
    return _BAD if sign > 0 else _GOOD


def _read_refuse(_: Word, words: list[str], start: int) -> Word | None:
    rest = _read(words, start)
    if rest is None or rest.sign:
        return _GOOD if rest and rest.sign < 0 else None
    for place in range(start, min(start + 2, len(words))):
        if words[place] in _ANSWERING and _is_heeded(words, place + 1):
            return _BAD
    return None


def _read_well(well: Word, words: list[str], start: int) -> Word | None:
    before = words[:start]
    follows_does = before[-2:-1] == ["to"] or not _DOES.isdisjoint(before[-3:-1])
    if before[-1:] == ["correct"] and follows_does:  # the verb
        return _read_verb(WORDS["corrects"], words, start)
    rest = _read(words, start)
    if rest is not None and rest.sign < 0:
        return _BAD
    if "how" in words or not GUIDES.isdisjoint(words):
        guides = any(_opens_guide(words, place) for place in range(start, len(words)))
        if guides:
            return _NEUTRAL
    return Word(Kind.VERB, 1, -1)


def _read_ill(_: Word, words: list[str], start: int) -> Word | None:
    """No verdict on "wrong answers are corrected"."""
    return _BAD if _predicate(words, start) is None else None


def _read_noun(noun: Word, words: list[str], start: int) -> Word | None:
    return Word(Kind.VERB, noun.sign, noun.negated) if _ends_noun(words, start) else None


def _read_verb(verb: Word, words: list[str], start: int) -> Word | None:
    """A neutral verb is what its object is; "contains no errors" negates the object."""
    if verb.sign:
        return _read_signed(verb, words, start)
    if verb.object in (Object.TOPIC, Object.CLAUSE):
        sign = _adverb_sign(words, start)
        if sign:
            return Word(Kind.VERB, sign, -sign)
        is_plain = verb.object is Object.TOPIC or not _CLAUSES.isdisjoint(words[start : start + 1])
        return verb if is_plain else _NEUTRAL
    place = _after_skipped(words, start)
    lacks = place < len(words) and WORDS.get(words[place], _NEUTRAL).kind is Kind.NOT
    if lacks:
        return _read_lack(words, place + 1)
    sign = _object_sign(words, start, verb.object)
    owed = verb.object is Object.GIVEN and words[place : place + 1] and words[place] in OWED
    return Word(Kind.VERB, sign, -sign or -bool(owed))


def _read_signed(verb: Word, words: list[str], start: int) -> Word | None:
    """The verb where its object makes the verdict plain, else a neutral one."""
    if _is_negated(words, start):
        return None
    plain = True
    if verb.object is Object.HEEDED:
        plain = _is_heeded(words, start)
    elif verb.object is Object.SAID:
        plain = not SAID.isdisjoint(words[start : start + OBJECT_WORDS])
    elif verb.object is Object.NONE:
        plain = start == len(words) or WORDS.get(words[start], _NEUTRAL).kind is Kind.STOP
    return verb if plain else _NEUTRAL


def _after_skipped(words: list[str], place: int) -> int:
    while place < len(words) and WORDS.get(words[place]) is _SKIPPED:
        place += 1
    return place


def _is_negated(words: list[str], start: int) -> bool:
    """Whether the object is nothing, or a part of what it should be."""
    place = _after_skipped(words, start)
    if place == len(words):
        return False
    return words[place] == "only" or WORDS.get(words[place], _NEUTRAL).kind is Kind.NOT


def _is_heeded(words: list[str], start: int) -> bool:
    """Whether the object is what any answer owes to heed."""
    for text in words[start:]:
        skipped = WORDS.get(text) is _SKIPPED or text in _OBJECT_PREPOSITIONS
        if not skipped and text not in _POSSESSORS:
            return text in HEEDED and HARMS.isdisjoint(words)
    return False


def _read_lack(words: list[str], start: int) -> Word:
    sign = -_object_sign(words, start, Object.PART)
    if not sign and start < len(words):
        sign = WORDS.get(words[start], _NEUTRAL).negated
    return Word(Kind.VERB, sign, -sign)


def _adverb_sign(words: list[str], start: int) -> int:
    """The sign of how something is done: "handles empty input correctly"."""
    following = words[start : start + OBJECT_WORDS]
    if _JUDGING.isdisjoint(following):
        return 0
    for text in following:
        word = WORDS.get(text, _NEUTRAL)
        if word.kind is Kind.STOP:
            return 0
        if text.endswith("ly") and word.kind in (Kind.WELL, Kind.ILL):
            return word.sign
    return 0


def _object_sign(words: list[str], start: int, kind: str) -> int:
    """The sign of the first property that the words of an object give to what is said."""
    if start < len(words) and words[start] in _OBJECT_PREPOSITIONS:
        start += 1
    if _SIGNED.isdisjoint(words[start : start + OBJECT_WORDS]):
        return 0
    sign = 0
    first = True  # so far no word that may be what the object is itself
    for place in range(start, min(start + OBJECT_WORDS, len(words))):
        text = words[place]
        if (text in GUIDES or text == "how") and _opens_guide(words, place):
            harmful = sign < 0 or not HARMS.isdisjoint(words[place:])
            return -1 if harmful else 0
        if sign and text in SAID:
            return sign if _ends_said(words, place + 1) else 0
        word = WORDS.get(text, _NEUTRAL)
        if word.kind is Kind.STOP or (text in _TOWARDS and not first):
            return 0
        if word.kind in (Kind.FAULT, Kind.VIRTUE):
            of_noun = _noun_sign(words, start, place, kind)
            return 0 if of_noun == -sign else of_noun  # "appropriate jargon"
        counts = word.kind is Kind.ILL or (word.kind is Kind.WELL and kind is not Object.ADVICE)
        if counts and first:
            sign = word.sign
            if kind is Object.LOOK and _ends_look(words, place + 1):
                return sign
        first = first and (word is _SKIPPED or text in _AMOUNTS)
    return 0


def _noun_sign(words: list[str], start: int, place: int, kind: str) -> int:
    word = WORDS[words[place]]
    if word.kind is Kind.FAULT and kind is Object.GIVEN:
        return 0
    if words[place] in _SINGULAR and {"a", "an"}.isdisjoint(words[start:place]):
        return 0
    return word.sign if _ends_noun(words, place + 1) else 0


def _ends_noun(words: list[str], place: int) -> bool:
    """Whether the fault noun before stands alone, and no other is made of it."""
    if place == len(words):
        return True
    text = words[place]
    if text in _NOT_OF_THE_ANSWER or (words[place - 1] in _SINGULAR and text in _PURPOSES):
        return False
    return WORDS.get(text, _NEUTRAL).kind is Kind.STOP


def _ends_said(words: list[str], place: int) -> bool:
    """Whether no other noun follows: "an incorrect answer option", "as a distractor"."""
    if place == len(words) or words[place] in ("such", "like"):
        return True
    return words[place] != "as" and (words[place] in WORDS or words[place] in SAID)


def _ends_look(words: list[str], place: int) -> bool:
    if place == len(words) or words[place] == "to":
        return True
    return WORDS.get(words[place], _NEUTRAL).kind is Kind.STOP


def _opens_guide(words: list[str], place: int) -> bool:
    return words[place] in GUIDES or words[place : place + 2] == ["how", "to"]


_READERS: dict[str, Callable[[Word, list[str], int], Word | None]] = {
    Kind.NOT: _read_not,
    Kind.MODAL: _read_modal,
    Kind.HEDGE: lambda *_: None,
    Kind.FAIL: _read_fail,
    Kind.OMIT: _read_omit,
    Kind.AVOID: _read_avoid,
    Kind.REFUSE: _read_refuse,
    Kind.WELL: _read_well,
    Kind.ILL: _read_ill,
    Kind.VIRTUE: _read_noun,
    Kind.FAULT: _read_noun,
    Kind.STOP: lambda *_: _NEUTRAL,
    Kind.VERB: _read_verb,
}
