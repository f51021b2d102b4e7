"""How well each filter of generated rubrics does its work, where every fault is known.

    python -m rubric_rl.tiny.measure_filters --seeds 5

The tiny writer writes a rubric for each training patient and seed, with a fault of every kind; the
oracle's verdicts on answers of every quality stand in for a grader's. Printed are two Markdown
tables: what each filter caught of the faults that are made for it, and what it dropped of good
criteria; and how well rubrics with half of all faults order answers, filtered and not.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rubric_rl.common.command_line import CommandParser, count, exit_status, positive
from rubric_rl.data.readers.pieces import prompt_hash
from rubric_rl.data.schema import Criterion, Row, Verdict
from rubric_rl.generation.filtered import FilteredPrompt, filtered
from rubric_rl.generation.filters import FILTERS, OFF, Filters, Log
from rubric_rl.generation.graded import GradedPrompt, UsedAnswer, graded_criteria
from rubric_rl.generation.prompts import Prompt, read_prompt
from rubric_rl.generation.quality import EXPERT_AGREEMENT, PAIR_ACCURACY, Quality
from rubric_rl.generation.wording_filters import by_wording
from rubric_rl.tiny.oracle import truth
from rubric_rl.tiny.prompts_and_answers import ANSWERS, prompts_and_answers
from rubric_rl.tiny.writer import FAULT_SHARE, FAULTS, GOOD, Written, written_rubric

_READINGS = 2
_Known = dict[tuple[str, float], str]  # text and points of a criterion -> its kind


@dataclass
class FilterCounts:
    """What filters did, by what the criteria are."""

    made: Counter[str] = field(default_factory=Counter)  # fault -> how many
    caught: Counter[str] = field(default_factory=Counter)  # by the filter made for it
    by_others: Counter[str] = field(default_factory=Counter)
    good: int = 0  # also the parts of split criteria, and those whose points were turned
    good_dropped: Counter[str] = field(default_factory=Counter)  # filter -> how many

    def add(self, written: list[Written], prompt: FilteredPrompt) -> None:
        """One more rubric, and what the filters made of it."""
        known: _Known = {(each.text, each.points): each.kind for each in written}
        self.made.update(each.kind for each in written if each.kind != GOOD)
        self.good += sum(each.kind == GOOD for each in written)
        for change in prompt.changes:
            criterion = change.criterion
            kind = known.get((criterion.text, criterion.points), GOOD)
            if change.became:
                self.good += len(change.became)
            if kind == GOOD:
                self.good_dropped[change.filter] += 1
            elif FAULTS[kind] == change.filter:
                self.caught[kind] += 1
            else:
                self.by_others[kind] += 1


def written_for(row: Row, seed: int, fault_share: float = FAULT_SHARE) -> list[Written]:
    """What the tiny writer writes for this patient."""
    said = [f"{message['role']}: {message['content']}" for message in row.messages]
    return written_rubric("\n\n".join(said), seed, fault_share)


def judged(
    prompt: Prompt, written: list[Written], filters: Filters, answers: list[str]
) -> FilteredPrompt:
    """A rubric tested on the answers by the oracle, measured on the prompt's pairs, filtered."""
    row = prompt.row
    graded = GradedPrompt(row, prompt_hash(row.messages), candidates=len(answers))
    texts = list(answers)
    for better, worse in prompt.pairs:
        graded.pairs.append((len(texts), len(texts) + 1))
        texts += [better, worse]
    graded.answers = [UsedAnswer(text, "rule") for text in texts]
    criteria = [Criterion(each.text, each.points) for each in written]
    rubric = by_wording(criteria, filters, Log(graded.changes))
    first = _reading(rubric, texts, 0)
    further = [_reading(rubric, answers, seed) for seed in range(1, _READINGS)]
    graded.criteria = graded_criteria(rubric, first, further)
    graded.expert = graded_criteria(row.rubric, _reading(row.rubric, texts, 0))
    return filtered(graded, filters)


def _reading(rubric: Sequence[Criterion], answers: list[str], seed: int) -> list[list[Verdict]]:
    return [[Verdict(met) for met in truth(rubric, answer, seed)] for answer in answers]


def measured(
    seeds: int,
    answers: int = ANSWERS,
    fault_share: float = 1.0,
    filters: Filters | None = None,
    quality: Quality | None = None,
) -> FilterCounts:
    """The counts over all training patients and so many seeds; adds them to the `quality`, too."""
    counts = FilterCounts()
    for seed in range(seeds):
        prompts, lines = prompts_and_answers(held_out=False, number=answers, seed=seed)
        candidates: dict[str, list[str]] = defaultdict(list)
        for line in lines:
            if line["answer"] not in candidates[line["prompt_id"]]:
                candidates[line["prompt_id"]].append(line["answer"])
        for item in prompts:
            prompt = read_prompt(item, "the tiny world")
            written = written_for(prompt.row, seed, fault_share)
            made = judged(prompt, written, filters or Filters(), candidates[prompt.prompt_id])
            counts.add(written, made)
            if quality:
                quality.add(made.graded, made.kept)
    return counts


def quality_table(seeds: int, answers: int) -> Iterator[str]:
    """A Markdown table: rubrics with the writer's usual faults, unfiltered, filtered, expert's."""
    yield "| rubric | pair accuracy | agreement with the expert |"
    yield "|---|---|---|"
    unfiltered, usual = Quality(), Quality()
    measured(seeds, answers, FAULT_SHARE, OFF, unfiltered)
    measured(seeds, answers, FAULT_SHARE, None, usual)
    for name, quality, key in (
        ("generated, unfiltered", unfiltered, "kept"),
        ("generated, filtered", usual, "kept"),
        ("the expert's", usual, "expert"),
    ):
        figures = quality.result()
        values = [figures[figure].get(key) for figure in (PAIR_ACCURACY, EXPERT_AGREEMENT)]
        yield f"| {name} | {' | '.join(map(_with_interval, values))} |"


def _with_interval(figure: dict | None) -> str:
    if figure is None:
        return ""
    low, high = figure["interval"]
    return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"


def table(counts: FilterCounts) -> Iterator[str]:
    """The Markdown table."""
    yield "| filter | faults made for it | caught by it | by another | good criteria dropped |"
    yield "|---|---|---|---|---|"
    fault_of = {name: fault for fault, name in FAULTS.items()}
    for name in FILTERS:
        dropped = counts.good_dropped[name] / counts.good
        fault = fault_of.get(name)
        if fault is None:
            yield f"| `{name}` | | | | {dropped:.1%} |"
            continue
        made = counts.made[fault]
        caught = counts.caught[fault] / made
        others = counts.by_others[fault] / made
        yield f"| `{name}` | {made} {fault} | {caught:.1%} | {others:.1%} | {dropped:.1%} |"


def main(argv: list[str] | None = None) -> int:
    """Prints the table."""
    parser = CommandParser("python -m rubric_rl.tiny.measure_filters", __doc__)
    add = parser.add_argument
    add("--seeds", type=positive, default=5, help="rubrics for each patient (default: 5)")
    add("--answers", type=count, default=ANSWERS, help="to a prompt (default: %(default)s)")
    return exit_status(lambda: _print(parser.parse_args(argv)))


def _print(args: argparse.Namespace) -> int:
    counts = measured(args.seeds, args.answers)
    print(*table(counts), sep="\n")
    print(f"{counts.good} good criteria\n")
    print(*quality_table(args.seeds, args.answers), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
