"""The checks as flags of data_preprocess.py, and as a section of its report."""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rubric_rl.common.errors import UserError
from rubric_rl.data.checks.change import Changes, flip_polarity, split_compound
from rubric_rl.data.checks.check import KINDS, Findings, Judge, check, refuse, report_lines
from rubric_rl.data.checks.polarity import polarity
from rubric_rl.data.schema import Row
from rubric_rl.data.split import REPEATED_CRITERIA, Split
from rubric_rl.data.stored_rows import StoredRows
from rubric_rl.serving.endpoint import Endpoint


@dataclass(frozen=True)
class CheckOptions:
    """Which findings are errors, what is changed, and which model is asked, if one is."""

    strict: tuple[str, ...] = ()  # keys of KINDS
    split_compound: bool = False
    flip_polarity: bool = False
    keep_polarity: bool = False
    endpoint: Endpoint | None = None
    replies: Path = Path()  # where those of the endpoint are kept

    @property
    def changes_rows(self) -> bool:
        """Whether there is a log of changes."""
        return self.split_compound or self.flip_polarity


def add_check_flags(parser: argparse.ArgumentParser) -> None:
    """The flags about what is suspect in the rows that are read."""
    group = parser.add_argument_group("checks", "what is suspect is shown in the report")
    group.add_argument(
        "--strict",
        nargs="?",
        const=",".join(KINDS),
        metavar="CHECKS",
        help="write nothing and name the rows if these checks find any (default: all of "
        + ", ".join(KINDS)
        + ")",
    )
    group.add_argument(
        "--split-compound",
        action="store_true",
        help="split compound criteria of training rows; their points are shared out",
    )
    group.add_argument(
        "--flip-polarity",
        action="store_true",
        help="flip points that contradict their criterion's wording, held-out rows included",
    )
    group.add_argument(
        "--keep-polarity",
        action="store_true",
        help="take them as published, also of a set whose signs are known to be mixed",
    )
    group.add_argument(
        "--check-with",
        "--check-url",
        metavar="URL",
        help="also ask a model, one question per criterion, what its wording means "
        "(OpenAI-compatible; it decides where the rule is unsure); its replies are kept in "
        "NAME_check.jsonl and not asked for again",
    )
    group.add_argument("--check-model", default="", metavar="NAME", help="its name there")
    group.add_argument(
        "--check-api-key-env",
        "--check-key-env",  # its first name
        default="",
        metavar="VARIABLE",
        help="environment variable that holds its key",
    )


def check_options(args: argparse.Namespace) -> CheckOptions:
    """The options that the flags name; raises UserError for those that cannot be."""
    kinds = tuple(filter(None, map(str.strip, (args.strict or "").split(","))))
    if args.strict is not None and not kinds:
        raise UserError(f"--strict {args.strict!r}: names no check; there are {', '.join(KINDS)}")
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"--strict {kind}: no such check; there are {', '.join(KINDS)}")
    if bool(args.check_with) != bool(args.check_model):
        raise UserError("--check-with URL and --check-model NAME go together; give both")
    endpoint = None
    if args.check_with:
        settings = {
            "api": "openai",
            "url": args.check_with,
            "model": args.check_model,
            "api_key_env": args.check_api_key_env,
            "temperature": 0.0,
        }
        endpoint = Endpoint.of(settings, prefix="check_")
    if args.flip_polarity and args.keep_polarity:
        raise UserError("--flip-polarity and --keep-polarity contradict each other; give one")
    return CheckOptions(
        strict=kinds,
        split_compound=args.split_compound,
        flip_polarity=args.flip_polarity,
        keep_polarity=args.keep_polarity,
        endpoint=endpoint,
        replies=args.out / f"{args.name}_check.jsonl",
    )


def check_split(rows: Split, options: CheckOptions) -> tuple[str, list[dict]]:
    """Changes the rows as the options say, and checks what has become of them.

    Returns the section of the report and the log of changes.

    Raises:
        DataError: for findings that the options make errors; it names the rows.
        UserError: when the model that is to be asked gives no reply, and where a set with mixed
            signs has wrong ones and nobody has said what to do with them.
    """
    changes = Changes()
    if options.split_compound:
        rows.easy = StoredRows(_split(rows, changes), like=rows.easy)
    judge: Judge = polarity
    lines = []
    model = ""
    if options.endpoint is not None:
        # Here: the HTTP client takes half a second to import, in each process of a large set.
        from rubric_rl.data.checks.ask_model import ask_polarities

        texts = _texts(chain(rows.easy, rows.hard))
        asked = ask_polarities(texts, options.endpoint, options.replies)
        judge = asked.__getitem__
        model = options.endpoint.model
        lines.append(f"asked {model} about {len(asked)} criteria")
    found = _checked(rows, options.flip_polarity, changes, judge)
    refuse(found, options.strict)
    if not options.keep_polarity and not options.flip_polarity:
        _refuse_mixed_signs(rows, found.counts["polarity"])
    lines += changes.lines() + report_lines(found, model)
    return "\n".join(lines) + "\n", changes.log


def _split(rows: Split, changes: Changes) -> Iterator[Row]:
    for row in rows.easy:
        yield split_compound(row, changes)
    if changes.repeated:
        rows.left_out[REPEATED_CRITERIA] += changes.repeated


def _checked(rows: Split, flip: bool, changes: Changes, judge: Judge) -> Findings:
    """What is suspect in the rows, turned before if `flip`: one pass, so each is judged once."""
    if not flip:
        return check(rows.easy, rows.hard, rows.refused, judge)
    easy = StoredRows(like=rows.easy)
    hard = StoredRows(like=rows.hard)

    def turned(part: StoredRows, into: StoredRows) -> Iterator[Row]:
        for row in part:
            row = flip_polarity(row, changes, judge)
            into.append(row)
            yield row

    found = check(turned(rows.easy, easy), turned(rows.hard, hard), rows.refused, judge)
    rows.easy, rows.hard = easy, hard
    rows.hard_sample = hard.named(set(rows.hard_sample.prompt_ids))
    return found


def _refuse_mixed_signs(rows: Split, wrong: int) -> None:
    """Raises UserError for wrong signs in a set known for them: they train the policy backwards."""
    if wrong and rows.reader is not None and rows.reader.mixed_signs:
        what = f"in {wrong} places the points contradict the wording of their criterion"
        hint = "give --flip-polarity to turn them, or --keep-polarity to take them as published"
        raise UserError(f"{rows.reader.name} has mixed signs: {what}; {hint}")


def _texts(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        for criterion in row.rubric:
            yield criterion.text
