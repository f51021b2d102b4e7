"""A grader's prompt that is not our own: HealthBench's, as it was published, or a user's file.

HealthBench's text does not stand in this repository. It is taken from the source file that OpenAI
published, which is downloaded once, or named by the user: `grader_template: healthbench_eval.py`.
"""

import ast
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rubric_rl import ROOT
from rubric_rl.common.errors import DataError, UserError
from rubric_rl.common.hostile_text import BreakUp, block, neutral
from rubric_rl.common.plain_text import one_line
from rubric_rl.data.download import Published, download
from rubric_rl.data.schema import Criterion

LOG = logging.getLogger(__name__)

HEALTHBENCH = "healthbench"
_COMMIT = "ee3b0318d8d1d9d72755a4120879be65f7c07e9e"
URL = f"https://raw.githubusercontent.com/openai/simple-evals/{_COMMIT}"
SOURCE = Published(
    "healthbench_eval.py",
    25_736,
    "89909957f005762edaded2f0e39fc9b3b242edd55e3ac0ce4c8dd886ac59d167",
    otherwise="name a copy of this file in grader_template",
    writable="make it writable, or name a copy of this file in grader_template",
)
CACHE = Path.home() / ".cache" / "healthbench"  # where data_preprocess.py keeps the rows
_VARIABLE = "GRADER_TEMPLATE"  # of the source that holds the template
# The template in it, without the white space around it.
TEMPLATE_SHA256 = "2adffd51fd259554ebcd036ad1072d4aa2b7ce3aec2bbffe36271f911632ed3c"

# How the reference asks, beside the template: simple_evals.py and its sampler, at that commit.
# Some fields it does not send at all; for an engine of ours that is the value of no effect.
PUBLISHED_MODEL = "gpt-4.1-2025-04-14"
NOT_SENT = ("seed", "top_p")
REFERENCE = {
    "mode": "explain",
    "system": "You are a helpful assistant.",
    "json_schema": False,
    "thinking": False,
    "votes": 1,
    "temperature": 0.5,
    "top_p": 1.0,
    "top_k": -1,
    "max_tokens": 2048,
}

_OPEN_TO_FORGERY = (
    "the policy grades itself, and no delimiters enclose its answer: it may learn to write turns "
    "and rubric items of its own there; an anchor would show it, our own prompt prevents it"
)
OF_ANSWER = ("conversation", "answer", "conversation_block", "answer_block")
OF_CRITERION = ("rubric_item", "criterion", "points")
_PLACEHOLDER = re.compile(r"<<([^<>\n]{1,40})>>")  # or what may be meant as one


@dataclass(frozen=True)
class Template:
    """A text with placeholders: <<conversation>>, <<rubric_item>> and the like.

    docs/grading.md says what each stands for. Raises UserError for a text with none for the answer
    or the criterion, or with an unknown one, and for half a surrogate pair.
    """

    name: str
    text: str

    def __post_init__(self):
        try:
            self.text.encode()
        except UnicodeEncodeError:
            what = "half a surrogate pair is no character"
            raise UserError(f"grader_template {self.name}: {what}; write it whole") from None
        names = set(_PLACEHOLDER.findall(self.text))
        known = (*OF_ANSWER, *OF_CRITERION)
        shown = ", ".join(f"<<{name}>>" for name in known)
        for name in sorted(names.difference(known)):
            raise UserError(f"grader_template {self.name}: unknown <<{name}>>; known: {shown}")
        for group, what in ((OF_ANSWER, "the answer"), (("rubric_item", "criterion"), "criterion")):
            if not names.intersection(group):
                lacks = f"no placeholder shows {what}"
                raise UserError(f"grader_template {self.name}: {lacks}; known: {shown}")

    @property
    def sha256(self) -> str:
        """Of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def label(self) -> str:
        """Its name and the beginning of its checksum, as records and comparisons say it."""
        return f"{self.name} {self.sha256[:8]}"

    @property
    def conversation_holds_answer(self) -> bool:
        """Whether the answer is shown as the conversation's last turn, having no place else."""
        return not {"answer", "answer_block"}.intersection(_PLACEHOLDER.findall(self.text))

    @property
    def is_open(self) -> bool:
        """Whether a text stands in it that no delimiter of ours encloses."""
        return bool({"answer", "conversation"}.intersection(_PLACEHOLDER.findall(self.text)))

    @property
    def beginning(self) -> str:
        """What stands before the first placeholder of a criterion: the same for all of them."""
        for match in _PLACEHOLDER.finditer(self.text):
            if match[1] in OF_CRITERION:
                return self.text[: match.start()]
        return self.text


