"""The key of an endpoint: read from the environment, sent, and never shown."""

import base64
import html
import json
import os
import re
from urllib.parse import quote, quote_plus, urlsplit

from rubric_rl.common.errors import UserError

LEADING = 8  # characters of a key that tell it
SHORTEST = 6  # characters of a coded key that are looked for; fewer stand in any text


class Key:
    """The key that the environment variable holds, if one is named."""

    def __init__(self, variable: str, prefix: str):
        """Raises UserError when the variable is unset or holds what no header can carry.

        The message does not repeat the name: someone may have put the key itself there.
        """
        self._key = os.environ.get(variable, "").strip(" \t\r\n") if variable else ""
        name = f"{prefix}api_key_env"
        if variable and not self._key:
            what = f"{name} must name an environment variable that holds the key"
            raise UserError(f"{what}; it is not set")
        if not re.fullmatch("[!-~]*", self._key):
            what = f"{name} names a variable whose value is no key: only printable ASCII can be"
            raise UserError(f"{what}, without spaces or line ends; export it again")
        forms = sorted(_codings(self._key), key=len, reverse=True) if self._key else []
        alternatives = "|".join(map(re.escape, forms))
        if len(self._key) > LEADING:  # a server may show its beginning, and mask or split the rest
            alternatives += f"|{re.escape(self._key[:LEADING])}[!-~]*"
        self._shown = re.compile(alternatives, re.IGNORECASE) if forms else None

    def __bool__(self) -> bool:
        return bool(self._key)

    def headers(self, url: str) -> dict[str, str]:
        """The header that carries the key; Azure's, whose URLs have an api-version, has a name."""
        if not self._key:
            return {}
        if "api-version=" in urlsplit(url).query:
            return {"api-key": self._key}
        return {"Authorization": f"Bearer {self._key}"}

    def hide(self, text: str) -> str:
        """The text without the key, should a server repeat it, plain or coded."""
        return self._shown.sub("***", text) if self._shown else text


def _codings(key: str) -> set[str]:
    """How a server may write the key: as it is, escaped, in hexadecimal digits, in base 64."""
    forms = {
        key,
        quote(key, safe=""),
        quote_plus(key),
        json.dumps(key)[1:-1],
        html.escape(key),
    }
    coded = {key.encode().hex()}
    for before in range(3):  # in base 64 a key looks different after one or two other bytes
        surrounded = b"\0" * before + key.encode() + b"\0" * 3
        whole = base64.b64encode(surrounded).decode()
        first = -(-before * 4 // 3)
        last = (before + len(key)) * 4 // 3
        piece = whole[first:last]
        coded |= {piece, piece.replace("+", "-").replace("/", "_"), quote(piece, safe="")}
    return forms | {form for form in coded if len(form) >= SHORTEST}
