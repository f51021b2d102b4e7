"""What a text shows a reader, whatever characters write it: the same as another, one line, none.

Unicode writes one text in many ways: composed and decomposed letters, wide and narrow forms, upper
and lower case, and between them characters that nobody sees.
"""

import unicodedata
from collections.abc import Iterable, Mapping

# Characters that no reader sees, though Unicode counts them as letters, marks or symbols: the
# combining grapheme joiner, Hangul fillers, Khmer's inherent vowels, selectors of variants, tags.
_UNSEEN = {
    0x034F,
    0x115F,
    0x1160,
    0x17B4,
    0x17B5,
    *range(0x180B, 0x1810),
    0x2065,
    0x3164,
    *range(0xFE00, 0xFE10),
    0xFFA0,
    *range(0xFFF0, 0xFFF9),
    0x16FE4,
    *range(0xE0000, 0xE1000),
    0x2800,  # blanks: of Braille, and a note's head in music
    0x1D159,
}


class _Seen(dict):
    """A table for str.translate that leaves out what no reader sees; filled as texts need it."""

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        control = unicodedata.category(character) in ("Cc", "Cf") and not character.isspace()
        self[code] = None if control or code in _UNSEEN else code
        return self[code]


_SEEN = _Seen()
_NO_INK = bytes((*range(0x21), 0x7F))  # of ASCII, all but these can be seen
# Controls, and marks that turn the direction of what follows, also beyond the text.
_DIRECTIONS = (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_NO_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), *_DIRECTIONS))


def comparable(text: str) -> str:
    """The text in the form in which equal ones are equal.

    Case, white space, Unicode's composed, decomposed and compatible forms and characters that no
    reader sees make no difference. Letters, their order and punctuation do. White space is left
    out as a whole: a blank of another kind may stand in its place.
    """
    if text.isascii():
        # As below, many times faster.
        return text.encode().translate(None, _NO_INK).lower().decode()
    seen = unicodedata.normalize("NFD", text.translate(_SEEN))
    # Upper case first: some letters, such as the dotless i, meet only there.
    caseless = seen.upper().casefold()
    # What a compatible character stands for may have upper case of its own.
    compatible = unicodedata.normalize("NFKC", caseless).upper().casefold()
    letters = "".join(unicodedata.normalize("NFKC", compatible).translate(_SEEN).split())
    return unicodedata.normalize("NFKC", letters)  # accents that stood on a space join a letter


def as_shown(text: str) -> str:
    """The text in the form in which those that look the same are equal.

    Case and indents, which may be what is asked for, are told apart. Unseen characters, Unicode's
    composed and decomposed forms, blank lines around it and how many blanks stand between words
    make no difference.
    """
    seen = unicodedata.normalize("NFC", text.translate(_SEEN))
    lines = []
    for line in seen.strip("\r\n").rstrip().splitlines():
        indent = line[: len(line) - len(line.lstrip())].expandtabs()
        lines.append(indent + " ".join(line.split()))
    return "\n".join(lines)


def one_line(text: str, limit: int | None = None) -> str:
    """The words of the text with one blank between them, cut to `limit` characters.

    Without control characters, which move a terminal's cursor or give it orders, and without marks
    of direction, which have it show words in another order.
    """
    return " ".join(text.split()).translate(_NO_CONTROLS)[:limit]


def shows_something(text: str) -> bool:
    """Whether there is a character to see: not only white space, controls, fillers or accents."""
    if text.isascii():
        return bool(text.encode().strip(_NO_INK))
    for character in text:
        kind = unicodedata.category(character)[0]
        if kind not in "ZM" and not character.isspace() and _SEEN[ord(character)]:
            return True
    return False


def conversation(messages: Iterable[Mapping]) -> tuple:
    """What makes two conversations the same one, whatever their prompt_id and Unicode form.

    A message that shows nothing is no part of it.
    """
    shown = (message for message in messages if shows_something(message["content"]))
    return tuple((message["role"], comparable(message["content"])) for message in shown)
