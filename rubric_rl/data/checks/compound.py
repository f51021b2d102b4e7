"""The single conditions of a compound criterion, which a grader meets or misses as a whole."""

import re
from itertools import pairwise

from rubric_rl.data.checks.wording import without_label, words_in
from rubric_rl.data.checks.words import WORDS, Kind, Object

# In brackets or quoted. A single quote opens before a word; an apostrophe is in one or ends it.
_BRACKETS = re.compile(
    r"\([^()]*\)|\[[^\[\]]*\]|\"[^\"]*\"|\u201c[^\u201d]*\u201d"
    r"|(?<!\w)'(?:[^']|(?<=\w)'(?=\w))+'(?!\w)"
    r"|\u2018(?:[^\u2018\u2019]|(?<=\w)\u2019(?=\w))+\u2019"
)
# Where another condition may begin: it does if a verb of the same form as the first follows.
_JOINT = re.compile(
    r"(?:[,;]\s*(?:and\s+)?(?:also\s+)?|\s+and\s+(?:also\s+)?|[.;]\s+)(?=([A-Za-z]+)\b)"
)
_SUBJECT = re.compile(
    r"(?:the|an?|this|it)?\s*(?:response|answer|reply|completion|assistant|model|output|it)\s+"
    r"(?:(?:should|must|needs to|has to|will|shall)\s+)?",
    re.IGNORECASE,
)
_MODAL = re.compile(r"(?:should|must|to|will|shall)\s+$", re.IGNORECASE)
_BOTH = re.compile(r"^(?P<verb>.*?)\bboth\s+(?P<one>[^,;]+?)\s+and\s+(?P<two>[^,;]+?)$")
# What is done to two things together: neither of them alone.
_TOGETHER = re.compile(
    r"\b(?:compar|distinguish|differentiat|contrast|balanc|weigh)", re.IGNORECASE
)
_CLAUSE = re.compile(r"\b(?:that|who|which|how|why|whether|where|when|if|what|because|or)\b")
# A part that ends so says nothing without the one before: "lists the triggers and avoids them".
_REFERS = re.compile(r"\b(?:them|it|these|those|each|separately|both|why|how)\W*$", re.IGNORECASE)
_ALTERNATIVES = re.compile(r"\b(?:one|two|three|any|some|most) of\b|\beither\b", re.IGNORECASE)
_WORD = re.compile(r"[a-z]+")
_ACTS = {Kind.FAIL, Kind.OMIT, Kind.AVOID, Kind.VERB}
_ACT_WORDS = frozenset(text for text, word in WORDS.items() if word.kind in _ACTS)
_JOINING = _ACT_WORDS | {"both"}  # without one of these behind its first word it is a simple one


def parts(text: str) -> list[str]:
    """The conditions that the criterion joins, in its order; the text alone if it is a simple one.

    Alternatives ("or"), lists of nouns and examples stay whole: only what says of each condition
    what the answer does is taken apart. Each part repeats the class and the subject that the text
    opens with.
    """
    # A cheap look: nothing is done but by the first word.
    if text.isascii() and text[:1].isalpha() and _JOINING.isdisjoint(words_in(text)[1:]):
        return [text]
    labelled = text.strip()
    stripped = without_label(labelled)
    if "\n" in stripped:  # instructions of several lines are one judgement
        return [text]
    if not _may_join(stripped.lower().split()) or _ALTERNATIVES.search(stripped):
        return [text]
    masked = stripped
    if any(mark in stripped for mark in "([\"'\u201c\u2018"):
        masked = _BRACKETS.sub(lambda found: "_" * len(found[0]), stripped)
    subject = _SUBJECT.match(masked)
    start = subject.end() if subject else 0
    finite = not (subject and _MODAL.search(subject[0]))
    first, _, _ = masked[start:].partition(" ")
    if first == "not":  # it denies all that follows
        return [text]
    if finite and (not _is_finite(first) or first.lower() in ("does", "is", "has")):
        return [text]
    pieces = _pieces(masked, start, finite)
    opening = stripped[:start]
    whole = []
    for begin, end in pieces:
        piece = stripped[begin:end].strip(" ,;.")
        if " " in piece:  # what is left of a joint, such as "However", is no condition
            whole.append(_sentence(opening, piece))
    if any(map(_REFERS.search, whole[1:])):
        return [text]
    if len(whole) == 1:
        whole = _both(stripped, masked)
    label = labelled.removesuffix(stripped)
    return [label + part for part in whole] or [text]


def _may_join(words: list[str]) -> bool:
    """A cheap look: whether a verb stands where another condition may begin."""
    if "both" in words:
        return True
    if _ACT_WORDS.isdisjoint(words[1:]):
        return False
    for before, word in pairwise(words):
        if word in _ACT_WORDS and (before in ("and", "also") or before[-1] in ",;."):
            return True
    return False


def _pieces(masked: str, start: int, finite: bool) -> list[tuple[int, int]]:
    found = []
    begin = start
    for joint in _JOINT.finditer(masked, start):
        if _opens_condition(joint[1], masked[begin : joint.start()], joint[0], finite):
            found.append((begin, joint.start()))
            begin = joint.end()
    return [*found, (begin, len(masked))]


def _opens_condition(verb: str, before: str, joint: str, finite: bool) -> bool:
    word = WORDS.get(verb.lower())
    if word is None or word.kind not in _ACTS or len(before.split()) < 2:
        return False
    if finite != _is_finite(verb) or verb.endswith(("ing", "ed")):
        return False
    if joint.lstrip().startswith("."):
        return verb[0].isupper()
    clauses = _CLAUSE.split(before)
    if len(clauses) == 1:
        return True
    # Within "states that the clinic offers tests and provides care" it is the clinic that does;
    # so it is for any verb where it has one already: "advises rest and recommends water".
    return word.object is Object.TOPIC and not _has_act(clauses[-1], finite)


def _has_act(clause: str, finite: bool) -> bool:
    """Whether somebody does something in the clause, by a verb of that form."""
    words = _WORD.findall(clause.lower())
    return any(word in _ACT_WORDS and _is_finite(word) == finite for word in words)


def _is_finite(verb: str) -> bool:
    """Whether it is "explains" rather than "explain": "address" and "discuss" end in s as well."""
    return verb.endswith("s") and not verb.endswith("ss")


def _both(text: str, masked: str) -> list[str]:
    """The two conditions of "mentions both X and Y", where X and Y are short."""
    found = _BOTH.match(masked.rstrip("."))
    if not found or _CLAUSE.search(masked) or len(found["two"].split()) > 5:
        return []
    if _TOGETHER.search(found["verb"]):
        return []
    verb = text[: found.end("verb")]
    one = text[found.start("one") : found.end("one")]
    two = text[found.start("two") : found.end("two")]
    return [f"{verb}{one}.", f"{verb}{two}."]


def _sentence(opening: str, piece: str) -> str:
    if opening:
        return f"{opening}{piece[0].lower()}{piece[1:]}."
    return f"{piece[0].upper()}{piece[1:]}."
