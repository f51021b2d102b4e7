"""Who judged a run, and how: a comparison names it, because a difference may be the judge's."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from rubric_rl.data.record_file import FOLDER
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.stored import stored_settings
from rubric_rl.evaluation.summary import Summary

OWN = "our own"  # instead of a template's label


@dataclass(frozen=True)
class Judge:
    """What is known of who judged: of an evaluation all settings, of a training run the name."""

    facts: dict[str, object]

    def __str__(self) -> str:
        names = str(self.facts["name"])
        shown = []
        for key in ("model", "mode", "template", "prompt"):
            fact = self.facts.get(key)
            if fact and fact != OWN:
                shown.append(f"{key} {fact}")
        if not shown:
            return names
        details = ", ".join(shown)
        return f"{names} ({details})"

    @property
    def has_settings(self) -> bool:
        return "prompt" in self.facts

    def differences(self, other: "Judge") -> list[str]:
        """What is known of both and is not the same."""
        differing = []
        known_of_both = self.facts.keys() & other.facts.keys()
        for key in sorted(known_of_both):
            if self.facts[key] != other.facts[key]:
                differing.append(key)
        return differing


def judge_of_run(run: Run, summary: Summary) -> Judge:
    """The judge of an evaluation or a training run; `summary` is that of its records."""
    judge = judge_of_folder(folder_of(run), summary.graders)
    if not judge.has_settings:
        labels = sorted(label or OWN for label in summary.templates)
        judge = Judge(judge.facts | {"template": ", ".join(labels) or OWN})
    if "policy" not in summary.graders:
        return judge
    # Who judges itself is another judge whenever its weights are others: training tells which they
    # are, an evaluation only the name under which it was made.
    weights = run.name
    if judge.has_settings:
        weights = run.weights
    facts = judge.facts | {"weights": weights}
    return Judge(facts)


def folder_of(run: Run) -> Path:
    """The folder of an evaluation or a training run, of which the run may be a part."""
    folder = run.folder
    if folder.is_file():
        folder = folder.parent
    if folder.name == FOLDER:
        folder = folder.parent
    return folder


def judge_of_folder(folder: Path, graders: Collection[str]) -> Judge:
    """The judge of an evaluation's or a meta-evaluation's folder."""
    names = sorted(_shown(name) for name in graders)
    facts: dict[str, object] = {"name": ", ".join(names) or "unnamed"}
    settings = stored_settings(folder)
    if not settings:
        return Judge(facts)
    grader = settings.get("grader", {})
    asked = dict(grader)
    if asked.get("model"):
        # The name tells the model: where it is served, and from which files, is no difference.
        asked.pop("url", None)
        asked.pop("tokenizer", None)
    prompt = settings.get("grader_prompt", "")
    digest = hashlib.sha256(str(prompt).encode(errors="replace"))
    facts["prompt"] = digest.hexdigest()[:8]
    facts["template"] = settings.get("grader_template", OWN)
    return Judge(facts | asked)


def _shown(name: str) -> str:
    if name == "policy":
        return "the policy itself"
    return name or "unnamed"


def judge_lines(judges: Sequence[Judge]) -> list[str]:
    """Who judged: one run, or two (before, after), and whether it was the same judge."""
    if len(judges) == 1:
        (only,) = judges
        return [f"judge: {only}"]
    before, after = judges
    both = f"before {before}, after {after}"
    differences = before.differences(after)
    if differences:
        where = ", ".join(differences)
        what = f"judges differ ({where}), and the difference may be theirs"
        return [f"{what}: {both}"]
    if before.has_settings != after.has_settings:
        return [f"judges: {both}; of one of them only the name is known"]
    if after.has_settings and "weights" in after.facts:
        what = "each judged itself; whether their weights are the same is not recorded"
        return [f"judge of both: {after}: {what}"]
    return [f"judge of both: {after}"]


def two_judges(
    before: Run, summary_before: Summary, after: Run, summary_after: Summary
) -> list[str]:
    """`judge_lines` of two runs, each with the summary of its records."""
    judges = [
        judge_of_run(before, summary_before),
        judge_of_run(after, summary_after),
    ]
    return judge_lines(judges)
