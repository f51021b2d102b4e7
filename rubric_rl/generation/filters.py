"""The filters' settings, and what a filter leaves behind: the criteria kept, and each change.

Filters by wording come before the criteria are tested on answers, and decide what is asked. Filters
by verdicts come after, on what is stored, so that another choice of them costs no call.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from pydantic import FiniteFloat

from rubric_rl.data.schema import Criterion
from rubric_rl.serving.endpoint import Settings, setting, transport

# A filter's name in reports -> what it finds; in the order in which they work.
BY_WORDING = {
    "split": "asked for several things, and became several criteria",
    "polarity": "had points against its own wording",
    "duplicates": "said the same as another one",
}
BY_VERDICTS = {
    "unreadable": "got no readable verdict on most answers",
    "unsteady": "got other verdicts when the same answers were read again",
    "always_met": "was met by every answer",
    "never_met": "was met by no answer",
    "disagreeing": "was met by the answers that the other criteria call worse",
    "cap": "was among the lightest of too many",
    "balance": "was among the lightest negative ones, which outweighed the rest",
}
FILTERS = BY_WORDING | BY_VERDICTS


class Filters(Settings):
    """Which filters work, and how strictly. The first three decide what is asked."""

    split: bool = setting(True, "split a criterion that asks for several things")
    polarity: Literal["turn", "drop", "keep"] = setting(
        "turn", "points against the criterion's own wording: turn them, drop it, or keep it so"
    )
    duplicates: bool = setting(True, "keep the heaviest of criteria that say the same")

    # On these no call depends: they work on stored verdicts.
    unsteady: bool = transport(True, "drop what gets other verdicts when it is read again")
    most_changes: FiniteFloat = transport(
        0.3, "the share of verdicts above which it counts as unsteady", ge=0, le=1
    )
    always_met: bool = transport(True, "drop what every answer meets")
    never_met: bool = transport(True, "drop what no answer meets")
    disagreeing: bool = transport(
        True, "drop what the answers meet that the other criteria call worse (leave one out)"
    )
    least_right: FiniteFloat = transport(
        0.3, "the probability that it has the right sign, below which it disagrees", ge=0, le=1
    )
    cap: int = transport(12, "criteria of a prompt that are kept, the heaviest; 0: all", ge=0)
    balance: FiniteFloat = transport(
        0.5,
        "the largest share of a prompt's points that negative ones may have; 1: any",
        ge=0,
        le=1,
    )


OFF = Filters(
    split=False,
    polarity="keep",
    duplicates=False,
    unsteady=False,
    always_met=False,
    never_met=False,
    disagreeing=False,
    cap=0,
    balance=1.0,
)


@dataclass(frozen=True)
class Change:
    """What a filter did with a criterion; it became nothing where it was dropped."""

    filter: str
    criterion: Criterion
    reason: str = ""
    became: tuple[Criterion, ...] = ()

    def to_json(self) -> dict:
        item: dict = {"filter": self.filter, **_short(self.criterion), "reason": self.reason}
        if self.became:
            item["became"] = [_short(criterion) for criterion in self.became]
        return item

    @classmethod
    def from_json(cls, item: dict) -> "Change":
        became = tuple(_criterion(each) for each in item.get("became", ()))
        return cls(item["filter"], _criterion(item), item["reason"], became)


def _short(criterion: Criterion) -> dict:
    return {"criterion": criterion.text, "points": criterion.points}


def _criterion(item: dict) -> Criterion:
    return Criterion(item["criterion"], item["points"])


@dataclass
class Log:
    """The changes of one prompt's rubric."""

    changes: list[Change] = field(default_factory=list)

    def add(
        self,
        filter_name: str,
        criterion: Criterion,
        reason: str = "",
        became: Iterable[Criterion] = (),
    ) -> None:
        """One more change; it is one of FILTERS."""
        assert filter_name in FILTERS
        self.changes.append(Change(filter_name, criterion, reason, tuple(became)))
