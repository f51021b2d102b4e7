"""Whether an evaluation's score compares with published HealthBench scores, and if not, why.

Published scores are defined with the reference's grader: its prompt, model and sampling, one call
per criterion, on all rows of a published file. --reference sets all of that; what a flag or a file
then changes is told here as a reason.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from rubric_rl.data.grader_template import (
    HEALTHBENCH,
    NOT_SENT,
    PUBLISHED_MODEL,
    REFERENCE,
    TEMPLATE_SHA256,
    reference_settings,
)
from rubric_rl.data.healthbench import EVALUATION_SETS
from rubric_rl.evaluation.judge import OWN, folder_of
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.scoring_rule import PLAIN_RULE
from rubric_rl.evaluation.stored import EARLIER_URLS, stored_settings
from rubric_rl.evaluation.summary import Summary
from rubric_rl.grading.settings import Grading

OPENAI = "https://api.openai.com/v1"
MOST_DIFFERING = 0.01  # share of verdicts or answers that the reference would have made otherwise
_LABEL = f"{HEALTHBENCH} {TEMPLATE_SHA256[:8]}"
# An answer is graded however it ended, and an unreadable reply asked for again: the reference does
# so without end.
_GRADED_AS_IT_IS = {"truncated": "grade", "rereads": 10}


def published_grader(told: Mapping) -> dict[str, Any]:
    """The settings of --reference, behind those that flags and files have `told`.

    The key goes nowhere but to OpenAI: another URL names its own.
    """
    settings = {"template": HEALTHBENCH, "api": "openai", "model": PUBLISHED_MODEL}
    if not told.get("url"):
        settings |= {"url": OPENAI, "api_key_env": "OPENAI_API_KEY"}
    return settings | _GRADED_AS_IT_IS | reference_settings(told)


def comparison_with_published(run: Run, summary: Summary) -> dict | None:
    """What result.json says under `published`; None for anything but an evaluation.

    `set` is the published file that was graded, "" for none; `comparable` is whether there are no
    `reasons` against it; `notes` tells what differs in too few places to be one.
    """
    settings = stored_settings(folder_of(run))
    if not settings:
        return None
    rows = settings.get("rows", {})
    name, expected = "", 0
    for published, file, count in EVALUATION_SETS:
        if rows.get("sha256") == file.sha256:
            name, expected = published, count
    repeats = settings.get("repeats") or 1
    reasons = [*_of_grader(settings, summary), *_of_rows(expected, repeats, summary)]
    notes = [*_elsewhere(settings.get("grader", {}))]
    for what in _otherwise(summary):
        (reasons if what.is_frequent else notes).append(str(what))
    answers = summary.answers["all"] - summary.answers["ungraded"]
    if len(summary.prompts) < answers:
        notes.append(f"{answers} answers to {len(summary.prompts)} prompts; published: one each")
    return {"set": name, "comparable": not reasons, "reasons": reasons, "notes": notes}


def _of_grader(settings: Mapping, summary: Summary) -> Iterator[str]:
    """What is not the reference's in who graded, and how."""
    grader = settings.get("grader", {})
    label = settings.get("grader_template", OWN)
    if label != _LABEL:
        yield f"prompt {label} in place of {_LABEL}"
    if "policy" in summary.graders:
        yield "the policy grades itself"
    model = grader.get("model")
    if grader.get("api") != "openai" or model != PUBLISHED_MODEL:
        shown = model or ", ".join(sorted(summary.graders))
        yield f"grader {shown} in place of {PUBLISHED_MODEL}"
    for name, wanted in REFERENCE.items():
        # Without effect on a model at an OpenAI route; folders of older versions lack some.
        default = Grading.model_fields[name].default if name in Grading.model_fields else None
        value = grader.get(name, default)
        if value != wanted and not _is_unsent(name, grader):
            yield f"{name} {value!r:.60} in place of {wanted!r:.60}"
    extra = grader.get("extra_body") or {}
    # At an OpenAI route only a null leaves out a field that the reference does not send.
    sent = dict.fromkeys(NOT_SENT if grader.get("api") == "openai" else (), True) | extra
    more = sorted(name for name in sent if name not in NOT_SENT or sent[name] is not None)
    if more:
        yield f"further request fields ({', '.join(more)})"
    if summary.rule != PLAIN_RULE:
        yield f"another scoring rule ({summary.rule})"
    if len(summary.graders) > 1 or len(summary.templates) > 1 or settings.get(EARLIER_URLS):
        yield "several graders, prompts or endpoints took part"


def _is_unsent(name: str, grader: Mapping) -> bool:
    """Whether a field does not reach the model: OpenAI routes know no top-k."""
    if grader.get("api") != "openai":
        return False
    extra = grader.get("extra_body") or {}
    return name == "top_k" or (name in extra and extra[name] is None and name in NOT_SENT)


def _of_rows(expected: int, repeats: int, summary: Summary) -> Iterator[str]:
    """What was graded instead of all rows of a published file, with a score for each answer."""
    ungraded = summary.answers["ungraded"]
    if ungraded:
        yield f"{ungraded} of {summary.answers['all']} answers are ungraded"
    if not expected:
        yield "the rows are not a published file"
        return
    scored = len(summary.prompts)
    if scored < expected:
        yield f"{scored} of {expected} prompts have a score"
    elif summary.answers["all"] < expected * repeats:  # a file of answers does not tell how many
        yield f"{summary.answers['all']} of {expected * repeats} answers are there so far"


def _elsewhere(grader: Mapping) -> Iterator[str]:
    """The model's name is OpenAI's; what answers to it elsewhere need not be the model."""
    host = urlsplit(grader.get("url") or "").hostname
    published = urlsplit(OPENAI).hostname
    if grader.get("model") == PUBLISHED_MODEL and host not in (published, None):
        yield f"asked at {host}, not at {published}"


class _Count:
    """A number of places in which the reference would have done otherwise."""

    def __init__(self, count: int, total: int, what: str):
        self.count = count
        self.is_frequent = count > MOST_DIFFERING * total
        self._text = f"{count} of {total} {what}"

    def __str__(self) -> str:
        return self._text


def _otherwise(summary: Summary) -> Iterator[_Count]:
    """Verdicts and answers that the reference would have asked about until there was a verdict."""
    verdicts = summary.criteria
    answers = summary.answers
    counts = (
        _Count(verdicts["unreadable"], verdicts["all"], "verdicts are unreadable"),
        _Count(answers["no_answer"], answers["all"], "answers have no final part: 0 unasked"),
        _Count(answers["truncated"], answers["all"], "answers were cut: 0 unasked"),
    )
    return (count for count in counts if count.count)
