"""Words around a verdict that may say the opposite of it; only some English ones are known."""

import re

_DENIAL = r"but|however|wait|wrong|instead|actually|ignor\w*|disregard|forged|fake\w*|quot\w*"
_NO = r"not?|never|cannot|\w+n['\u2019]t|false|unmet|fail\w*|lacks?|miss\w*"
_DENIALS = {
    True: re.compile(rf"\b(?:{_DENIAL}|{_NO})\b", re.IGNORECASE),
    False: re.compile(rf"\b(?:{_DENIAL}|yes|true|(?<!not )met)\b", re.IGNORECASE),
}
# A line before the object that gives the opposite verdict in words, alone or after "verdict:".
_SPACE = r"[^\w\n]*+"
_SAYS = rf"^{_SPACE}(?:(?:final )?(?:verdict|answer|result|conclusion)\b{_SPACE})?"
_OPPOSITES = {
    True: re.compile(rf"{_SAYS}(?:false|no|unmet|not met|fail)\b", re.IGNORECASE | re.MULTILINE),
    False: re.compile(rf"{_SAYS}(?:true|yes|met|pass)\b", re.IGNORECASE | re.MULTILINE),
}


def denied(met: bool | None, before: str, after: str) -> bool:
    """Whether a line before the verdict, or anything after it, may say the opposite."""
    if met is None:
        return False
    return bool(_OPPOSITES[met].search(before) or _DENIALS[met].search(after))
