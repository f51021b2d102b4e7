"""Computes rewards again from stored verdicts, without a model, and holds them against the stored ones (stage 4, reward)."""

import argparse
import math
import statistics
import sys
from collections import defaultdict

from rubric_rl.records import ANSWER, read_records, reward_of
from rubric_rl.schema import UserError, write_jsonl


def rescore(records: list[dict]) -> list[dict]:
    """Per record: what tells the answer apart, its status, the stored score and the one from the verdicts (None: ungraded)."""
    rows = []
    for record in records:
        value = reward_of(record)
        kept = {key: record[key] for key in (*ANSWER, "status", "score")}
        rows.append(kept | {"rescored": None if math.isnan(value) else value})
    return rows


def table(rows: list[dict]) -> str:
    """One line per split and weight version: answers, ungraded ones, mean of the stored and of the recomputed scores."""
    parts = defaultdict(list)
    for row in rows:
        parts[row["split"], row["weight_version"]].append(row)
    lines = [f"{'split':>6} {'weights':>8} {'answers':>8} {'ungraded':>9} {'stored':>8} {'rescored':>9}"]
    for (split, version), part in sorted(parts.items(), key=lambda item: (item[0][0], len(item[0][1]), item[0][1])):
        graded = [row for row in part if row["rescored"] is not None]
        means = [statistics.fmean(row[key] for row in graded) if graded else math.nan for key in ("score", "rescored")]
        lines.append(f"{split:>6} {version:>8} {len(part):>8} {len(part) - len(graded):>9} {means[0]:>8.4f} {means[1]:>9.4f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rubric_rl.rescore", description=__doc__, allow_abbrev=False)
    parser.add_argument("records", help="a folder of verdict records, e.g. runs/tiny/verdicts, or one file")
    parser.add_argument("--out", help="also write one JSON line per answer to this file")
    args = parser.parse_args()
    try:
        rows = rescore(read_records(args.records))
        if args.out:
            write_jsonl(args.out, rows)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    differ = sum(row["rescored"] != row["score"] for row in rows)
    print(table(rows))
    print(f"{len(rows)} answers, {differ} of them with another score than stored")
    return 0


if __name__ == "__main__":
    sys.exit(main())
