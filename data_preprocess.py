"""Raw HealthBench rows -> healthbench_easy.jsonl (training), healthbench_hard.jsonl (evaluation) (stage 1, prompt)."""

import argparse
import os
import sys
from pathlib import Path

try:
    from rubric_rl.data.healthbench import load_converter, locate
    from rubric_rl.data.split import Options, report, split
    from rubric_rl.errors import UserError
    from rubric_rl.jsonl import write_jsonl
    from rubric_rl.tokenizer import ChatTokenizer
except (
    ModuleNotFoundError
) as error:  # the first Python a newcomer starts, often in no environment yet
    sys.exit(
        f"error: the package {error.name} is missing; pip install -e . here, or use .venv/bin/python"
    )

EPILOG = """Training rows are deduplicated: the first of equal conversations is kept, the first of equal criteria of a
prompt, and no conversation that is held out. Evaluation rows keep prompts and criteria as published, so that scores are
comparable. See docs/data.md."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, allow_abbrev=False)
    add = parser.add_argument
    add(
        "--source",
        default="official",
        help="official (default), hf, hf:OWNER/NAME[@SPLIT], a folder or a JSONL file",
    )
    add(
        "--hard",
        type=Path,
        help="raw rows held out for evaluation (default: the published hard file of the source)",
    )
    add(
        "--hold-out",
        type=int,
        default=0,
        metavar="N",
        help="without a hard file: draw N prompts for evaluation",
    )
    add("--out", type=Path, default=Path("data"), help="output folder (default: data)")
    add(
        "--name",
        default="healthbench",
        help="files are NAME_easy.jsonl, NAME_hard.jsonl, ... (default: healthbench)",
    )
    add(
        "--cache",
        type=Path,
        default=Path.home() / ".cache" / "healthbench",
        help="folder that keeps the download",
    )
    add(
        "--allow-subset",
        action="store_true",
        help="accept other counts than 4,000 training and 1,000 hard prompts",
    )
    add(
        "--converter",
        metavar="MODULE.FUNCTION",
        help="makes raw rows of other data, e.g. rubric_rl.data.converters.plain",
    )
    checkpoint = os.environ.get("HF_CKPT_PATH")
    add(
        "--tokenizer",
        default=checkpoint,
        help="model folder that counts tokens (default: HF_CKPT_PATH)",
    )
    _add_selection(add)
    return parser


def _add_selection(add) -> None:
    """The flags that say which prompts and criteria are kept."""
    add(
        "--max-prompt-tokens",
        type=int,
        metavar="N",
        help="leave out longer training prompts (needs --tokenizer)",
    )
    add(
        "--consensus",
        action="store_true",
        help="only criteria that physicians agreed on (level:cluster)",
    )
    add(
        "--fix-signs",
        action="store_true",
        help="flip the two criteria whose published sign contradicts their text",
    )
    add("--sample", type=int, metavar="N", help="draw N training and N hard prompts")
    add(
        "--eval-sample",
        type=int,
        default=128,
        metavar="N",
        help="size of NAME_hard_sample.jsonl (default: 128)",
    )
    add("--seed", type=int, default=0, help="seed of all draws (default: 0)")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.max_prompt_tokens is not None and not args.tokenizer:
        parser.error("--max-prompt-tokens needs --tokenizer FOLDER, or HF_CKPT_PATH")
    counts = (args.sample, args.eval_sample, args.max_prompt_tokens)
    if args.hold_out < 0 or any(count is not None and count < 1 for count in counts):
        parser.error(
            "--hold-out, --sample, --eval-sample and --max-prompt-tokens take positive numbers"
        )
    return args


def main(argv: list[str] | None = None) -> int:
    """Writes the three files and the report; returns the exit status."""
    args = parse(argv)
    try:
        options = Options(
            converter=load_converter(args.converter) if args.converter else None,
            template=ChatTokenizer(args.tokenizer) if args.tokenizer else None,
            **{
                name: getattr(args, name)
                for name in vars(Options())
                if name not in ("converter", "template")
            },
        )
        rows = split(locate(args.source, args.hard, args.cache), options)
        for part in ("easy", "hard_sample", "hard"):
            write_jsonl(
                args.out / f"{args.name}_{part}.jsonl",
                (row.to_json() for row in getattr(rows, part)),
            )
        (args.out / f"{args.name}_report.txt").write_text(
            text := report(rows, options), encoding="utf-8"
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"error: {error.filename}: {error.strerror}; is --out a folder that can be written?",
            file=sys.stderr,
        )
        return 2
    for line in rows.refused:
        print(f"refused: {line}", file=sys.stderr)
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
