"""The key of an endpoint, and what opens a proxy: from the environment, sent, and never shown.

A message hides every secret. What models write is graded and read as it is, and hides one only
where a line of it is written, and only one that may be a secret: the word `empty` is none, though
many a server's key is EMPTY.
"""

import base64
import html
import json
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import keep_secret, without_secrets

LEADING = 8  # characters of a secret that tell it
SHORTEST = 8  # characters of a secret that are looked for inside of words, and in codings
# What is shorter, or has no digit, is no secret but a word: EMPTY, test, sk-no-key-required.
_SECRET = re.compile("(?=.*[0-9]).{16,}|.{24,}")
_LONG_NUMBER = re.compile("&#0*([0-9]{1,7})[0-9]*")
_CODINGS = 4  # forms of a text that are looked at: each undoes a coding of the one before
_ESCAPE = re.compile(
    r'(?:(?<!\\)\\++(?:U000000|u00|u\{|x)|%u00)([0-9a-f]{2})\}?|\\(?=["\'/\\])', re.IGNORECASE
)
# What may part a secret: a reader looks past it, and so does what reads base 64.
_PARTING = b" \t\n\r\0*"
_UNSEEN = [sign.encode() for sign in "\u00a0\u00ad\u200b\u200c\u200d\u2028\u2060\ufeff"]


class Secret:
    """A text that is sent and never shown; "" is none."""

    def __init__(self, name: str, text: str):
        """From now on no value in a line of JSON that this process writes holds it, if it is one.

        `name` tells it from other secrets of this process.
        """
        self.text = text
        forms = sorted(_codings(text), key=len, reverse=True)
        whole = "|".join(map(re.escape, forms))
        pattern = re.compile(whole, re.IGNORECASE)
        if _SECRET.fullmatch(text):
            sought = _sought(forms)
            keep_secret(name, lambda line: _replaced(pattern, sought, line, parted=True))
        # A server may show its beginning, and mask or split the rest.
        beginning = text[:LEADING]
        self._sought = _sought([*forms, beginning])
        self._shown = re.compile(f"{whole}|{re.escape(beginning)}[!-~]*", re.IGNORECASE)
        if len(text) < SHORTEST:
            self._shown = re.compile(rf"(?<!\w){re.escape(text)}(?!\w)")

    def hide(self, message: str) -> str:
        """The message without the secret, should a server repeat it, plain or coded.

        For messages alone: a word that is the key of a server is hidden, too.
        """
        if not self.text:
            return message
        return _replaced(self._shown, self._sought, without_secrets(message))


class Key(Secret):
    """The key that the environment variable holds, if one is named."""

    def __init__(self, variable: str, prefix: str):
        """Raises UserError when the variable is unset or holds what no header can carry.

        The message does not repeat the name: someone may have put the key itself there.
        """
        key = os.environ.get(variable, "").strip(" \t\r\n") if variable else ""
        name = f"{prefix}api_key_env"
        if variable and not key:
            what = f"{name} must name an environment variable that holds the key"
            raise UserError(f"{what}; it is not set")
        if not re.fullmatch("[!-~]*", key):
            what = f"{name} names a variable whose value is no key: only printable ASCII can be"
            raise UserError(f"{what}, without spaces or line ends; export it again")
        super().__init__(variable, key)

    def headers(self, url: str) -> dict[str, str]:
        """The header that carries the key; Azure's, whose URLs have an api-version, has a name."""
        if not self.text:
            return {}
        if "api-version=" in urlsplit(url).query:
            return {"api-key": self.text}
        return {"Authorization": f"Bearer {self.text}"}


def secrets_of(proxy: str | None) -> list[Secret]:
    """What opens a proxy: the password in its URL, and the header that is made of it.

    The user's name too where it is all there is, or no word.
    """
    parts = urlsplit(proxy or "")
    name = unquote(parts.username or "")
    password = unquote(parts.password or "")
    if not name and not password:
        return []
    sent = f"{name}:{password}".encode("latin-1", errors="replace")
    header = base64.b64encode(sent).decode()
    secrets = {"header": header, "password": password}
    if not password or _SECRET.fullmatch(name):
        secrets["user name"] = name
    return [Secret(f"the proxy's {what}", text) for what, text in secrets.items()]


