"""The pieces that rows of all sets are made of: texts, conversations, points, tags, names."""

import ast
import hashlib
import json
import re
from collections.abc import Collection, Iterable
from decimal import Decimal

from rubric_rl.common.errors import DataError
from rubric_rl.common.jsonl import RepeatedKey, loads_all
from rubric_rl.common.plain_text import one_line, shows_something

LEAVE_OUT = "leave the row out, or mend it"
ZERO_POINTS = "criteria of 0 points left out"
NO_POINTS = "criteria without points, which count 1 each"
ID_FIELDS = ("prompt_id", "id", "uid")  # of any rows; a set may have one of its own
KEPT = ("theme", "example_tags", "canary", "provenance")  # fields of any rows that come along
SYSTEM_KEYS = ("system", "system_prompt")  # what stands before the prompt
NOTHING = (None, "", [], (), {})
# How JSON text begins, whole or broken, and what Python shows of a list, a tuple, a dict or an
# array, which is read as broken JSON: unlike "[ ] names the dose" or "[1] names it".
_JSON = re.compile(r"""\s*(?:\[\s*["'\[{]|\{\s*["'}]|\('|\[?array\()""")
_OPENINGS = frozenset('["{(a')
# How messages begin in JSON text, which may be within another one: {"role" or "{\"role\", or with
# another field before it; [{"id": 1}] is what somebody asks about.
_MESSAGES = re.compile(
    r"""\s*(?:\[\s*\{(?=(?s:.*?)["'](?:role|from)["']\s*:\s*["'](?i:user|human|system)\b)"""
    r"""|"?(?:\\n|[\s\[])*\{(?:\\n|\s)*\\*["'](?:role|from|content|messages)\b)"""
)
_OF_OBJECTS = ("tags", "annotations")  # fields of a criterion that hold objects
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_TEXT_PARTS = (None, "text", "input_text", "output_text")
# The roles of other services and of older chat data; an unknown one is refused later, by name.
_ROLES = {
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    "chatbot": "assistant",
}


def text(item: dict, field: str) -> str:
    """The text in a field. Raises DataError where none is."""
    value = item.get(field)
    if not isinstance(value, str) or not shows_something(value):
        raise DataError(f"{field} is missing or no text; {LEAVE_OUT}")
    return value


def label(value: object) -> str:
    """A short text such as a category, "" for none."""
    return value.strip() if isinstance(value, str) else ""


def is_json(words: str) -> bool:
    """Whether a text is written as a JSON list or object, be it broken or encoded twice."""
    opening = words.lstrip()[:1]
    if opening not in _OPENINGS:
        return False  # as most texts
    if _JSON.match(words):
        return True
    if opening in ("(", "a"):
        return False
    try:
        value = json.loads(words)
    except (ValueError, RecursionError):
        return False
    return not isinstance(value, str) or is_json(value)


def _is_any_json(words: str) -> bool:
    try:
        json.loads(words)
    except (ValueError, RecursionError):
        return False
    return True


