"""The JSON objects of a grader's reply, where no text quoted in it can pass for one.

The reply may quote the graded answer, whose author gains by a verdict of his own, and may quote it
carelessly: with bare quotes inside a string, in a form that is no JSON. So three rules hold:

- What begins like an object and is none makes the whole reply unreadable. Where the broken object
  ends, nobody knows, so what follows may be a quotation inside it.
- Braces of the text around it, as in \\frac{1}{2}, are passed over where they cannot be those of an
  object: closed, without double quotes and without anything like `name:` in them.
- Mended is only what has one meaning: raw line breaks in strings, backslashes that JSON does not
  know, a comma before a closing bracket, white space that JSON does not know.
"""

import json
import re
from dataclasses import dataclass


class Unclear(ValueError):
    """The reply holds what may be a broken object."""


@dataclass(frozen=True)
class FoundObject:
    """A JSON object that stands in a reply, in no other object, from `start` to `end`."""

    item: dict
    start: int
    end: int


# White space of every kind, and the spaces of no width.
_SPACE = r"[\s\ufeff\u200b]"
_OPENING = re.compile(rf'\{{{_SPACE}*"')  # a brace that begins an object with a key
_STRING = r'"(?:[^"\\]++|\\.)*+"'
_BRACE = re.compile(r"[{}]")
_BRACE_OR_STRING = re.compile(rf'{_STRING}|[{{}}"]', re.DOTALL)
_BRACE_OR_QUOTE = re.compile(r'[{}"“”„]')
# What a broken object holds, whatever its quotes are: `name:`. One letter may be a variable.
_MEMBER = re.compile(r"\b[^\W\d]\w++[^\w\s]?\s*+[:=]")


def objects_in(text: str) -> list[FoundObject]:
    """The objects of the text in their order. Raises Unclear where it may hold a broken one."""
    found: list[FoundObject] = []
    position = 0
    while brace := _BRACE.search(text, position):
        start = brace.start()
        if brace[0] == "}":
            # Graders close one brace too many; elsewhere it is the rest of a broken object.
            if not found or text[found[-1].end : start].strip():
                raise Unclear
            position = brace.end()
        elif _OPENING.match(text, start):
            position = _object_end(text, start)
            found.append(FoundObject(_decode(text[start:position]), start, position))
        else:
            position = _other_braces_end(text, start)
    return found


def _object_end(text: str, start: int) -> int:
    """Where the object that begins at `start` is closed."""
    depth = 0
    for token in _BRACE_OR_STRING.finditer(text, start):
        if token[0] == '"':  # a string that never ends
            break
        if token[0] == "{":
            depth += 1
        elif token[0] == "}":
            depth -= 1
        if depth == 0:
            return token.end()
    raise Unclear


def _other_braces_end(text: str, start: int) -> int:
    """Where the braces that begin at `start`, and are no object's, are closed."""
    depth = 0
    for token in _BRACE_OR_QUOTE.finditer(text, start):
        if token[0] == "{":
            depth += 1
        elif token[0] == "}":
            depth -= 1
        else:
            break
        if depth == 0:
            if _MEMBER.search(text, start, token.end()):
                break
            return token.end()
    raise Unclear


# ---- from text to values


def _decode(text: str) -> dict:
    """The object that is written here. Raises Unclear where it is none, even when mended."""
    try:
        return _EXACT.decode(text)
    except (ValueError, RecursionError):
        mended = _LAX.sub(_mended, text)
    try:
        return _LENIENT.decode(mended)
    except (ValueError, RecursionError):
        raise Unclear from None


def _mended(token: re.Match) -> str:
    """What JSON knows in place of a string, a white space, or a comma that nothing follows."""
    if token["string"]:
        return _mended_string(token["string"])
    return " " if token["space"] else ""


def _mended_string(string: str) -> str:
    mended = _ESCAPE.sub(lambda escape: escape[0] if len(escape[0]) > 1 else r"\\", string)
    exact = mended == string and not _CONTROL.search(string)
    # What is no exact string and names the form's keys may be what stands between two strings.
    if not exact and _FORM.search(string):
        raise Unclear
    return mended


def _without_repeats(pairs: list[tuple]) -> dict:
    """The object of these pairs; one that says two things under one key says nothing."""
    item = dict(pairs)
    if len(item) != len(pairs):
        raise Unclear
    return item


_LAX = re.compile(rf"(?P<string>{_STRING})|,(?={_SPACE}*[}}\]])|(?P<space>{_SPACE})", re.DOTALL)
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|\\')
_CONTROL = re.compile(r"[\x00-\x1f]")
_FORM = re.compile(r"criteria\\?_met|verdicts")  # Markdown has a backslash before each _

_EXACT = json.JSONDecoder(object_pairs_hook=_without_repeats)
_LENIENT = json.JSONDecoder(object_pairs_hook=_without_repeats, strict=False)  # raw line breaks
