"""How a grader's verdicts agree with labels, counted pair by pair as simple-evals does."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from rubric_rl.data.schema import Record
from rubric_rl.evaluation.statistics import balanced_f1, f1, interval, kappa

# The columns of counts: grader and label say met, only the grader, only the label, neither; then
# unreadable verdicts where the label is met and where it is not.
BOTH, GRADER, LABEL, NEITHER, UNREAD_MET, UNREAD_NOT = range(6)
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


def figures(counts: Sequence[float] | np.ndarray, parts: np.ndarray | None = None) -> dict:
    """Precision, recall, F1 of met and of not met, balanced F1, Cohen's kappa.

    None where the reference has no value. With `parts`, counts per prompt, the last two also with
    their 95% interval by prompt.
    """
    row = np.asarray(counts, float)
    both, grader, label, neither = row[:4]
    values = {
        "met": {
            "precision": _ratio(both, both + grader),
            "recall": _ratio(both, both + label),
            "f1": _number(f1(row)),
        },
        "not_met": {
            "precision": _ratio(neither, neither + label),
            "recall": _ratio(neither, neither + grader),
            "f1": _number(f1(row[[NEITHER, LABEL, GRADER]])),
        },
        "balanced_f1": _number(balanced_f1(row)),
        "kappa": _number(kappa(row)),
        "pairs": int(row[:4].sum()),
        "unreadable_pairs": int(row[4:].sum()),
        "balanced_f1_if_unreadable_were_wrong": _number(balanced_f1(_all_wrong(row))),
    }
    if parts is not None:
        values["balanced_f1_interval_by_prompt"] = interval(parts, balanced_f1)
        values["kappa_interval_by_prompt"] = interval(parts, kappa)
    return values


def _all_wrong(row: np.ndarray) -> np.ndarray:
    """The counts if every unreadable verdict were the opposite of the label."""
    only_grader = row[GRADER] + row[UNREAD_NOT]
    only_label = row[LABEL] + row[UNREAD_MET]
    return np.array([row[BOTH], only_grader, only_label, row[NEITHER]])


class Agreement:
    """Counts judged rows one by one; keeps counts per prompt, cluster and physician, no text."""

    def __init__(self, records: Iterable[Record] = ()):
        self.rows: Counter[str] = Counter()
        self.graders: Counter[str] = Counter()  # rows by the name of who judged
        # the grader against the physicians
        self.by_prompt = defaultdict(_no_counts)
        self.clusters = defaultdict(_no_counts)
        # the physicians among themselves
        self.peers_by_prompt = defaultdict(_no_counts)
        self.peer_clusters = defaultdict(_no_counts)
        # one physician against the others
        self.physicians = defaultdict(_no_counts)
        self.labels: Counter[bool] = Counter()
        # of the probabilities; columns: labels, sum of probabilities, labels that are met
        self.bins = np.zeros((BINS, 3))
        self.squares = 0.0
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Counts one judged row; of an ungraded one only that there is one."""
        self.graders[record.grader] += 1
        if record.status != "graded":
            self.rows["ungraded"] += 1
            return
        (verdict,) = record.verdicts
        self.rows["unreadable" if verdict.met is None else "graded"] += 1
        labels = record.labels
        self.labels.update(labels)
        counts = np.array(pairs(verdict.met, labels))
        self.by_prompt[record.prompt_id] += counts
        self.clusters[record.category] += counts
        self._add_peers(record)
        probability = verdict.probability
        if probability is not None:
            place = min(int(probability * BINS), BINS - 1)
            count, met = len(labels), sum(labels)
            self.bins[place] += (count, probability * count, met)
            self.squares += sum((probability - label) ** 2 for label in labels)

    def _add_peers(self, record: Record) -> None:
        labels = record.labels
        for number, label in enumerate(labels):
            others = labels[:number] + labels[number + 1 :]
            counts = np.array(pairs(label, others))
            self.peers_by_prompt[record.prompt_id] += counts
            self.peer_clusters[record.category] += counts
            if record.physicians:
                self.physicians[record.physicians[number]] += counts

    def result(self) -> dict:
        """Everything as JSON."""
        parts = _stacked(self.by_prompt)
        peers = _stacked(self.peers_by_prompt)
        rows = {
            "graded": self.rows["graded"],
            "unreadable": self.rows["unreadable"],
            "ungraded": self.rows["ungraded"],
        }
        physicians = figures(peers.sum(axis=0), peers)
        physicians["each"] = self._each_physician()
        return {
            "rows": {"all": sum(rows.values())} | rows,
            "labels": {"met": self.labels[True], "not_met": self.labels[False]},
            "prompts": len(parts),
            "grader": figures(parts.sum(axis=0), parts),
            "physicians": physicians,
            "clusters": _each_figures(self.clusters),
            "physician_clusters": _each_figures(self.peer_clusters),
            "calibration": self._calibration(),
        }

    def _each_physician(self) -> dict | None:
        """Each physician against the others, as the reference rates a grader.

        Only those with both F1 have a value; None when nobody has.
        """
        found = (_number(balanced_f1(counts)) for counts in self.physicians.values())
        values = sorted(value for value in found if value is not None)
        if not values:
            return None
        counts = _stacked(self.by_prompt).sum(axis=0)
        grader = _number(balanced_f1(counts))
        below = None
        if grader is not None:
            beaten = sum(value < grader for value in values)
            below = beaten / len(values)
        return {
            "number": len(values),
            "lowest": values[0],
            "median": statistics.median(values),
            "highest": values[-1],
            "share_below_the_grader": below,
        }

    def _calibration(self) -> dict | None:
        """Reliability table, expected calibration error and Brier score; None without any."""
        total = self.bins[:, 0].sum()
        if not total:
            return None
        table = []
        error = 0.0
        for number, (labels, probabilities, met) in enumerate(self.bins.tolist()):
            if not labels:
                continue
            mean, share_met = probabilities / labels, met / labels
            error += labels / total * abs(mean - share_met)
            table.append(
                {
                    "from": number / BINS,
                    "to": (number + 1) / BINS,
                    "labels": int(labels),
                    "probability": mean,
                    "met": share_met,
                }
            )
        return {
            "labels": int(total),
            "ece": float(error),
            "brier": float(self.squares / total),
            "table": table,
        }


