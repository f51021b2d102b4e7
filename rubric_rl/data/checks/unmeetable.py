"""Criteria that no text can meet or miss, where their wording says so plainly."""

import re

from rubric_rl.data.checks.wording import without_label, words_in

_SAYS_NOTHING = r"\W*(?:n/?a|none|null|nan|tbd|todo|placeholder|criterion|\.\.\.|test)?\W*$"
# Not the braces of a formula: \text{kg}, x^{th}, \frac{ab}{cd}.
_PLACEHOLDER = (
    r"(?<![\\\w^_}])\{[a-z_ ]{2,}\}|\[(?:insert|your|todo)\b|<(?:insert|placeholder)\b"
    r"|\blorem ipsum\b|\bx{3,}\b"
)
_HAS_WORDS = (
    r"\b(?:contains?|includes?|uses?|has) (?:at least one |some )?"
    r"(?:words?|text|characters?|letters?)\W*$"
)
_IS_AN_ANSWER = (
    r"\W*(?:the )?(?:response|answer) (?:exists|is (?:an?|the) (?:response|answer|text))\W*$"
)
_DOES_OR_NOT = r"\b(\w{4,}?)(?:e?s)?\b.{0,60}\bor (?:does not|doesn.t) \1\b"
_DOES_MORE = (
    r"\W*(?:the (?:response|answer) )?(?:must |should )?"
    r"(?:(?:draws?|displays?|shows?|plots?|attach(?:es)?|embeds?|uploads?|plays?|sends?|includes?|"
    r"provides?) (?:\w+ ){0,2}(?:image|photo|picture|screenshot|video|audio|attachment|"
    r"sound|recording)s?\b"
    r"|(?:calls?|phones?|emails?|visits?|examines?) the (?:user|patient|doctor)\b"
    r"|(?:executes?|runs?) the code\b|(?:searches|browses) the (?:web|internet)\b)"
)
_COMES_LATER = (
    r"\b(?:the user|patient) (?:will )?(?:later|eventually) (?:recover|report|confirm|return)s?\b"
    r"|\b(?:tomorrow|next week|next year).s (?:lottery|price|result|winner)"
    r"|\bbefore the (?:user|question) (?:asks|is asked)\b"
)
_OTHER_ANSWERS = (
    r"\b(?:better|longer|shorter|worse) than (?:the )?(?:other|previous|reference) "
    r"(?:responses?|answers?)\b|\bthan response [ab12]\b"
)
_EVERY_TEXT = "every text meets it"
# Why no verdict tells answers apart; how such a criterion begins, each in a group of its own.
_OPENINGS = ("says nothing", _EVERY_TEXT, "needs more than a text")
_OPENING = re.compile(f"({_SAYS_NOTHING})|({_IS_AN_ANSWER})|({_DOES_MORE})")
# Why; what each such criterion holds one of, a cheap look before the long one; how a part reads.
PARTS = [
    (
        "an unfilled placeholder",
        ("{", "[", "<", "ipsum", "xxx"),
        _PLACEHOLDER,
    ),
    (_EVERY_TEXT, (" word", " text", " character", " letter"), _HAS_WORDS),
    (_EVERY_TEXT, ("or does",), _DOES_OR_NOT),
    (
        "needs knowledge of what comes later",
        ("later ", "eventually ", "tomorrow", "next week", "next year", "before the "),
        _COMES_LATER,
    ),
    ("needs other answers", ("than ",), _OTHER_ANSWERS),
]
_HINTS = [
    (hint, reason, re.compile(pattern).search) for reason, hints, pattern in PARTS for hint in hints
]
# A text of ASCII without one of these words holds at most those hints that are no whole words.
_WORDS = {
    *("ipsum", "word", "words", "text", "character", "characters", "letter", "letters"),
    *("later", "eventually", "next", "before", "than"),
}
_NO_WORDS = ("{", "[", "<", "xxx", "or does", "tomorrow")
_HINTS_WITHOUT_WORDS = [each for each in _HINTS if each[0] in _NO_WORDS]


def unmeetable(text: str) -> str:
    """Why every answer, or none, meets the criterion; "" where its wording does not say so."""
    has_words = not text.isascii() or not _WORDS.isdisjoint(words_in(text))
    text = without_label(text).lower()
    opening = _OPENING.match(text)
    if opening and opening.lastindex:
        return _OPENINGS[opening.lastindex - 1]
    for hint, reason, find in _HINTS if has_words else _HINTS_WITHOUT_WORDS:
        if hint in text and find(text):
            return reason
    return ""
