"""The report as one HTML page that needs nothing but a browser (stage 6, evaluation)."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from rubric_rl.data.schema import Criterion
from rubric_rl.evaluation.summary import OVERALL, paired
from rubric_rl.report.run_view import CriterionTally, RunView, example
from rubric_rl.report.svg import Bar, bars, histogram

_HERE = Path(__file__).parent
_EDGES = [i / 10 for i in range(-2, 11)]
ROWS = 15  # of the tables of criteria
COST_NOTE = "Cost: by how much the run's mean score would rise if this criterion were never failed."
_ESCAPES = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"}


def page(
    title: str, names: Sequence[str], sides: Sequence[RunView], results: Sequence[dict]
) -> Iterator[str]:
    """The page in pieces, so that never more than one example is in memory."""
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    fields = {
        "title": escape(title),
        "script_digest": digest,
        "script": script,
        "body": _body(title, names, sides, results),
    }
    template = (_HERE / "page.html").read_text(encoding="utf-8")
    before, after = (
        re.sub(r"\{\{(\w+)\}\}", lambda m: fields[m[1]], part)
        for part in template.split("{{data}}")
    )
    yield before
    yield from _data(names, sides)
    yield after


def _data(names: Sequence[str], sides: Sequence[RunView]) -> Iterator[str]:
    index, prompt_ids = (
        [],
        list(dict.fromkeys(prompt_id for side in sides for prompt_id in side.listed)),
    )
    for number, prompt_id in enumerate(prompt_ids):
        item = example(prompt_id, list(sides))
        yield _json(f"e{number}", item)
        question = (
            " ".join(item["messages"][-1]["content"].split())[:160] if item["messages"] else ""
        )
        index.append(
            [prompt_id, item["theme"], question, [side.score(prompt_id) for side in sides]]
        )
    yield _json("names", list(names))
    yield _json("index", index)


def _json(name: str, value) -> str:
    """A data block that no text inside can close; a lone surrogate, which UTF-8 cannot encode, becomes "?"."""
    text = (
        json.dumps(value, ensure_ascii=False).encode(errors="replace").decode().translate(_ESCAPES)
    )
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def _body(
    title: str, names: Sequence[str], sides: Sequence[RunView], results: Sequence[dict]
) -> str:
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">{_legend(names)} · rule: {escape(str(sides[0].rule))}</p>',
    ]
    parts.append(_headline(names, sides, results))
    parts.append('<h2>Where the score comes from</h2><div class="plots">')
    for kind, heading in (("theme", "By theme"), ("axis", "By axis")):
        if plot := _plot(kind, names, sides):
            parts.append(f'<div class="card"><h3>{heading}</h3>{plot}</div>')
    scores = [side.summary.metric(OVERALL).values for side in sides]
    if any(scores):
        parts.append(
            f'<div class="card"><h3>Scores of single answers</h3>{histogram(scores, _EDGES)}</div>'
        )
    parts.append(
        f'<div class="card"><h3>Where every criterion went</h3>{_account(names, results)}</div></div>'
    )
    parts.append(
        '<p class="note">Bars are unclipped means, whiskers 95% bootstrap intervals by prompt.</p>'
    )
    for name, side in zip(names, sides, strict=True):
        parts.append(
            _criteria(f"Worst criteria{_of(name, names)}", side.worst(ROWS), side, COST_NOTE)
        )
        parts.append(
            _criteria(f"Most often unreadable{_of(name, names)}", side.unreadable(ROWS), side)
        )
    return "\n".join(parts)


def _legend(names: Sequence[str]) -> str:
    return " → ".join(f'<i class="key run{i}"></i>{escape(name)}' for i, name in enumerate(names))


def _of(name: str, names: Sequence[str]) -> str:
    return f": {name}" if len(names) > 1 else ""


def _headline(names: Sequence[str], sides: Sequence[RunView], results: Sequence[dict]) -> str:
    cards = []
    for i, result in enumerate(results):
        key = f'<i class="key run{i}"></i>' if len(names) > 1 else ""
        reference, beside = result["reference"], result["beside"]
        if not reference:
            cards.append(_card("–", f"{key}no answer was graded", ""))
            continue
        score, std = reference[OVERALL], reference[f"{OVERALL}:bootstrap_std"]
        cards.append(
            _card(
                f"{score:.4f}", f"{key}Rubric score, clipped mean (bootstrap std)", f"± {std:.4f}"
            )
        )
        mean, interval = beside["mean_unclipped"], _range(beside["interval_by_prompt"])
        cards.append(_card(f"{mean:.4f}", f"{key}unclipped mean, 95% interval by prompt", interval))
        adjusted, characters = beside["length_adjusted"], beside["characters_per_answer"]
        note = (
            f"{key}length-adjusted, {adjusted['penalty_per_500_characters']:g} per 500 characters"
        )
        cards.append(
            _card(f"{adjusted['mean_clipped']:.4f}", f"{note}; {characters:.0f} per answer", "")
        )
        if len(result["worst_at_k"]) > 1:
            k, value = list(result["worst_at_k"].items())[-1]
            cards.append(_card(f"{value:.4f}", f"{key}worst of {k} answers to a prompt", ""))
    if len(sides) == 2 and (pair := paired(sides[0].summary, sides[1].summary)):
        counts = f"{pair['better']} better, {pair['equal']} equal, {pair['worse']} worse"
        note = f"paired difference on {pair['prompts']} prompts: {counts}"
        cards.append(
            _card(f"{pair['difference']:+.4f}", note, _range(pair["interval_by_prompt"]), " change")
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(value: str, note: str, small: str, kind: str = "") -> str:
    return f'<div class="card{kind}"><b>{value} <small>{small}</small></b><span>{note}</span></div>'


def _range(bounds) -> str:
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""


def _plot(kind: str, names: Sequence[str], sides: Sequence[RunView]) -> str:
    tags = sorted({tag for side in sides for tag in side.summary.tags(kind)})
    rows = []
    for tag in tags:
        row = [_bar(tag, name, side) for name, side in zip(names, sides, strict=True)]
        rows.append((tag.split(":", 1)[1].replace("_", " "), row))
    return bars(rows) if rows else ""


def _bar(tag: str, name: str, side: RunView) -> Bar | None:
    if tag not in side.summary.metrics:
        return None
    (mean, interval), count = side.summary.mean(tag), len(side.summary.metric(tag).values)
    return Bar(mean, interval, f"{name}, {tag}: {mean:.4f} {_range(interval)}, {count} answers")


def _account(names: Sequence[str], results: Sequence[dict]) -> str:
    heads = "".join(f'<th class="n">{escape(name)}</th>' for name in names)
    rows = [f"<tr><th></th>{heads}</tr>"]
    for part in ("answers", "criteria"):
        for name in results[0][part]:
            label = part if name == "all" else f"&emsp;{name.replace('_', ' ')}"
            cells = "".join(f'<td class="n">{r[part].get(name, 0):,}</td>' for r in results)
            rows.append(f"<tr><td>{label}</td>{cells}</tr>")
    for kind in ("prompt", "cached", "completion"):
        cells = "".join(
            f'<td class="n">{r["tokens"].get(f"grader_{kind}", 0):,}</td>' for r in results
        )
        rows.append(f"<tr><td>grader tokens, {kind}</td>{cells}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _criteria(
    heading: str, found: Sequence[tuple[Criterion, CriterionTally]], side: RunView, note: str = ""
) -> str:
    if not found:
        return f'<h2>{escape(heading)}</h2><p class="note">None.</p>'
    answers = len(side.summary.metric(OVERALL).values)
    head = (
        '<tr><th class="n">points</th><th>criterion</th><th class="n">asked</th><th class="n">counted as met</th>'
        '<th class="n">unreadable</th><th class="n">cost</th><th></th></tr>'
    )
    rows = []
    for criterion, tally in found:
        figures = [tally.answers, f"{tally.met / tally.answers:.0%}", tally.unreadable]
        figures.append(f"{tally.lost / max(answers, 1):.4f}")
        rows.append(
            f'<tr><td class="n">{criterion.points:+g}</td>'
            f'<td class="text"><div class="clamp">{escape(criterion.text)}</div></td>'
            + "".join(f'<td class="n">{figure}</td>' for figure in figures)
            + f'<td><a class="jump" data-jump="{escape(tally.prompt_id)}">show</a></td></tr>'
        )
    table = f"<table>{head}{''.join(rows)}</table>"
    return f'<h2>{escape(heading)}</h2><div class="card">{table}</div><p class="note">{note}</p>'
