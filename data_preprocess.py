"""Raw HealthBench rows -> healthbench_easy.jsonl (training) and healthbench_hard.jsonl (evaluation) (stage 1, prompt)."""

import argparse
import sys
from pathlib import Path

from rubric_rl.healthbench import split
from rubric_rl.schema import UserError, write_jsonl


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--source", required=True, type=Path, help="all raw rows, JSONL")
    parser.add_argument("--hard", required=True, type=Path, help="raw rows of the hard part, JSONL: held out for evaluation")
    parser.add_argument("--out", required=True, type=Path, help="folder for the two files")
    parser.add_argument("--allow-subset", action="store_true", help="accept other counts than 5,000 prompts and 1,000 hard ones")
    args = parser.parse_args()
    try:
        rows = split(args.source, args.hard, args.allow_subset)
        write_jsonl(args.out / "healthbench_easy.jsonl", (row.to_json() for row in rows.easy))
        write_jsonl(args.out / "healthbench_hard.jsonl", (row.to_json() for row in rows.hard))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for line in rows.refused:
        print(f"refused: {line}", file=sys.stderr)
    print(rows.report() + ("\n(a subset, as --allow-subset permits)" if args.allow_subset else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
