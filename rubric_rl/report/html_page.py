"""The report as one HTML page that needs nothing but a browser.

What comes from a model or a data file reaches it in two ways only: escaped by the template, or as
JSON that page.js puts into text nodes.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rubric_rl.report.jinja_environment import jinja_environment
from rubric_rl.report.plots import bar_plot, histogram
from rubric_rl.report.report_view import CRITERIA, ReportView
from rubric_rl.report.run_view import Interval
from rubric_rl.report.training_view import TrainingView

_TEMPLATES = Path(__file__).parent / "templates"
# In JSON these marks are escaped, so that no text can end its block or start another.
_ESCAPES = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"}


def html_page(view: ReportView) -> Iterator[str]:
    """The page in pieces, so that never more than one example is in memory."""
    style = own_text("page.css")
    script = own_text("answers.js") + own_text("page.js")
    environment = jinja_environment()
    environment.filters["range"] = _range
    template = environment.get_template("page.html.jinja")
    plots = {}
    for kind in ("theme", "axis"):
        parts = view.parts(kind)
        if parts:
            plots[kind] = bar_plot(parts)
    scores = view.scores()
    return template.generate(
        view=view,
        plots=plots,
        histogram=histogram(scores) if any(scores) else None,
        criteria=CRITERIA,
        blocks=_blocks(view),
        style=style,
        style_digest=digest_of(style),
        script=script,
        script_digest=digest_of(script),
    )


def training_page(view: TrainingView) -> Iterator[str]:
    """The page of a training run, in pieces."""
    style = own_text("page.css")
    script = own_text("answers.js") + own_text("training.js")
    template = jinja_environment().get_template("training.html.jinja")
    return template.generate(
        view=view,
        blocks=_training_blocks(view),
        style=style,
        style_digest=digest_of(style),
        script=script,
        script_digest=digest_of(script),
    )


def _training_blocks(view: TrainingView) -> Iterator[tuple[str, Markup]]:
    yield "curves", json_block(view.charts())
    for key, item in view.examples():
        yield f"point_{key}", json_block(item)


def own_text(name: str) -> Markup:
    """A style or program of the page, which needs no escaping."""
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def digest_of(text: str) -> str:
    """What the Content-Security-Policy knows a style or script by."""
    sha256 = hashlib.sha256(text.encode()).digest()
    return "sha256-" + base64.b64encode(sha256).decode()


def _range(interval: Interval) -> str:
    if interval is None:
        return ""
    low, high = interval
    return f"[{low:.3f}, {high:.3f}]"


def _blocks(view: ReportView) -> Iterator[tuple[str, Markup]]:
    """Name and JSON of every data block that page.js reads."""
    yield "names", json_block(view.names)
    yield "index", json_block(list(view.index()))
    for item in view.examples(view.places):
        place = view.places[item["id"]]
        yield f"prompt{place}", json_block(item)


def json_block(value: Any) -> Markup:
    """JSON that no text inside can break out of.

    A lone surrogate, which UTF-8 cannot encode, becomes "?".
    """
    text = json.dumps(value, ensure_ascii=False)
    encodable = text.encode(errors="replace").decode()
    return Markup(encodable.translate(_ESCAPES))