class FilledTemplate:
    """A template about one answer; every prompt about it begins with `shared`.

    It is filled in one pass: no text can expand a placeholder. Control tokens are broken up; an
    open template has no other protection from what a text says.
    """

    def __init__(
        self, template: Template, messages: Sequence[Mapping], answer: str, break_up: BreakUp
    ):
        self._break_up = break_up
        turns = [f"{message['role']}: {message['content']}" for message in messages]
        if template.conversation_holds_answer:
            turns.append(f"assistant: {answer}")
        conversation = neutral("\n\n".join(turns), break_up)
        answer = neutral(answer, break_up)
        self._texts = {
            "conversation": conversation,
            "conversation_block": block("conversation", conversation),
            "answer": answer,
            "answer_block": block("answer", answer),
        }
        self._end = template.text.removeprefix(template.beginning)
        self.shared = _filled(template.beginning, self._texts)

    def prompt(self, criterion: Criterion) -> str:
        """The whole prompt about a criterion; a meta-evaluation's has no points."""
        text = neutral(criterion.text, self._break_up)
        points = f"{criterion.points}" if criterion.points else ""
        of_criterion = {
            "criterion": text,
            "points": points,
            "rubric_item": f"[{points}] {text}" if points else text,
        }
        return self.shared + _filled(self._end, self._texts | of_criterion)


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def fill_template(
    name: str, messages: Sequence[Mapping], answer: str, break_up: BreakUp
) -> FilledTemplate | None:
    """The template that grader_template names, about one answer; None for our own prompt.

    Raises UserError or DataError as `load_template`.
    """
    template = load_template(name)
    return template and FilledTemplate(template, messages, answer, break_up)


@cache
def load_template(name: str) -> Template | None:
    """The template that grader_template names, read once in a process; None for "", our own prompt.

    `healthbench` is downloaded once into CACHE. Any other name is a file's, from ROOT if relative:
    a text, or a Python source that assigns GRADER_TEMPLATE, which is read and never run. Any file
    that names this variable is taken for a source. White space around the template is left out.

    Raises:
        UserError: for a file that cannot be read or holds no template.
        DataError: for HealthBench's, where it can be neither downloaded nor found.
    """
    if not name:
        return None
    is_published = name == HEALTHBENCH
    path = download(URL, SOURCE, CACHE) if is_published else ROOT / name
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # no UTF-8, or a null character in the name
        reason = getattr(error, "strerror", None) or error
        hint = f"name a file, or {HEALTHBENCH}"
        what = one_line(f"grader_template {name}: cannot be read ({reason})")
        raise UserError(f"{what}; {hint}") from None
    if path.suffix.lower() == ".py" or _VARIABLE in text:
        text = _assigned(text, name)
    found = Template(path.name, text.strip())
    if found.sha256 == TEMPLATE_SHA256:
        return Template(HEALTHBENCH, found.text)
    if is_published:
        raise DataError(f"{path}: holds another template than the published; remove the file")
    return found


def label_of(name: str) -> str:
    """The label of the template that grader_template names; "" for our own prompt."""
    template = load_template(name)
    return template.label if template else ""


def warn_if_open(name: str) -> None:
    """Says in one line what a policy that grades itself could learn under this template."""
    template = load_template(name)
    if template and template.is_open:
        LOG.warning("grader_template %s: %s", template.name, _OPEN_TO_FORGERY)


def with_reference(written: Mapping) -> dict:
    """Grader settings as written, and behind them the reference's where its template is used."""
    name = written.get("template", "")
    if not isinstance(name, str) or not name:
        return dict(written)
    if name != HEALTHBENCH:  # a copy of it is the same
        template = load_template(name)
        if template is None or template.sha256 != TEMPLATE_SHA256:
            return dict(written)
    return reference_settings(written)


def reference_settings(written: Mapping) -> dict:
    """Grader settings as written, and behind them how the reference asks, beside the template.

    Of the fields that it does not send, those that are written are sent.
    """
    fields: Any = {name: None for name in NOT_SENT if name not in written}
    further = written.get("extra_body", {})
    fields = fields | further if isinstance(further, dict) else further
    return REFERENCE | dict(written) | {"extra_body": fields}


def _assigned(source: str, name: str) -> str:
    """The string that a Python source assigns to GRADER_TEMPLATE, read from its syntax tree.

    Nothing else there may bind the name, since only running it would tell which text counts.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last: nested too deeply
        tree = ast.Module([], [])
    bindings = [node for node in ast.walk(tree) if _binds(node)]
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        text = _string(statement.value)
        if targets == bindings and text is not None:
            return text
    hint = "put the text into a file of its own"
    raise UserError(f"grader_template {name}: assigns no one text to {_VARIABLE}; {hint}")


def _binds(node: ast.AST) -> bool:
    """Whether GRADER_TEMPLATE is assigned, deleted, imported or defined there."""
    if isinstance(node, ast.Name):
        return node.id == _VARIABLE and not isinstance(node.ctx, ast.Load)
    return _VARIABLE in (getattr(node, "name", ""), getattr(node, "asname", ""))


def _string(value: ast.expr | None) -> str | None:
    """The text of a string, also where `.strip()` follows it; None for anything else."""
    if isinstance(value, ast.Call) and not value.args and not value.keywords:
        function = value.func
        if isinstance(function, ast.Attribute) and function.attr == "strip":
            value = function.value
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    return None
