"""Rows of a Hugging Face data set, `hf:OWNER/NAME[/CONFIG][@SPLIT]`, or of a local copy of one."""

from collections.abc import Iterator
from pathlib import Path

from rubric_rl.common.errors import DataError, UserError
from rubric_rl.common.plain_text import one_line

PREFIX = "hf:"
DEFAULT_SPLIT = "train"


def hub_name(source: str) -> tuple[str, str | None, str]:
    """The data set, its configuration and its split ("" if none is named) of `hf:...`.

    A path of a local folder may stand for OWNER/NAME. Raises UserError for what is no name.
    """
    name, _, split = source.removeprefix(PREFIX).partition("@")
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path), None, split
    if path.is_absolute() or name.startswith("."):
        return str(path.parent), path.name, split
    parts = name.split("/")
    if not 1 <= len(parts) <= 3 or not all(parts):
        what = f"{source}: is no name of a data set"
        raise UserError(f"{what}; write hf:OWNER/NAME, hf:OWNER/NAME/CONFIG or either with @SPLIT")
    config = parts[2] if len(parts) == 3 else None
    return "/".join(parts[:2]), config, split


def hub_rows(source: str, split: str = "") -> Iterator[dict]:
    """The rows of a split: the one named apart, else the source's, else train.

    Raises DataError, one line with the next step, when it cannot be had.
    """
    name, config, own_split = hub_name(source)
    try:
        from datasets import load_dataset
    except ImportError:
        what = f"--source {source} needs the package datasets"
        raise UserError(f"{what}; pip install datasets") from None
    try:
        rows = load_dataset(name, config, split=split or own_split or DEFAULT_SPLIT)
    except Exception as error:  # its errors share no base class of their own
        reason = one_line(str(error), 200)
        hint = _way_out(reason)
        if error.__cause__ is not None:  # alone it says why the files could not be read
            reason += f" ({one_line(str(error.__cause__), 200)})"
        raise DataError(f"{source}: {reason}; {hint}") from None
    for row in rows:
        yield dict(row)


def _way_out(reason: str) -> str:
    words = reason.lower()
    if "config" in words:
        return "name a configuration as hf:OWNER/NAME/CONFIG"
    if "split" in words:
        return "name a split as hf:OWNER/NAME@SPLIT, or with --train and --hold-out-split"
    return "download its files where there is a network, and pass their folder with --source"
