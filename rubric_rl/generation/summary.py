"""A generation summed up: what became of prompts, answers, criteria, and what it cost."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from rubric_rl.data.schema import TokenCounts
from rubric_rl.evaluation.endpoint_flags import Price
from rubric_rl.evaluation.summary import cost_of
from rubric_rl.generation.filtered import FilteredPrompt
from rubric_rl.generation.filters import FILTERS
from rubric_rl.generation.quality import FIGURES, RUBRICS, Quality
from rubric_rl.generation.read_draft import FAULTS
from rubric_rl.generation.verdict_filters import LEAST_ANSWERS

_NAMED = 10  # prompts without a rubric that are named in print


class Summary:
    """Adds up prompts one by one."""

    def __init__(self):
        self.left_out: dict[str, str] = {}  # prompt_id -> why it has no rubric
        self.cure = ""  # what to do about the first of those
        self._prompts = self._drafts = self._written = self._few_answers = 0
        self._answers: Counter[str] = Counter()
        self._unused: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._filtered: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._quality = Quality()

    @property
    def rows(self) -> int:
        """The prompts that got a rubric."""
        return self._prompts - len(self.left_out)

    def add(self, prompt: FilteredPrompt) -> None:
        """One more prompt."""
        graded = prompt.graded
        self._prompts += 1
        self._answers.update(answer.by for answer in graded.answers[: graded.candidates])
        self._unused.update(graded.unused_answers)
        self._drafts += len(graded.drafts)
        self._written += graded.written
        for draft in graded.drafts:
            self._faults.update(draft["faults"])
        self._filtered.update(change.filter for change in prompt.changes)
        if prompt.left_out:
            self.left_out[graded.prompt_id] = prompt.left_out
            self.cure = self.cure or graded.cure
            return
        self._few_answers += graded.candidates < LEAST_ANSWERS
        for each in prompt.kept:
            self._kept["positive" if each.criterion.points > 0 else "negative"] += 1
        self._quality.add(graded, prompt.kept)

    def result(self, all_prompts: int) -> dict:
        """All figures but the calls; `all_prompts` counts those that are not finished, too."""
        return {
            "prompts": {
                "all": all_prompts,
                "rows": self.rows,
                "left_out": len(self.left_out),
                "unfinished": all_prompts - self._prompts,
            },
            "left_out": self.left_out,
            "answers": {"used": dict(self._answers), "unused": dict(self._unused)},
            "written": {
                "drafts": self._drafts,
                "criteria": self._written,
                "faults": dict(self._faults),
            },
            "filtered": {name: self._filtered[name] for name in FILTERS},
            "too_few_answers_to_disagree": self._few_answers,
            "kept": {
                "criteria": self._kept.total(),
                "positive": self._kept["positive"],
                "negative": self._kept["negative"],
            },
            "quality": self._quality.result(),
        }


def calls_result(calls: Iterable[Mapping], prices: Mapping[str, Price]) -> dict:
    """Calls, tokens and cost by role, from the stored replies: a lost one is not among them."""
    counts: Counter[str] = Counter()
    tokens: dict[str, TokenCounts] = defaultdict(TokenCounts)
    for call in calls:
        if "reply" not in call:
            continue
        role = call["role"]
        reply = call["reply"]
        counts[role] += 1
        tokens[role] += TokenCounts(
            reply["prompt_tokens"], reply["cached_tokens"], reply["completion_tokens"]
        )
    cost = {}
    for role, price in prices.items():
        cost[role] = cost_of(tokens[role], price)
    return {
        "calls": dict(counts),
        "tokens": {role: vars(count).copy() for role, count in tokens.items()},
        "cost": cost,
    }


def summary_lines(result: dict) -> Iterator[str]:
    """The result as it is printed: a line a stage."""
    prompts = result["prompts"]
    line = f"{prompts['all']}: {prompts['rows']} with a rubric, {prompts['left_out']} left out"
    if prompts["unfinished"]:
        line += f", {prompts['unfinished']} unfinished"
    yield _line("prompts", line)
    for number, (prompt_id, why) in enumerate(result["left_out"].items()):
        if number == _NAMED:
            more = prompts["left_out"] - _NAMED
            yield _line("", f"and {more} more, named in result.json")
            break
        yield _line("", f"left out: {prompt_id}: {why}")
    used = result["answers"]["used"]
    by = ", ".join(f"{count} by {name}" for name, count in used.items())
    unused = _counted(result["answers"]["unused"])
    yield _line(
        "answers", f"{sum(used.values())} ({by})" + (f"; not used: {unused}" * bool(unused))
    )
    written = result["written"]
    yield _line("written", f"{written['criteria']} criteria in {written['drafts']} drafts")
    for name, count in written["faults"].items():
        yield _line("", f"{count} {FAULTS[name]}")
    for name, count in result["filtered"].items():
        yield _line(name, f"{count} {FILTERS[name]}")
    if result["made_by"]["readings"] == 1:
        yield _line("", "each answer was read once: only probabilities show what is unsteady")
    kept = result["kept"]
    yield _line(
        "kept",
        f"{kept['criteria']} criteria, {kept['positive']} positive, {kept['negative']} negative",
    )
    few = result["too_few_answers_to_disagree"]
    if few:
        what = f"{few} prompts have fewer than {LEAST_ANSWERS} answers"
        yield _line("", f"{what}, too few to see which criteria disagree")
    yield from _quality_lines(result["quality"])
    for role, count in result["calls"].items():
        tokens = result["tokens"][role]
        shown = ", ".join(f"{number:,} {kind}" for kind, number in tokens.items())
        cost = result["cost"].get(role)
        line = f"{count:,} replies kept; their tokens: {shown}"
        yield _line(role, line + (f"; their cost {cost}" if cost else ""))


def _quality_lines(quality: dict) -> Iterator[str]:
    for figure, values in quality.items():
        yield _line(figure, FIGURES[figure])
        for name, measured in values.items():
            value = f"{measured['value']:.3f}"
            if measured["interval"]:
                low, high = measured["interval"]
                value += f" [{low:.3f}, {high:.3f}]"
            of = f"{measured['pairs']} pairs, {measured['prompts']} prompts"
            yield _line("", f"{value} {RUBRICS[name]} ({of})")


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _line(name: str, text: str) -> str:
    return f"{name:<17} {text}"
