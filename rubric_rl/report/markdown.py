"""The report as Markdown (stage 6, evaluation)."""

import re
from collections.abc import Iterator, Sequence

from rubric_rl.data.schema import Criterion
from rubric_rl.evaluation.summary import OVERALL, paired
from rubric_rl.evaluation.tables import account_lines, bounds
from rubric_rl.report.run_view import CriterionTally, RunView, example

ROWS = 15  # of the tables of criteria
WORDS = {True: "met", False: "not met", None: "unreadable"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&@:-])")


def plain(text: str) -> str:
    """Text for a table cell or a line: on one line, every mark of Markdown and HTML escaped."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def block(text: str) -> str:
    """A code block that the text cannot end: its fence is longer than any run of backticks inside."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n" + re.sub(r"[\r\x0b\x0c\x85\u2028\u2029]", "\n", text) + f"\n{fence}"


def markdown(
    title: str,
    names: Sequence[str],
    sides: Sequence[RunView],
    results: Sequence[dict],
    shown: Sequence[str],
) -> Iterator[str]:
    """The report in pieces; it includes the answers to the prompts `shown`."""
    yield f"# {plain(title)}\n\nRule: {plain(str(sides[0].rule))}\n"
    yield _headline(names, sides, results)
    for kind in ("theme", "axis"):
        yield _parts(kind, names, sides)
    for name, side, result in zip(names, sides, results, strict=True):
        suffix = f": {plain(name)}" if len(names) > 1 else ""
        yield f"\n## Account{suffix}\n\n" + block("\n".join(account_lines(result))) + "\n"
        yield _criteria(f"Worst criteria{suffix}", side.worst(ROWS), side)
        yield _criteria(f"Most often unreadable{suffix}", side.unreadable(ROWS), side)
    for prompt_id in shown:
        yield _example(example(prompt_id, list(sides)), names)


def _headline(names, sides, results) -> str:
    headings = "run, rubric score, bootstrap std, unclipped mean, 95% by prompt, length-adjusted"
    lines = _header(*headings.split(", "), "answers", "ungraded", "unreadable")
    for name, result in zip(names, results, strict=True):
        reference, beside = result["reference"], result["beside"]
        figures = ["–"] * 5
        if reference:
            score, std = reference[OVERALL], reference[f"{OVERALL}:bootstrap_std"]
            figures = [f"{score:.4f}", f"{std:.4f}", f"{beside['mean_unclipped']:.4f}"]
            figures += [
                bounds(beside["interval_by_prompt"]),
                f"{beside['length_adjusted']['mean_clipped']:.4f}",
            ]
        counts = [
            result["answers"]["all"],
            result["answers"]["ungraded"],
            result["criteria"]["unreadable"],
        ]
        lines.append(_row(plain(name), *figures, *counts))
    if len(sides) == 2 and (pair := paired(sides[0].summary, sides[1].summary)):
        lines.append(
            f"\nPaired difference on {pair['prompts']} prompts: **{pair['difference']:+.4f}**"
            f" {bounds(pair['interval_by_prompt'])} (95% by prompt);"
            f" {pair['better']} better, {pair['equal']} equal, {pair['worse']} worse."
        )
    return "\n".join(lines) + "\n"


def _parts(kind: str, names, sides) -> str:
    tags = sorted({tag for side in sides for tag in side.summary.tags(kind)})
    if not tags:
        return ""
    headings = [cell for name in names for cell in (plain(name), "95% by prompt")]
    lines = [f"\n## By {kind}\n", *_header(kind, *headings)]
    for tag in tags:
        cells = []
        for side in sides:
            if tag in side.summary.metrics:
                mean, interval = side.summary.mean(tag)
                bar = "█" * round(max(0, min(mean, 1)) * 20)
                cells += [f"{mean:.4f} {bar}", bounds(interval)]
            else:
                cells += ["–", ""]
        lines.append(_row(plain(tag.split(":", 1)[1]), *cells))
    return "\n".join(lines) + "\n"


def _criteria(
    heading: str, found: Sequence[tuple[Criterion, CriterionTally]], side: RunView
) -> str:
    if not found:
        return f"\n## {heading}\n\nNone.\n"
    answers = max(len(side.summary.metric(OVERALL).values), 1)
    lines = [
        f"\n## {heading}\n",
        *_header("points", "criterion", "asked", "met", "unreadable", "cost", "prompt"),
    ]
    for criterion, tally in found:
        met, cost = f"{tally.met / tally.answers:.0%}", f"{tally.lost / answers:.4f}"
        text, prompt_id = plain(criterion.text), plain(tally.prompt_id)
        lines.append(
            _row(
                f"{item['points']:+g}", text, tally.answers, met, tally.unreadable, cost, prompt_id
            )
        )
    return "\n".join(lines) + "\n"


def _example(item: dict, names: Sequence[str]) -> str:
    lines = [f"\n## Prompt {plain(item['id'])} ({plain(item['theme'] or 'no theme')})\n"]
    lines += [
        f"{message['role']}:\n\n{block(message['content'])}\n" for message in item["messages"]
    ]
    for name, answers in zip(names, item["runs"], strict=True):
        for answer in answers:
            score = "none" if answer["score"] is None else f"{answer['score']:.4f}"
            lines.append(f"**{plain(name)}**, {answer['status']}, score {score}:\n")
            lines.append(block(answer["answer"] or "(no final answer)") + "\n")
            lines += _header("points", "criterion", "verdict", "reason")
            for criterion, verdict in zip(item["rubric"], answer["verdicts"], strict=True):
                word = WORDS[verdict["verdict"]] if verdict else "not asked"
                reason = plain(verdict["explanation"]) if verdict else ""
                lines.append(
                    _row(f"{criterion['points']:+g}", plain(criterion["criterion"]), word, reason)
                )
            lines.append("")
    return "\n".join(lines) + "\n"


def _header(*headings: str) -> list[str]:
    return [_row(*headings), "|" + "---|" * len(headings)]


def _row(*cells) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