def refuse_keys(settings: Mapping[str, Any], prefix: str = "") -> None:
    """Raises UserError with the name of a setting that holds a key of this process."""
    for name, value in settings.items():
        if without_secrets(value) != json.loads(json.dumps(value, default=str)):
            what = f"{prefix}{name} holds the key, which would stand in logs and settings"
            raise UserError(f"{what}; leave it out")


def _replaced(
    pattern: re.Pattern, sought: dict[bytes, str], text: str, parted: bool = False
) -> str:
    """The text with *** for what matches; where only its meaning does, that instead.

    What matches holds one of those sought (`_sought`): to look for these first is much faster.
    With `parted`, something that a reader looks past may stand between its letters.
    """
    shown = meant = text
    for _ in range(_CODINGS):
        if _may_hold(meant, sought):
            hidden = pattern.sub("***", meant)
            hidden = _hidden_parted(pattern, hidden) if parted else hidden
            if hidden != meant:
                shown = meant = hidden
        before = meant
        if any(sign in meant for sign in "%&\\"):  # else there is no coding that could be undone
            meant = _meaning(meant)
        if meant == before:
            break
    return shown


def _sought(forms: list[str]) -> dict[bytes, str]:
    """The letters of each form, and its signs: digits come first, which few texts have all of."""
    unparted = map(_unparted, forms)
    return {letters: "".join(sorted(set(letters.decode()))) for letters in unparted}


def _may_hold(text: str, sought: dict[bytes, str]) -> bool:
    lower = text.lower()
    likely = [form for form, signs in sought.items() if all(sign in lower for sign in signs)]
    letters = _unparted(text) if likely else b""
    return any(form in letters for form in likely)


def _unparted(text: str) -> bytes:
    """The text in small letters, without what may part a secret."""
    letters = text.lower().encode(errors="surrogatepass").translate(None, _PARTING)
    for sign in _UNSEEN:
        letters = letters.replace(sign, b"")
    return letters


def _hidden_parted(pattern: re.Pattern, text: str) -> str:
    """The text with *** from the first to the last letter of each match in it, unparted."""
    places = [place for place, sign in enumerate(text) if _unparted(sign)]
    letters = "".join(text[place] for place in places)
    for match in reversed(list(pattern.finditer(letters))):
        text = f"{text[: places[match.start()]]}***{text[places[match.end() - 1] + 1 :]}"
    return text


def _meaning(text: str) -> str:
    """The text with percent signs, entities of HTML and backslashes undone once."""
    # Python reads no number of thousands of digits; none of those has a meaning either.
    plain = html.unescape(_LONG_NUMBER.sub(r"&#\1", unquote(text)))
    return _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)) if escape[1] else "", plain)


def _codings(key: str) -> set[str]:
    """How a server may write a secret: as it is, escaped, in hexadecimal digits, in base 64."""
    forms = {
        key,
        quote(key, safe=""),
        quote_plus(key),
        json.dumps(key)[1:-1],
        html.escape(key),
        key.encode().hex(),
        *(key.encode().hex(sign) for sign in " :-"),
    }
    utf_16 = key.encode("utf-16-le")[:-1]  # in either order of its bytes
    for before in range(3):  # in base 64 a key looks different after one or two other bytes
        for written in (key.encode(), utf_16):
            surrounded = b"\0" * before + written + b"\0" * 3
            whole = base64.b64encode(surrounded).decode()
            first = -(-before * 4 // 3)
            last = (before + len(written)) * 4 // 3
            piece = whole[first:last]
            forms |= {piece, piece.replace("+", "-").replace("/", "_"), quote(piece, safe="")}
    return forms
