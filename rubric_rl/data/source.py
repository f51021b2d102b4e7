"""Where raw rows come from: what --source and its companions name."""

from dataclasses import dataclass
from pathlib import Path

from rubric_rl.common.errors import DataError, UserError
from rubric_rl.common.plain_text import one_line
from rubric_rl.data.download import Published, download
from rubric_rl.data.healthbench import FULL, HARD, HF_DATASET, URL
from rubric_rl.data.hub import DEFAULT_SPLIT, PREFIX, hub_name
from rubric_rl.data.raw_rows import files_of


@dataclass(frozen=True)
class Source:
    """Where raw rows come from, and which of them are held out.

    Either the rows of `hard` are, which `full` must hold too, or those of the split
    `held_out_split`, with `train_split` beside it.
    """

    full: Path | str  # a file, a folder, or `hf:OWNER/NAME[/CONFIG][@SPLIT]`
    hard: Path | None = None  # the rows held out for evaluation
    train_split: str = ""
    held_out_split: str = ""

    def files(self) -> list[Path]:
        """The files on this machine that are read."""
        found = []
        if isinstance(self.full, str):  # it may name a folder of this machine
            folder = Path(hub_name(self.full)[0])
            found += sorted(folder.rglob("*")) if folder.is_dir() else []
        else:
            splits = {self.train_split, self.held_out_split} - {""}
            for split in sorted(splits) or [""]:
                found += files_of(self.full, split, self.hard)
        if self.hard is not None:
            found += files_of(Path(self.hard))
        return found


def locate(
    source: str, hard: Path | None, cache: Path, train: str = "", held_out: str = ""
) -> Source:
    """Finds the files named by `--source`, downloading them if necessary.

    It is `official`, `hf`, `hf:OWNER/NAME[/CONFIG][@SPLIT]`, a folder, or a file; `train` and
    `held_out` are published splits of the last but one. Raises DataError for a missing file or a
    failed download.
    """
    if not source.strip():
        raise UserError("--source: names nothing; give a file, a folder or hf:OWNER/NAME")
    if train or held_out:
        return _of_splits(source, hard, train, held_out)
    if source == "official":
        full = download(URL, FULL, cache)
        hard = hard or download(URL, HARD, cache)
        return Source(full, hard)
    if source == "hf":
        full = _from_hub(FULL)
        hard = hard or _from_hub(HARD)
        return Source(full, hard)
    if source.startswith(PREFIX):
        hub_name(source)
        return Source(source, hard)
    path = Path(source).expanduser()
    if path.is_dir():
        folder = path
        path = folder / FULL.name
        if not path.is_file():
            files_of(folder, hard=hard)
            return Source(folder, hard)
    published_hard = path.parent / HARD.name
    if hard is None and published_hard.is_file():
        hard = published_hard
    return Source(path, hard)


def _of_splits(source: str, hard: Path | None, train: str, held_out: str) -> Source:
    """A source whose publisher says what is held out."""
    train = train or DEFAULT_SPLIT
    if hard is not None:
        raise UserError("--hard: --hold-out-split says what is held out; leave out one of both")
    if not held_out:
        raise UserError(f"--train {train}: which split is held out? add --hold-out-split SPLIT")
    if train == held_out:
        raise UserError(f"--hold-out-split {held_out}: is trained on; name another split")
    if source in ("official", "hf"):
        hint = "name a folder or hf:OWNER/NAME"
        raise UserError(f"--source {source}: is published in files, not in splits; {hint}")
    if not source.startswith(PREFIX):
        return Source(Path(source).expanduser(), None, train, held_out)
    _, _, split = hub_name(source)
    if split:
        hint = "leave it out, --train names the split"
        raise UserError(f"--source {source}: names the split {split} too; {hint}")
    return Source(source, None, train, held_out)


def _from_hub(file: Published) -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        what = "--source hf needs huggingface_hub, which comes with datasets"
        raise UserError(f"{what}: pip install datasets") from None
    try:
        return Path(hf_hub_download(HF_DATASET, file.name, repo_type="dataset"))
    except Exception as error:  # its errors share no base class of their own
        hint = "use --source official or a local copy"
        reason = one_line(str(error), 200)
        raise DataError(f"{HF_DATASET}: {reason}; {hint}") from None
