"""How the templates of both forms are read: every text is escaped unless it is marked as safe."""

from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

MISSING = Markup("\N{EN DASH}")  # stands for a figure that is not there


def jinja_environment(finalize: Callable | None = None) -> Environment:
    """An environment whose templates escape what they print.

    With `finalize`, which must return Markup, in its way; without it as HTML.
    """
    environment = Environment(
        loader=PackageLoader("rubric_rl.report"),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,  # a name that is misspelled is an error, not an empty place
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = number
    return environment


def number(value: float | None, form: str) -> Markup:
    """A figure in Python's format specification `form`; a dash where there is none."""
    return MISSING if value is None else Markup(format(value, form))
