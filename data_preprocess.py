"""Raw rubric rows -> healthbench_easy.jsonl (training), healthbench_hard.jsonl (evaluation).

docs/data.md tells what is refused and what is left out.
"""

import argparse
import gc
import os
import sys
from collections.abc import Iterable
from pathlib import Path

try:
    from rubric_rl.common.command_line import CommandParser, exit_status
    from rubric_rl.common.errors import UserError
    from rubric_rl.common.jsonl import write_jsonl, write_text
    from rubric_rl.common.tokenizer import ChatTokenizer
    from rubric_rl.data.checks.command import add_check_flags, check_options, check_split
    from rubric_rl.data.converters import load_converter
    from rubric_rl.data.readers.registry import NAMES, reader_named
    from rubric_rl.data.source import Source, locate
    from rubric_rl.data.split import Split, SplitOptions, split
    from rubric_rl.data.split_report import report
    from rubric_rl.data.stored_rows import write_rows
# It is the first Python that a newcomer starts, often in no environment yet.
except ModuleNotFoundError as error:
    what = f"the package {error.name} is missing"
    sys.exit(f"error: {what}; pip install -e . here, or use .venv/bin/python")

DESCRIPTION = "Raw rubric rows -> NAME_easy.jsonl (training), NAME_hard.jsonl (evaluation)."
EPILOG = """Training rows are deduplicated: the first of equal conversations is kept, the first of
equal criteria of a prompt, and no conversation that is held out. Evaluation rows keep prompts and
criteria as published, so that scores are comparable. See docs/data.md."""

PARTS = ("easy", "hard_sample", "hard")  # the fields of a Split that are written


def main(argv: list[str] | None = None) -> int:
    """Writes the three files of rows and the report; returns the exit status."""
    # Rows are trees, in which the search for cycles finds nothing and took a sixth of the time.
    gc.set_threshold(1_000_000)
    return exit_status(lambda: _preprocess_and_report(parse(argv)))


def _preprocess_and_report(args: argparse.Namespace) -> int:
    rows, text = preprocess(args)
    for line in rows.refused:
        print(f"refused: {line}", file=sys.stderr)
    print(text, end="")
    return 0


def preprocess(args: argparse.Namespace) -> tuple[Split, str]:
    """Reads, selects and writes rows; returns them and the text of the report."""
    tokenizer = ChatTokenizer(args.tokenizer) if args.tokenizer else None
    options = SplitOptions(
        allow_subset=args.allow_subset,
        converter=load_converter(args.converter) if args.converter else None,
        reader=reader_named(args.format) if args.format else None,
        hold_out=args.hold_out,
        fix_signs=args.fix_signs,
        consensus=args.consensus,
        max_prompt_tokens=args.max_prompt_tokens,
        tokenizer=tokenizer,
        sample=args.sample,
        eval_sample=args.eval_sample,
        seed=args.seed,
    )
    checks = check_options(args)
    source = locate(args.source, args.hard, args.cache, args.train, args.hold_out_split)
    files = {part: args.out / f"{args.name}_{part}.jsonl" for part in PARTS}
    log = args.out / f"{args.name}_changes.jsonl"
    report_file = args.out / f"{args.name}_report.txt"
    check_no_input([*files.values(), log, report_file, checks.replies], source)
    rows = split(source, options)
    section, changes = check_split(rows, checks)
    text = report(rows) + section
    for part, path in files.items():
        write_rows(path, getattr(rows, part))
    if checks.changes_rows or log.exists():  # an older one would tell of other rows
        write_jsonl(log, changes)
    write_text(report_file, text)
    return rows, text


