"""Whether an endpoint takes several questions in one request, as its replies to such lists show."""

import time

from rubric_rl.serving.question import Question

PAUSE = 30.0  # seconds without a list after the first that failed
MOST_TRIALS = 5  # in a row: each may cost an answer the whole time-out of a request


class Lists:
    """What is known of one endpoint, of each kind of list.

    One that went well settles it: later failures may be of one request, but not a time-out, which
    would cost every answer as much. A refusal of what is taken question by question settles it too.
    What only failed may have done so by chance: after a pause it is tried again, and then after one
    twice as long, MOST_TRIALS times.
    """

    def __init__(self):
        self._taken: dict[str, bool] = {}
        self._next: dict[str, float] = {}  # when a kind that only failed is tried again
        self._pause: dict[str, float] = {}
        self._trials: dict[str, int] = {}

    def may_be_sent(self, questions: list[Question]) -> bool:
        """Whether to send these as a list."""
        kind = _kind_of(questions)
        if kind in self._taken:
            return self._taken[kind]
        if kind not in self._next:
            return True
        now = time.monotonic()
        trials = self._trials.get(kind, 0)
        if now < self._next[kind] or trials >= MOST_TRIALS:
            return False
        self._trials[kind] = trials + 1
        self._put_off(kind, now)  # others wait for how this one fares
        return True

    def went_well(self, questions: list[Question]) -> None:
        """Notes that a list brought replies."""
        kind = _kind_of(questions)
        self._taken[kind] = True
        self._trials.pop(kind, None)

    def was_refused(self, questions: list[Question]) -> None:
        """Notes that a list was refused of which each question was taken."""
        self._taken.setdefault(_kind_of(questions), False)

    def failed(self, questions: list[Question], hung: bool) -> bool:
        """Notes that a list failed of which a question was taken alone; `hung`: by a time-out.

        Says whether it is the first to be known of its kind.
        """
        kind = _kind_of(questions)
        settled = self._taken.get(kind)
        if settled is False or (settled and not hung):
            return False
        self._taken.pop(kind, None)
        is_first = kind not in self._next
        if settled or is_first:
            self._put_off(kind, time.monotonic())
        return is_first

    def _put_off(self, kind: str, now: float) -> None:
        pause = self._pause.get(kind, PAUSE)
        self._next[kind] = now + pause
        self._pause[kind] = 2 * pause


def _kind_of(questions: list[Question]) -> str:
    """The two are told apart: SGLang's router 0.3 takes lists of token ids, and none of texts."""
    if questions[0].opening:
        return "of tokens"
    return "of words"