def decoded(value: object, field: str) -> object:
    """The value that a JSON text holds, which may be JSON text again; anything else as it is.

    Raises DataError for broken JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        found = loads_all(value)
    except RepeatedKey as error:
        raise DataError(f"{field}: {error}; {LEAVE_OUT}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{field} is no JSON, {value!r:.40}; {LEAVE_OUT}") from None
    return decoded(found, field) if isinstance(found, str) and is_json(found) else found


def of_columns(value: object, field: str) -> object:
    """The objects of a list that is stored by field: of {"text": [...], "points": [...]}.

    `datasets` stores lists of objects so. Anything else as it is. Raises DataError where the lists
    are not of one length.
    """
    if not isinstance(value, dict) or len(value) < 2:
        return value
    columns = value.values()
    if not all(isinstance(column, (list, tuple)) for column in columns):
        return value
    for name, column in value.items():
        if name not in _OF_OBJECTS and any(isinstance(each, dict) for each in column):
            return value  # a list of criteria, and others beside it
    lengths = {len(column) for column in value.values()}
    if len(lengths) > 1:
        counts = ", ".join(f"{len(column)} {name}" for name, column in value.items())
        what = f"{field} has lists of several lengths, {one_line(counts, 100)}"
        raise DataError(f"{what}; {LEAVE_OUT}")
    return [dict(zip(value, each, strict=True)) for each in zip(*value.values(), strict=True)]


def listed(value: object, field: str) -> object:
    """The list that is written as JSON text, by field (`of_columns`), or with JSON texts within.

    Anything else as it is. Raises DataError for broken JSON and for lists of several lengths.
    """
    value = of_columns(decoded(value, field), field)
    if not isinstance(value, (list, tuple)):
        return value
    return [_item(each, field) for each in value]


def _item(value: object, field: str) -> object:
    """JSON text within a list; a text that only begins so is a criterion: "['a'] is printed"."""
    if not isinstance(value, str) or not is_json(value):
        return value
    try:
        return decoded(value, field)
    except DataError:
        if _is_whole(value):
            raise
        return value


def _is_whole(words: str) -> bool:
    """Whether a text is JSON, or what Python shows of a list, a tuple, a dict or an array."""
    if _is_any_json(words):
        return True
    if words.strip().startswith("array(") and words.strip().endswith(")"):
        return True
    try:
        ast.literal_eval(words.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False
    return True


def objects(value: object, field: str) -> list[dict]:
    """The objects of a list in any form that `listed` knows. Raises DataError for others."""
    value = listed(value, field)
    if not isinstance(value, (list, tuple)) or not value:
        raise DataError(f"{field} is no list of criteria; {LEAVE_OUT}")
    for number, each in enumerate(value, 1):
        if not isinstance(each, dict):
            raise DataError(f"criterion {number} of {field} is no object; {LEAVE_OUT}")
    return list(value)


def own_objects(value: object, field: str, fields: Collection[str]) -> list[dict]:
    """`objects` that have the fields of their set alone. Raises DataError for others."""
    found = objects(value, field)
    for number, each in enumerate(found, 1):
        for other in other_fields(each, fields):
            what = f"criterion {number} of {field} has {one_line(other, 40)}"
            hint = "rows of one's own are read with --format plain"
            raise DataError(f"{what}, which this set does not know; {hint}")
    return found


def other_fields(given: dict, fields: Collection[str]) -> list[str]:
    """The fields of a criterion beside those of its set, if they say something."""
    return [key for key, value in given.items() if key not in fields and value not in NOTHING]


def texts(value: object, field: str) -> list[str]:
    """The texts of a list in any form that `listed` knows. Raises DataError for others."""
    value = listed(value, field)
    if not isinstance(value, (list, tuple)) or not value:
        raise DataError(f"{field} is no list of criteria; {LEAVE_OUT}")
    for number, each in enumerate(value, 1):
        if not isinstance(each, str):
            raise DataError(f"criterion {number} of {field} is no text; {LEAVE_OUT}")
    return list(value)


def question(words: str) -> list[dict]:
    """A conversation of one question."""
    return [{"role": "user", "content": words}]


def after_system(item: dict, messages: list[dict]) -> list[dict]:
    """The conversation behind the `system` text of its item, if it has one and begins with none.

    Raises DataError for a system message in another form, or beside another one: it would be lost.
    """
    given = [item.get(key) for key in SYSTEM_KEYS if item.get(key) not in NOTHING]
    if any(not isinstance(each, str) for each in given):
        raise DataError(f"the system message is no text; {LEAVE_OUT}")
    for system in filter(None, map(label, given)):
        if messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system}, *messages]
        elif system not in str(messages[0]["content"]):
            raise DataError(f"there are several system messages; {LEAVE_OUT}")
    return messages


def chat(value: object, field: str) -> list[dict]:
    """A conversation: a text, or one message, a list of them, or an object that holds it.

    Messages may be written as JSON text or by field. Roles of other services are named as here
    (developer: system), and content in parts is joined. Raises DataError for what is none.
    """
    if isinstance(value, str) and not _MESSAGES.match(value):
        return question(text({field: value}, field))
    messages = decoded(value, field)
    if isinstance(messages, dict) and "messages" in messages:
        return after_system(messages, chat(messages["messages"], field))
    messages = of_columns(messages, field)
    if isinstance(messages, dict) and "role" in messages:
        messages = [messages]
    if not isinstance(messages, (list, tuple)) or not messages:
        raise DataError(f"{field} is no conversation; {LEAVE_OUT}")
    return [_message(message, field) for message in messages]


def _message(message: object, field: str) -> dict:
    if not isinstance(message, dict):
        raise DataError(f"{field} holds a message that is no object; {LEAVE_OUT}")
    if message.get("tool_calls"):
        raise DataError(f"{field} holds a message that calls a tool; {LEAVE_OUT}")
    role = message.get("role") or message.get("from")
    content = message.get("content")
    if content is None:
        content = message.get("value")
    if isinstance(content, (list, tuple)):
        content = _joined(content, field)
    if isinstance(role, str):
        role = role.lower()
        role = _ROLES.get(role, role)
    return {"role": role, "content": content}


def _joined(parts: Iterable, field: str) -> str:
    words = []
    for part in parts:
        content = part
        if isinstance(part, dict):
            content = part.get("text") if part.get("type") in _TEXT_PARTS else None
        if not isinstance(content, str):
            raise DataError(f"{field} holds a message that is not only text; {LEAVE_OUT}")
        words.append(content)
    return "\n".join(words)


def points(value: object) -> object:
    """A number, which may be written as text; anything else as it is, to be refused by name."""
    if isinstance(value, Decimal):
        value = str(value)
    if not isinstance(value, str) or not _NUMBER.fullmatch(value.strip()):
        return value
    number = float(value)
    return int(number) if number.is_integer() else number


def tags(value: object) -> object:
    """Tags as a list of texts: of a list, one text, or a dict, whose items become `key:value`.

    A list or a dict may be JSON text. Raises DataError where that is broken.
    """
    if isinstance(value, str) and is_json(value):
        value = decoded(value, "tags")
    if not isinstance(value, dict):
        return [value] if isinstance(value, str) else value
    found = []
    for key, each in value.items():
        if each is None or each in ("", [], {}):
            continue
        if not isinstance(each, str):
            each = json.dumps(each, ensure_ascii=False, sort_keys=True, default=str)
        found.append(f"{key}:{each}")
    return found


def named(**labels: object) -> list[str]:
    """Tags `key:value` of those labels that say something."""
    said = {key: label(value) for key, value in labels.items()}
    return [f"{key}:{words}" for key, words in said.items() if words]


def criterion(words: object, worth: object, tag_list: object = None) -> dict:
    """A criterion of a raw row."""
    return {"criterion": words, "points": points(worth), "tags": tags(tag_list)}


class Raw(dict):
    """A raw row, with what its reader did to it: a rule and how many criteria it met."""

    def __init__(self, fields: dict):
        super().__init__(fields)
        self.notes: dict[str, int] = {}

    def note(self, rule: str, number: int) -> None:
        """Counts what the reader did by a rule, if anything."""
        if number:
            self.notes[rule] = number


def row(
    item: dict, messages: list[dict], rubric: list[dict], id_field: str = "", **more: object
) -> Raw:
    """A raw row, named by the item's own id or by the hash of its conversation.

    `id_field` is where rows of this set have their id. What any row may have (KEPT, a `system`
    text) comes along, also in sets that are published without.
    Criteria of 0 points, which no answer can earn or lose, are left out and counted.
    """
    worth_something = [each for each in rubric if each["points"] != 0 or each["points"] is False]
    made = Raw({key: value for key, value in more.items() if value})
    made |= {key: item[key] for key in KEPT if item.get(key) not in NOTHING}
    if item.get("example_tags") not in NOTHING:
        own = tags(item["example_tags"])
        labels = more.get("example_tags")
        made["example_tags"] = own  # what is no list is refused by name
        if isinstance(own, (list, tuple)) and isinstance(labels, list):
            made["example_tags"] = [*own, *labels]
    messages = after_system(item, messages)
    made["prompt_id"] = known_id(item, id_field) or hashed(messages)
    made["prompt"] = messages
    made["rubrics"] = worth_something
    made.note(ZERO_POINTS, len(rubric) - len(worth_something))
    return made


def known_id(item: object, id_field: str = "") -> str:
    """The id that an item brings along, in the field of its set or a usual one; "" for none."""
    if not isinstance(item, dict):
        return ""
    fields = (*ID_FIELDS, id_field) if id_field else ID_FIELDS
    for field in fields:
        value = item.get(field)
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # as pandas stores numbers beside a missing one
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
            return str(value)
    return ""


def hashed(messages: object) -> str:
    """The name of a conversation that has none: the beginning of its hash."""
    return prompt_hash(messages)[:16]


def prompt_hash(messages: object) -> str:
    """The sha256 of a conversation, a sequence of chat messages, in 64 digits."""
    words = json.dumps(messages, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(words.encode(errors="replace")).hexdigest()


def first_of(value: object, within: str = "") -> dict:
    """The first criterion of a rubric, where it is an object; to recognise a set by its fields.

    The rubric may be in any form that `listed` knows, or an object with such a list `within`.
    """
    if isinstance(value, list) and value:
        if isinstance(value[0], dict):
            return value[0]  # as most are
        value = value[:1]  # whatever follows
    try:
        value = decoded(value, "rubric")
        if isinstance(value, dict) and within in value:
            value = value[within]
        value = listed(value, "rubric")
    except DataError:
        return {}
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
        return value[0]
    return {}


def holds(value: object, field: str) -> bool:
    """Whether an object, which may be JSON text, has that field; to recognise a set by it."""
    if isinstance(value, str):
        return f'"{field}' in value and is_json(value)
    return isinstance(value, dict) and field in value
