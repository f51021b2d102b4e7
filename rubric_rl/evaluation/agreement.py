"""How a grader's verdicts agree with labels, counted pair by pair as simple-evals does."""

import statistics
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from rubric_rl.data.schema import Record
from rubric_rl.evaluation.statistics import (
    Statistic,
    Sums,
    balanced_f1,
    f1,
    interval,
    kappa,
    separation,
)

# The columns of counts: grader and label say met, only the grader, only the label, neither.
BOTH = 0
GRADER = 1
LABEL = 2
NEITHER = 3
# Then unreadable verdicts where the label is met, and where it is not.
UNREAD_MET = 4
UNREAD_NOT = 5
COLUMNS = 6
# What counts as right, as wrongly found and as missed, where met is looked for, or not met.
_MET = [BOTH, GRADER, LABEL]
_NOT_MET = [NEITHER, LABEL, GRADER]
BINS = 10  # of the reliability table


def pairs(met: bool | None, labels: Sequence[bool]) -> list[int]:
    """The counts of one verdict against each of the labels."""
    labelled_met = sum(labels)
    labelled_not = len(labels) - labelled_met
    if met is None:
        return [0, 0, 0, 0, labelled_met, labelled_not]
    if met:
        return [labelled_met, labelled_not, 0, 0, 0, 0]
    return [0, 0, labelled_met, labelled_not, 0, 0]


def figures(counts: Sequence[float] | Sums, parts: Sums | None = None) -> dict:
    """Precision, recall, F1 of met and of not met, balanced F1, Cohen's kappa.

    None where the reference has no value. With `parts`, counts per prompt, the last two also with
    their 95% interval by prompt.
    """
    row = np.asarray(counts, float)
    read = row[:UNREAD_MET]
    unreadable = row[UNREAD_MET:]
    values = {
        "met": _one_side(row[_MET]),
        "not_met": _one_side(row[_NOT_MET]),
        "balanced_f1": _value(balanced_f1, row),
        "kappa": _value(kappa, row),
        "pairs": int(read.sum()),
        "unreadable_pairs": int(unreadable.sum()),
        "balanced_f1_if_unreadable_were_wrong": _value(balanced_f1, _all_wrong(row)),
    }
    if parts is not None:
        values["balanced_f1_interval_by_prompt"] = interval(parts, balanced_f1)
        values["kappa_interval_by_prompt"] = interval(parts, kappa)
    return values


def _one_side(counts: Sums) -> dict[str, float | None]:
    right, wrong, missed = counts
    return {
        "precision": _ratio(right, right + wrong),
        "recall": _ratio(right, right + missed),
        "f1": _value(f1, counts),
    }


def _all_wrong(row: Sums) -> Sums:
    """The counts if every unreadable verdict were the opposite of the label."""
    both, grader, label, neither, unread_met, unread_not = row
    only_grader = grader + unread_not
    only_label = label + unread_met
    return np.array([both, only_grader, only_label, neither])


