"""Conversations that are alike but for one text, rendered by a single run of a chat template.

A template is a program: it may trim a text, cut it at `</think>`, count its letters. So what it
makes of one text is never put together from what it made of another. A `Bundle` of all the texts
goes through it in the place of one, and each step is done on every text. Where a step would not be
the same for all, as where one of them holds `</think>` and another does not, or is not known here,
they part: then each conversation is to be rendered by itself.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import repeat
from typing import Any, NoReturn

import jinja2

_PROBE = "{{ tell() }}"


class Parted(BaseException):
    """Texts of a bundle are not all treated alike. No Exception: some of jinja's tests hide one."""


class Bundle:
    """Texts that go through a template as one.

    It says that it is a text, as `is string` asks, and is none: what is written in C, such as
    `"".join` or tojson, refuses it in place of reading a text that is not there.
    """

    __class__ = property(lambda self: str)  # type: ignore[assignment]

    def __init__(self, texts: list[str]):
        self.texts = texts

    def __getattr__(self, name: str) -> Any:
        method = getattr(str, name)  # AttributeError as of a text
        # The sandbox lets no text format another; it knows such methods by their type.
        if name.startswith(("_", "format")):
            raise Parted
        return lambda *given, **named: self._each(partial(method, **named), *given)

    def _each(self, step: Callable[..., Any], *given: Any) -> Any:
        """What the step makes of each text and what is given for it."""
        try:
            results = map(step, self.texts, *map(_by_text, given))
            return _together(list(results))
        except Exception:  # of one text, while others may go on
            raise Parted from None

    def __add__(self, other: Any) -> Any:
        return self._each(operator.add, other)

    def __radd__(self, other: Any) -> Any:
        return self._each(lambda text: other + text)

    def __getitem__(self, place: Any) -> Any:
        return self._each(operator.getitem, place)

    def __contains__(self, part: Any) -> bool:
        return self._each(operator.contains, part)

    def __len__(self) -> int:
        return self._each(len)

    def __bool__(self) -> bool:
        return self._each(bool)

    def __eq__(self, other: object) -> bool:
        return self._each(operator.eq, other)

    def __ne__(self, other: object) -> bool:
        return self._each(operator.ne, other)


def _part(*_: Any) -> NoReturn:
    raise Parted


# What jinja would try with a text, and may go on without.
for _name in (
    "__str__",
    "__repr__",
    "__format__",
    "__hash__",
    "__iter__",
    "__int__",
    "__float__",
    "__index__",
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
    "__mod__",
    "__rmod__",
    "__mul__",
    "__rmul__",
):
    setattr(Bundle, _name, _part)


def _together(results: list) -> Any:
    """What a step made of each text: a bundle, lists of bundles, or what is the same of all."""
    kinds = set(map(type, results))
    if len(kinds) > 1:
        raise Parted
    (kind,) = kinds
    if kind is str:
        return Bundle(results)
    if kind is list and len(set(map(len, results))) == 1:
        columns = zip(*results, strict=True)
        return [_together(list(column)) for column in columns]
    if kind in (bool, int) and len(set(results)) == 1:
        return results[0]
    raise Parted


def _joined(parts: Iterable[Any]) -> Any:
    """`"".join`, also of bundles."""
    parts = list(parts)
    if all(type(part) is not Bundle for part in parts):
        return "".join(parts)
    by_text = zip(*map(_by_text, parts), strict=False)
    return Bundle(list(map("".join, by_text)))


def _by_text(value: Any) -> Iterable[Any]:
    """What the value is for each text of a bundle."""
    return value.texts if type(value) is Bundle else repeat(value)


def _written(value: Any) -> Any:
    """`str`, also of a bundle."""
    return value if type(value) is Bundle else str(value)


class AlikeTemplate:
    """A chat template that renders several conversations at once."""

    def __init__(self, render: Callable[..., Any], options: dict):
        """`render` is transformers' rendering, whose environment is used: filters and sandbox.

        Its options name the template and the variables that are always the same.
        """
        told: list[jinja2.Environment] = []

        @jinja2.pass_environment
        def tell(environment: jinja2.Environment) -> str:
            told.append(environment)
            return ""

        render(conversations=[[]], chat_template=_PROBE, tell=tell)
        (environment,) = told
        environment.concat = _joined  # type: ignore[method-assign]
        variables: dict[str, Any] = {"tools": None, "documents": None}
        self._variables = options | variables
        self._template = environment.from_string(self._variables.pop("chat_template"))
        # The names by which a compiled template writes a value, and joins several by `~`.
        compiled = self._template.root_render_func.__globals__
        compiled["str"] = _written
        compiled["str_join"] = lambda parts: _joined(map(_written, parts))

    def render(self, conversations: Sequence[list[dict]], variables: dict) -> list[str] | None:
        """Their texts; None where they are not alike, or not treated alike."""
        *before, last = conversations[0]
        contents = []
        for *turns, turn in conversations:
            content = turn["content"]
            if turns != before or turn != last | {"content": content}:
                return None
            contents.append(content)
        bundle = last | {"content": Bundle(contents)}
        messages = [*before, bundle]
        variables = self._variables | variables | {"messages": messages}
        context = self._template.new_context(variables)
        try:
            rendered = _joined(self._template.root_render_func(context))
        except (Exception, Parted):  # rendered by itself, each tells its own reason
            return None
        return rendered.texts if type(rendered) is Bundle else [rendered] * len(contents)
