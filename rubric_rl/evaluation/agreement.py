"""How a grader's verdicts agree with labels, counted pair by pair as simple-evals does (stage 6, evaluation)."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from rubric_rl.evaluation.statistics import balanced_f1, f1, interval, kappa

# The columns of counts: grader and label say met, only the grader, only the label, neither; then unreadable verdicts
# where the label is met and where it is not.
BOTH, GRADER, LABEL, NEITHER, UNREAD_MET, UNREAD_NOT = range(6)
BINS = 10  # of the reliability table


def pairs(verdict: bool | None, labels: Sequence[bool]) -> list[int]:
    """The counts of one verdict against each of the labels."""
    met, not_met = sum(labels), len(labels) - sum(labels)
    if verdict is None:
        return [0, 0, 0, 0, met, not_met]
    return [met, not_met, 0, 0, 0, 0] if verdict else [0, 0, met, not_met, 0, 0]


def figures(counts: Sequence[float], parts: np.ndarray | None = None) -> dict:
    """Precision, recall, F1 of met and of not met, balanced F1, Cohen's kappa; None where the reference has no value.

    With `parts`, counts per prompt, the last two also with their 95% interval by prompt.
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
        "balanced_f1_if_unreadable_were_wrong": _number(balanced_f1(_wrong(row))),
    }
    if parts is not None:
        values["balanced_f1_interval_by_prompt"] = interval(parts, balanced_f1)
        values["kappa_interval_by_prompt"] = interval(parts, kappa)
    return values


def _wrong(row: np.ndarray) -> np.ndarray:
    """The counts if every unreadable verdict were the opposite of the label."""
    return np.array(
        [row[BOTH], row[GRADER] + row[UNREAD_NOT], row[LABEL] + row[UNREAD_MET], row[NEITHER]]
    )


class Agreement:
    """Counts judged rows one by one; keeps counts per prompt, cluster and physician, and no text."""

    def __init__(self, rows: Iterable[Mapping] = ()):
        """Each row has prompt, category, labels, physicians (ids, may be empty), verdict, probability and status."""
        self.rows = Counter()
        self.by_prompt, self.clusters = (
            defaultdict(_no_counts),
            defaultdict(_no_counts),
        )  # grader against physicians
        self.peers_by_prompt, self.peer_clusters = (
            defaultdict(_no_counts),
            defaultdict(_no_counts),
        )  # among physicians
        self.physicians = defaultdict(_no_counts)  # one physician against the others
        self.bins, self.squares, self.labels = (
            np.zeros((BINS, 3)),
            0.0,
            Counter(),
        )  # bins: labels, sum of p, labels met
        for row in rows:
            self.add(row)

    def add(self, row: Mapping) -> None:
        """Counts one row; of an ungraded one only that there is one."""
        readable = "graded" if row["verdict"] is not None else "unreadable"
        self.rows[readable if row["status"] == "graded" else "ungraded"] += 1
        if row["status"] != "graded":
            return
        labels = row["labels"]
        self.labels.update(labels)
        counts = np.array(pairs(row["verdict"], labels))
        self.by_prompt[row["prompt"]] += counts
        self.clusters[row["category"]] += counts
        self._add_peers(row)
        if (p := row["probability"]) is not None:
            self.bins[min(int(p * BINS), BINS - 1)] += (len(labels), p * len(labels), sum(labels))
            self.squares += sum((p - label) ** 2 for label in labels)

    def _add_peers(self, row: Mapping) -> None:
        labels = row["labels"]
        for i, label in enumerate(labels):
            counts = np.array(pairs(label, labels[:i] + labels[i + 1 :]))
            self.peers_by_prompt[row["prompt"]] += counts
            self.peer_clusters[row["category"]] += counts
            if row["physicians"]:
                self.physicians[row["physicians"][i]] += counts

    def result(self) -> dict:
        """Everything as JSON."""
        parts, peers = _stacked(self.by_prompt), _stacked(self.peers_by_prompt)
        rows = {name: self.rows[name] for name in ("graded", "unreadable", "ungraded")}
        return {
            "rows": {"all": sum(rows.values())} | rows,
            "labels": {"met": self.labels[True], "not_met": self.labels[False]},
            "prompts": len(parts),
            "grader": figures(parts.sum(axis=0), parts),
            "physicians": figures(peers.sum(axis=0), peers) | self._each_physician(),
            "clusters": {name: figures(counts) for name, counts in sorted(self.clusters.items())},
            "physician_clusters": {
                name: figures(counts) for name, counts in sorted(self.peer_clusters.items())
            },
            "calibration": self._calibration(),
        }

    def _each_physician(self) -> dict:
        """Each physician against the others, as the reference rates a grader; only those with both F1 have a value."""
        values = sorted(
            v
            for counts in self.physicians.values()
            if (v := _number(balanced_f1(counts))) is not None
        )
        if not values:
            return {"each": None}
        grader = _number(balanced_f1(_stacked(self.by_prompt).sum(axis=0)))
        below = (
            sum(value < grader for value in values) / len(values) if grader is not None else None
        )
        spread = {"lowest": values[0], "median": statistics.median(values), "highest": values[-1]}
        return {"each": {"number": len(values)} | spread | {"share_below_the_grader": below}}

    def _calibration(self) -> dict | None:
        """Reliability table, expected calibration error and Brier score of the probabilities; None without any."""
        total = self.bins[:, 0].sum()
        if not total:
            return None
        table = [
            {"from": i / BINS, "to": (i + 1) / BINS, "labels": int(n), "probability": p / n, "met": met / n}
            for i, (n, p, met) in enumerate(self.bins.tolist()) if n
        ]  # fmt: skip
        error = sum(row["labels"] / total * abs(row["probability"] - row["met"]) for row in table)
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
    return np.array([counts[prompt] for prompt in sorted(counts)]).reshape(-1, 6)


def change(before: Agreement, after: Agreement) -> dict:
    """after - before of balanced F1 and kappa on the prompts of both; the bootstrap of the interval is by prompt."""
    common = sorted(before.by_prompt.keys() & after.by_prompt.keys())
    parts = np.array([[*before.by_prompt[p], *after.by_prompt[p]] for p in common]).reshape(-1, 12)
    total, values = parts.sum(axis=0), {"prompts": len(common)}
    for name, statistic in (("balanced_f1", balanced_f1), ("kappa", kappa)):
        one, other = _number(statistic(total[:6])), _number(statistic(total[6:]))
        values[name] = {
            "before": one,
            "after": other,
            "difference": None if None in (one, other) else other - one,
            "interval_by_prompt": interval(
                parts, lambda sums, of=statistic: of(sums[..., 6:]) - of(sums[..., :6])
            ),
        }
    return values


def _ratio(above: float, below: float) -> float | None:
    return float(above / below) if below else None


def _number(value) -> float | None:
    return None if np.isnan(value) else float(value)