def _no_counts() -> np.ndarray:
    return np.zeros(6, np.int64)


def _stacked(counts: Mapping[str, np.ndarray]) -> np.ndarray:
    """One row per prompt, in the order of the prompts."""
    rows = [counts[prompt] for prompt in sorted(counts)]
    return np.array(rows).reshape(-1, 6)


def _each_figures(counts: Mapping[str, np.ndarray]) -> dict[str, dict]:
    return {name: figures(counts[name]) for name in sorted(counts)}


def change(before: Agreement, after: Agreement) -> dict:
    """after - before of balanced F1 and kappa on the prompts of both.

    The bootstrap of the interval is by prompt.
    """
    shared = before.by_prompt.keys() & after.by_prompt.keys()
    common = sorted(shared)
    rows = []
    for prompt in common:
        row = np.concatenate([before.by_prompt[prompt], after.by_prompt[prompt]])
        rows.append(row)
    parts = np.array(rows).reshape(-1, 12)
    total = parts.sum(axis=0)
    values: dict = {"prompts": len(common)}
    for name, statistic in (("balanced_f1", balanced_f1), ("kappa", kappa)):

        def gain(sums: np.ndarray, statistic=statistic) -> np.ndarray:
            earlier, later = sums[..., :6], sums[..., 6:]
            return statistic(later) - statistic(earlier)

        one = _number(statistic(total[:6]))
        other = _number(statistic(total[6:]))
        difference = None
        if one is not None and other is not None:
            difference = other - one
        values[name] = {
            "before": one,
            "after": other,
            "difference": difference,
            "interval_by_prompt": interval(parts, gain),
        }
    return values


def _ratio(above: float, below: float) -> float | None:
    return float(above / below) if below else None


def _number(value: np.ndarray | float) -> float | None:
    return None if np.isnan(value) else float(value)
