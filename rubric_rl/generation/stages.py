"""The stages that prompts pass while their rubrics are made: a progress bar each."""

from typing import Self

from rubric_rl.common.progress import GaveUp, StageBar

ANSWERS = "answers"
WRITING = "rubrics"
GRADING = "verdicts"
SECOND_READING = "readings"
_UNITS = {
    ANSWERS: "answers",
    WRITING: "drafts",
    GRADING: "verdicts",
    SECOND_READING: "verdicts",
}


class Stages:
    """What is done of each stage, and the failures in a row; a context manager.

    How much a stage has to do becomes known on the way.
    """

    def __init__(self, give_up_after: int):
        self._bars: dict[str, StageBar] = {}
        self._done = dict.fromkeys(_UNITS, 0)
        self._expected = dict.fromkeys(_UNITS, 0)
        self._give_up_after = give_up_after
        self._in_a_row = 0

    def __enter__(self) -> Self:
        for stage, unit in _UNITS.items():
            self._bars[stage] = StageBar(stage, None, unit).__enter__()
        return self

    def __exit__(self, *exception) -> None:
        for bar in self._bars.values():
            bar.__exit__(*exception)

    def expect(self, stage: str, count: int) -> None:
        """The stage has so many more to do."""
        self._expected[stage] += count

    def advance(self, stage: str, count: int = 1) -> None:
        """The stage has done so many more."""
        self._done[stage] += count
        self._bars[stage].move_to(self._done[stage], self._expected[stage])

    def ended(self, failure: str, cure: str) -> None:
        """A prompt has ended, with or without a failure.

        Raises GaveUp after too many failures in a row: `cure` says what to do then.
        """
        if not failure:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._in_a_row >= self._give_up_after > 0:
            what = f"{self._in_a_row} prompts in a row got no rubric, the last for: {failure}"
            raise GaveUp(f"{what}; {cure}")
