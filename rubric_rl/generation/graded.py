"""A prompt's criteria with the verdicts on its answers: what is stored, and what filters read."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from rubric_rl.data.parse import row_from_metadata
from rubric_rl.data.schema import Criterion, Row, Verdict
from rubric_rl.generation.filters import Change
from rubric_rl.generation.prompts import NO_RUBRIC_YET

LEAST_CANDIDATES = 2  # answers to test a criterion on: one separates nothing
Mets = tuple[bool | None, ...]


@dataclass(frozen=True)
class UsedAnswer:
    """An answer that criteria were tested on, and whose it is."""

    text: str
    by: str  # a model, a file, "reference"
    seed: int | None = None

    def to_json(self) -> dict:
        return vars(self).copy()


@dataclass(frozen=True)
class GradedCriterion:
    """A criterion with the verdicts on all answers, in their order.

    `further` holds the verdicts of each further reading of the candidates; `probabilities` those
    of "met" where they are the verdict's own.
    """

    criterion: Criterion
    mets: Mets
    further: tuple[Mets, ...] = ()
    probabilities: tuple[float | None, ...] = ()

    def to_json(self) -> dict:
        return self.criterion.to_json() | {
            "mets": list(self.mets),
            "further": [list(mets) for mets in self.further],
            "probabilities": list(self.probabilities),
        }

    @classmethod
    def from_json(cls, item: dict) -> "GradedCriterion":
        criterion = Criterion(item["criterion"], item["points"], tuple(item["tags"]))
        further = tuple(tuple(mets) for mets in item["further"])
        return cls(criterion, tuple(item["mets"]), further, tuple(item["probabilities"]))


def graded_criteria(
    rubric: Sequence[Criterion],
    readings: Sequence[Sequence[Verdict]],
    further: Sequence[Sequence[Sequence[Verdict]]] = (),
    one_token: bool = False,
) -> list[GradedCriterion]:
    """The rubric with its verdicts: `readings` has one list per answer, in the rubric's order.

    `further` holds the same once more for each further reading. `one_token` says that a verdict is
    one token and nothing else. Only then is its probability that of the verdict: in a cascade the
    words that follow an unsure token may say another thing, and behind a reason it is that of this
    reason alone.
    """
    graded = []
    for place, criterion in enumerate(rubric):
        verdicts = [reading[place] for reading in readings]
        again = []
        for reading in further:
            again.append(tuple(verdicts_again[place].met for verdicts_again in reading))
        mets = tuple(verdict.met for verdict in verdicts)
        probabilities = tuple(verdict.probability if one_token else None for verdict in verdicts)
        graded.append(GradedCriterion(criterion, mets, tuple(again), probabilities))
    return graded


@dataclass
class GradedPrompt:
    """All that was made of a prompt before the filters by verdicts.

    The first `candidates` answers test the criteria; those behind them are the prompt's known
    pairs, which only measure: no filter sees them. `left_out` says why there is nothing to test.
    """

    row: Row  # with the expert's rubric, where there is one
    prompt_sha256: str
    reference: str = ""
    drafts: list[dict] = field(default_factory=list)  # seed, number of criteria, faults
    changes: list[Change] = field(default_factory=list)  # of the filters by wording
    answers: list[UsedAnswer] = field(default_factory=list)
    candidates: int = 0
    pairs: list[tuple[int, int]] = field(default_factory=list)  # places of (better, worse)
    criteria: list[GradedCriterion] = field(default_factory=list)
    expert: list[GradedCriterion] = field(default_factory=list)
    unused_answers: dict[str, int] = field(default_factory=dict)  # why -> how many
    left_out: str = ""

    @property
    def prompt_id(self) -> str:
        return self.row.prompt_id

    @property
    def written(self) -> int:
        """The criteria that the writer wrote."""
        return sum(draft["criteria"] for draft in self.drafts)

    def leave_out(self, places: Collection[int], why: str) -> None:
        """Leaves out the answers at these places, and the pairs that one of them belongs to."""
        kept = []
        new = {}
        left_out = 0
        for place, answer in enumerate(self.answers):
            if place not in places:
                new[place] = len(kept)
                kept.append(answer)
            elif place < self.candidates:
                left_out += 1
        if left_out:
            self.unused_answers[why] = left_out
        self.answers = kept
        self.candidates -= left_out
        pairs = []
        for better, worse in self.pairs:
            if better in new and worse in new:
                pairs.append((new[better], new[worse]))
        self.pairs = pairs

    @property
    def cure(self) -> str:
        """What to do where the prompt gets no rubric."""
        if self.candidates < LEAST_CANDIDATES:
            return "give more answers (--candidates, --answers) and another --out"
        if not self.criteria:
            return "take another writer, or other --writer-... settings, and another --out"
        return "give other --filter-... settings; those by verdicts ask nothing anew"

    def to_json(self) -> dict:
        metadata = self.row.to_json()["metadata"]
        return {
            "key": self.prompt_id,
            "status": "left_out" if self.left_out else "tested",
            "metadata": metadata,
            "prompt_sha256": self.prompt_sha256,
            "reference": self.reference,
            "drafts": self.drafts,
            "changes": [change.to_json() for change in self.changes],
            "answers": [answer.to_json() for answer in self.answers],
            "candidates": self.candidates,
            "pairs": [list(pair) for pair in self.pairs],
            "criteria": [criterion.to_json() for criterion in self.criteria],
            "expert": [criterion.to_json() for criterion in self.expert],
            "unused_answers": self.unused_answers,
            "left_out": self.left_out,
        }

    @classmethod
    def from_json(cls, item: dict) -> "GradedPrompt":
        return cls(
            row=_row(item["metadata"]),
            prompt_sha256=item["prompt_sha256"],
            reference=item["reference"],
            drafts=item["drafts"],
            changes=[Change.from_json(change) for change in item["changes"]],
            answers=[UsedAnswer(**answer) for answer in item["answers"]],
            candidates=item["candidates"],
            pairs=[(better, worse) for better, worse in item["pairs"]],
            criteria=list(_criteria(item["criteria"])),
            expert=list(_criteria(item["expert"])),
            unused_answers=item["unused_answers"],
            left_out=item["left_out"],
        )


def _criteria(items: list[dict]) -> Iterator[GradedCriterion]:
    for item in items:
        yield GradedCriterion.from_json(item)


def _row(metadata: dict) -> Row:
    """The prompt's row; it was checked when it was read, and may have no rubric."""
    rubric = metadata["rubrics"]
    if rubric:
        return row_from_metadata(metadata)
    return replace(row_from_metadata(metadata | {"rubrics": NO_RUBRIC_YET}), rubric=())