class Agreement:
    """Counts judged rows one by one; keeps counts per prompt, cluster and physician, no text."""

    def __init__(self, records: Iterable[Record] = ()):
        self.rows = Counter[str]()
        self.graders = Counter[str]()  # rows by the name of who judged
        # the grader against the physicians
        self.by_prompt = defaultdict(_no_counts)
        self.clusters = defaultdict(_no_counts)
        # the physicians among themselves
        self.peers_by_prompt = defaultdict(_no_counts)
        self.peer_clusters = defaultdict(_no_counts)
        # one physician against the others
        self.physicians = defaultdict(_no_counts)
        self.labels = Counter[bool]()
        # of the probabilities; columns: labels, sum of probabilities, labels that are met
        self.bins = np.zeros((BINS, 3))
        self.squares = 0.0
        self.probabilities = {True: array("d"), False: array("d")}  # by label
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Counts one judged row; of an ungraded one only that there is one."""
        self.graders[record.grader] += 1
        if record.status != "graded":
            self.rows["ungraded"] += 1
            return
        (verdict,) = record.verdicts
        status = "unreadable" if verdict.met is None else "graded"
        self.rows[status] += 1
        self.labels.update(record.labels)
        counts = pairs(verdict.met, record.labels)
        self.by_prompt[record.prompt_id] += counts
        self.clusters[record.category] += counts
        self._add_peers(record)
        if verdict.probability is not None:
            self._add_probability(verdict.probability, record.labels)

    def _add_peers(self, record: Record) -> None:
        for number, label in enumerate(record.labels):
            others = record.labels.copy()
            others.pop(number)
            counts = pairs(label, others)
            self.peers_by_prompt[record.prompt_id] += counts
            self.peer_clusters[record.category] += counts
            if record.physicians:
                physician = record.physicians[number]
                self.physicians[physician] += counts

    def _add_probability(self, probability: float, labels: list[bool]) -> None:
        place = int(probability * BINS)
        place = min(place, BINS - 1)
        count = len(labels)
        sums = (count, probability * count, sum(labels))
        self.bins[place] += sums
        squares = [(probability - label) ** 2 for label in labels]
        self.squares += sum(squares)
        for label in labels:
            self.probabilities[label].append(probability)

    def result(self) -> dict:
        """Everything as JSON."""
        parts = _stacked(self.by_prompt)
        peers = _stacked(self.peers_by_prompt)
        total = parts.sum(axis=0)
        physicians = figures(peers.sum(axis=0), peers)
        physicians["each"] = self._each_physician(total)
        return {
            "rows": {
                "all": self.rows.total(),
                "graded": self.rows["graded"],
                "unreadable": self.rows["unreadable"],
                "ungraded": self.rows["ungraded"],
            },
            "labels": {
                "met": self.labels[True],
                "not_met": self.labels[False],
            },
            "prompts": len(parts),
            "grader": figures(total, parts),
            "physicians": physicians,
            "clusters": _each_figures(self.clusters),
            "physician_clusters": _each_figures(self.peer_clusters),
            "calibration": self._calibration(),
        }

    def _each_physician(self, of_grader: Sums) -> dict | None:
        """Each physician against the others, as the reference rates a grader.

        Only those with both F1 have a value; None when nobody has.
        """
        values = []
        for counts in self.physicians.values():
            value = _value(balanced_f1, counts)
            if value is not None:
                values.append(value)
        if not values:
            return None
        values.sort()
        grader = _value(balanced_f1, of_grader)
        below = None
        if grader is not None:
            beaten = [value for value in values if value < grader]
            below = len(beaten) / len(values)
        return {
            "number": len(values),
            "lowest": values[0],
            "median": statistics.median(values),
            "highest": values[-1],
            "share_below_the_grader": below,
        }

    def _calibration(self) -> dict | None:
        """Reliability table, expected calibration error, Brier score, AUC; None without any."""
        total, _, _ = self.bins.sum(axis=0)
        if not total:
            return None
        table = []
        error = 0.0
        for number, sums in enumerate(self.bins.tolist()):
            labels, probabilities, met = sums
            if not labels:
                continue
            mean = probabilities / labels
            share_met = met / labels
            weight = labels / total
            error += weight * abs(mean - share_met)
            row = {
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "labels": int(labels),
                "probability": mean,
                "met": share_met,
            }
            table.append(row)
        return {
            "labels": int(total),
            "ece": float(error),
            "brier": float(self.squares / total),
            "auc": separation(self.probabilities[True], self.probabilities[False]),
            "table": table,
        }


def _no_counts() -> Sums:
    return np.zeros(COLUMNS, np.int64)


def _stacked(counts: Mapping[str, Sums]) -> Sums:
    """One row per prompt, in the order of the prompts."""
    rows = []
    for prompt in sorted(counts):
        rows.append(counts[prompt])
    stacked = np.array(rows)
    return stacked.reshape(-1, COLUMNS)


def _each_figures(counts: Mapping[str, Sums]) -> dict[str, dict]:
    each = {}
    for name in sorted(counts):
        each[name] = figures(counts[name])
    return each


def change(before: Agreement, after: Agreement) -> dict:
    """after - before of balanced F1 and kappa on the prompts of both.

    The bootstrap of the interval is by prompt.
    """
    shared = before.by_prompt.keys() & after.by_prompt.keys()
    rows = []
    for prompt in sorted(shared):
        earlier = before.by_prompt[prompt]
        later = after.by_prompt[prompt]
        rows.append([*earlier, *later])
    stacked = np.array(rows)
    parts = stacked.reshape(-1, 2 * COLUMNS)
    return {
        "prompts": len(parts),
        "balanced_f1": _change_of(balanced_f1, parts),
        "kappa": _change_of(kappa, parts),
    }


def _change_of(statistic: Statistic, parts: Sums) -> dict:
    """after - before; each row of `parts` holds the counts before, then those after."""

    def gain(sums: Sums) -> np.ndarray:
        earlier, later = np.split(sums, 2, axis=-1)
        return statistic(later) - statistic(earlier)

    total = parts.sum(axis=0)
    total_before, total_after = np.split(total, 2)
    before = _value(statistic, total_before)
    after = _value(statistic, total_after)
    difference = None
    if before is not None and after is not None:
        difference = after - before
    return {
        "before": before,
        "after": after,
        "difference": difference,
        "interval_by_prompt": interval(parts, gain),
    }


def _ratio(above: float, below: float) -> float | None:
    if not below:
        return None
    return float(above / below)


def _value(statistic: Statistic, counts: Sums) -> float | None:
    value = statistic(counts)
    if np.isnan(value):
        return None
    return float(value)