def check_no_input(outputs: Iterable[Path], source: Source) -> None:
    """Raises UserError for a file that would take the place of the one that it is made from."""
    inputs = source.files()
    for output in outputs:
        if any(path.exists() and output.exists() and path.samefile(output) for path in inputs):
            hint = "name another --out or --name"
            raise UserError(f"{output}: is read and would be written over; {hint}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = CommandParser("python data_preprocess.py", DESCRIPTION, epilog=EPILOG)
    add_places(parser)
    add_selection(parser)
    add_check_flags(parser)
    args = parser.parse_args(argv)
    if args.name in ("", ".", "..") or Path(args.name).name != args.name:
        hint = "give the beginning of file names, and their folder with --out"
        parser.error(f"--name {args.name}: holds a folder; {hint}")
    if args.format and args.converter:
        parser.error("--format and --converter: one reads the rows; leave out the other")
    if args.hold_out_split and args.hold_out:
        what = "--hold-out and --hold-out-split: both say what is held out"
        parser.error(f"{what}; leave out one")
    if args.max_prompt_tokens is not None and not args.tokenizer:
        parser.error("--max-prompt-tokens needs --tokenizer FOLDER, or HF_CKPT_PATH")
    counts = (args.sample, args.eval_sample, args.max_prompt_tokens)
    too_small = any(count is not None and count < 1 for count in counts)
    if too_small or args.hold_out < 0:
        flags = "--hold-out, --sample, --eval-sample and --max-prompt-tokens"
        parser.error(f"{flags} take positive numbers")
    return args


def add_places(parser: argparse.ArgumentParser) -> None:
    """The flags that say where rows come from and where they go."""
    parser.add_argument(
        "--source",
        default="official",
        help="official (default), hf, hf:OWNER/NAME[/CONFIG][@SPLIT], a folder, or a file of "
        "JSONL, JSON or Parquet, also packed by gzip",
    )
    parser.add_argument(
        "--format",
        metavar="NAME",
        help="the set that the rows are of (default: recognised by their fields): "
        + ", ".join(NAMES),
    )
    parser.add_argument(
        "--train",
        default="",
        metavar="SPLIT",
        help="the published split to train on (default: train)",
    )
    parser.add_argument(
        "--hold-out-split",
        default="",
        metavar="SPLIT",
        help="the published split that is held out, of a folder or of hf:",
    )
    parser.add_argument(
        "--hard",
        type=Path,
        help="raw rows held out for evaluation (default: the published hard file of the source)",
    )
    parser.add_argument(
        "--hold-out",
        type=int,
        default=0,
        metavar="N",
        help="without a hard file: draw N prompts for evaluation",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("data"),
        help="output folder (default: data)",
    )
    parser.add_argument(
        "--name",
        default="healthbench",
        help="files are NAME_easy.jsonl, NAME_hard.jsonl, ... (default: healthbench)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path.home() / ".cache" / "healthbench",
        help="folder that keeps the download",
    )
    parser.add_argument(
        "--converter",
        metavar="MODULE.FUNCTION",
        help="makes raw rows of other data, e.g. rubric_rl.data.converters.plain",
    )
    parser.add_argument(
        "--tokenizer",
        default=os.environ.get("HF_CKPT_PATH"),
        help="folder of the policy: counts tokens, and refuses rows that its chat template "
        "refuses (default: HF_CKPT_PATH)",
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The flags that say which prompts and criteria are kept."""
    parser.add_argument(
        "--allow-subset",
        action="store_true",
        help="of HealthBench, accept other counts than 4,000 training and 1,000 hard prompts",
    )
    parser.add_argument(
        "--max-prompt-tokens",
        type=int,
        metavar="N",
        help="leave out longer training prompts (needs --tokenizer)",
    )
    parser.add_argument(
        "--consensus",
        action="store_true",
        help="only criteria that physicians agreed on (level:cluster)",
    )
    parser.add_argument(
        "--fix-signs",
        action="store_true",
        help="flip the two criteria whose published sign contradicts their text",
    )
    parser.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="draw N training and N hard prompts",
    )
    parser.add_argument(
        "--eval-sample",
        type=int,
        default=128,
        metavar="N",
        help="size of NAME_hard_sample.jsonl (default: 128)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of all draws (default: 0)",
    )


if __name__ == "__main__":
    sys.exit(main())
