"""How well each filter of generated rubrics does its work, where every fault is known.

    python -m rubric_rl.tiny.measure_filters --seeds 5

The tiny writer writes a rubric for each training patient and seed, with a fault of every kind; the
oracle's verdicts on answers of every quality stand in for a grader's. Printed is a Markdown table:
what each filter caught of the faults that are made for it, and what it dropped of good criteria.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from rubric_rl.common.command_line import CommandParser, count, exit_status, positive
from rubric_rl.data.schema import Criterion, Row, Verdict
from rubric_rl.generation.filtered import FilteredPrompt, filtered
from rubric_rl.generation.filters import FILTERS, Filters, Log
from rubric_rl.generation.graded import GradedPrompt, UsedAnswer, graded_criteria
from rubric_rl.generation.prompts import prompt_hash
from rubric_rl.generation.wording_filters import by_wording
from rubric_rl.tiny.oracle import truth
from rubric_rl.tiny.prompts_and_answers import ANSWERS, answers_to
from rubric_rl.tiny.world import pair_of, rows
from rubric_rl.tiny.writer import FAULTS, GOOD, Written, written_rubric

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


def judged(
    row: Row, written: list[Written], filters: Filters, answers: list[str]
) -> FilteredPrompt:
    """A rubric tested on the answers by the oracle, and filtered."""
    prompt = GradedPrompt(row, prompt_hash(row.messages), candidates=len(answers))
    prompt.answers = [UsedAnswer(answer, "rule") for answer in answers]
    criteria = [Criterion(each.text, each.points) for each in written]
    rubric = by_wording(criteria, filters, Log(prompt.changes))
    readings = []
    for seed in range(_READINGS):
        reading = [[Verdict(met) for met in truth(rubric, answer, seed)] for answer in answers]
        readings.append(reading)
    first, *further = readings
    prompt.criteria = graded_criteria(rubric, first, further)
    return filtered(prompt, filters)


def measured(
    seeds: int, answers: int = ANSWERS, fault_share: float = 1.0, filters: Filters | None = None
) -> FilterCounts:
    """The counts over all training patients and so many seeds."""
    counts = FilterCounts()
    for seed in range(seeds):
        rng = Random(seed)
        for row in rows(held_out=False):
            said = [f"{message['role']}: {message['content']}" for message in row.messages]
            written = written_rubric("\n\n".join(said), seed, fault_share)
            candidates = list(dict.fromkeys(answers_to(rng, pair_of(row), answers)))
            counts.add(written, judged(row, written, filters or Filters(), candidates))
    return counts


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
    print(f"{counts.good} good criteria")
    return 0


if __name__ == "__main__":
    sys.exit(main())
