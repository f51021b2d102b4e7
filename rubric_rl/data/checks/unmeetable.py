"""Criteria that no text can meet or miss, where their wording says so plainly."""

import re

# Why no verdict tells answers apart -> how such a criterion reads.
_REASONS = {
    "says nothing": r"^\W*(?:n/?a|none|null|nan|tbd|todo|placeholder|criterion|\.\.\.|test)?\W*$",
    "an unfilled placeholder": r"\{[a-z_ ]+\}|\[(?:insert|your|todo)\b|<(?:insert|placeholder)\b"
    r"|\blorem ipsum\b|\bx{3,}\b",
    "every text meets it": r"\b(?:contains?|includes?|uses?|has) (?:at least one |some )?"
    r"(?:words?|text|characters?|letters?)\W*$"
    r"|^\W*(?:the )?(?:response|answer) (?:exists|is (?:an?|the) (?:response|answer|text))\W*$"
    r"|\b(\w{4,}?)(?:e?s)?\b.{0,60}\bor (?:does not|doesn.t) \1\b",
    "needs more than a text": r"^\W*(?:the (?:response|answer) )?(?:must |should )?"
    r"(?:(?:draws?|displays?|shows?|plots?|attach(?:es)?|embeds?|uploads?|plays?|sends?|includes?|"
    r"provides?) (?:\w+ ){0,2}(?:image|photo|picture|screenshot|video|audio|attachment|"
    r"sound|recording)s?\b"
    r"|(?:calls?|phones?|emails?|visits?|examines?) the (?:user|patient|doctor)\b"
    r"|(?:executes?|runs?) the code\b|(?:searches|browses) the (?:web|internet)\b)",
    "needs knowledge of what comes later": r"\b(?:the user|patient) (?:will )?"
    r"(?:later|eventually) (?:recover|report|confirm|return)s?\b"
    r"|\b(?:tomorrow|next week|next year).s (?:lottery|price|result|winner)"
    r"|\bbefore the (?:user|question) (?:asks|is asked)\b",
    "needs other answers": r"\b(?:better|longer|shorter|worse) than (?:the )?(?:other|previous|"
    r"reference) (?:responses?|answers?)\b|\bthan response [ab12]\b",
}
_ANY = [(reason, re.compile(pattern, re.IGNORECASE)) for reason, pattern in _REASONS.items()]
# One of these stands in each text that a pattern finds: a cheap look before the long one.
_HINTS = (
    *("{", "[", "<", "xxx", "ipsum", "word", "text", "charact", "letter", "exists", " or do"),
    *("image", "photo", "picture", "screens", "video", "audio", "attach", "sound", "recording"),
    *("the user", "the patient", "the doctor", "the code", "the web", "the internet"),
    *("answer is", "response is", "later", "eventually", "tomorrow", "next ", "before the", "than"),
)
_SHORT = 12  # characters: "N/A", "placeholder"


def unmeetable(text: str) -> str:
    """Why every answer, or none, meets the criterion; "" where its wording does not say so."""
    lower = text.lower()
    if len(text) > _SHORT and not any(hint in lower for hint in _HINTS):
        return ""
    for reason, pattern in _ANY:
        if pattern.search(text):
            return reason
    return ""
