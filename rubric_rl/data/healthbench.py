"""HealthBench as published: its files, where to find them, and how a raw row becomes a Row."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rubric_rl.common.dotted_name import import_function
from rubric_rl.common.errors import DataError, UserError
from rubric_rl.common.jsonl import read_jsonl
from rubric_rl.common.plain_text import one_line
from rubric_rl.data.download import Published, download
from rubric_rl.data.parse import check_json, row_from_metadata
from rubric_rl.data.schema import Criterion, Row

URL = "https://openaipublic.blob.core.windows.net/simple-evals/healthbench"
HF_DATASET = "openai/healthbench"
FULL = Published(
    "2025-05-07-06-14-12_oss_eval.jsonl",
    60_258_154,
    "e99dd3c6372c10d6fcc5e385c5fae69d0dd40392dae56836ef9493ae324ecd2f",
)
HARD = Published(
    "hard_2025-05-08-21-00-10.jsonl",
    12_581_564,
    "b0320430e5cd974e746585594c1dd10b5a3fc2aff9c72b26106c2c4a069d74e9",
)
CONSENSUS = Published(
    "consensus_2025-05-09-20-00-46.jsonl",
    36_921_504,
    "fabe37553327238928b05357d8b309737b5d426d6dee432a3376da618d0969d6",
)
FULL_ROWS, HARD_ROWS, CONSENSUS_ROWS = 5000, 1000, 3671
# What scores are published of: name of the set, its file, its rows.
EVALUATION_SETS = (
    ("HealthBench", FULL, FULL_ROWS),
    ("HealthBench Hard", HARD, HARD_ROWS),
    ("HealthBench Consensus", CONSENSUS, CONSENSUS_ROWS),
)

# (prompt_id, published points, words of the criterion) where the sign contradicts the text:
# issue 77 of simple-evals.
WRONG_SIGNS = (
    ("a7014ba7-dff8-41f8-9f51-8c39be0cdfd4", 10, "any herbal teas"),
    ("287d7b73-d8d5-4727-a094-fd7d778fc019", -9, "seek emergency help immediately"),
)

# What a row keeps of a raw one, beside the prompt. The reference answers stay behind.
KEPT_FIELDS = ("prompt_id", "rubrics", "example_tags", "theme", "canary")


@dataclass(frozen=True)
class Source:
    """Where raw rows come from."""

    full: Path | str  # all rows: a JSONL file, or `hf:OWNER/NAME`
    hard: Path | None  # the rows held out for evaluation


def locate(source: str, hard: Path | None, cache: Path) -> Source:
    """Finds the files named by `--source`, downloading them if necessary.

    It is `official`, `hf`, `hf:OWNER/NAME`, a folder with the published files, or a JSONL file.
    Raises DataError for a missing file or a failed download.
    """
    if source == "official":
        full = download(URL, FULL, cache)
        hard = hard or download(URL, HARD, cache)
        return Source(full, hard)
    if source == "hf":
        full = _from_hub(FULL)
        hard = hard or _from_hub(HARD)
        return Source(full, hard)
    if source.startswith("hf:"):
        return Source(source, hard)
    path = Path(source).expanduser()
    if path.is_dir():
        folder = path
        path = folder / FULL.name
        if not path.is_file():
            hint = "name the file itself with --source, and --hard"
            raise DataError(f"{folder}: holds no {FULL.name}; {hint}")
    published_hard = path.parent / HARD.name
    if hard is None and published_hard.is_file():
        hard = published_hard
    return Source(path, hard)


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


def raw_rows(source: Path | str, refused: list[str]) -> Iterator[tuple[str, object]]:
    """Yields (where, raw row); a message for each broken line is added to `refused`.

    Raises DataError when there is no such file or data set.
    """
    if isinstance(source, str) and source.startswith("hf:"):
        rows = _hub_rows(source.removeprefix("hf:"))
        numbered = enumerate(rows, 1)
    else:
        numbered = read_jsonl(source, refused=refused)
    for number, item in numbered:
        yield f"{source}:{number}", item


def _hub_rows(name: str) -> Iterator[dict]:
    """The rows of a Hugging Face data set, `OWNER/NAME` or `OWNER/NAME@SPLIT`."""
    try:
        from datasets import load_dataset
    except ImportError:
        what = f"--source hf:{name} needs the package datasets"
        raise UserError(f"{what}: pip install datasets") from None
    name, _, part = name.partition("@")
    try:
        rows = load_dataset(name, split=part or "train")
    except Exception as error:  # its errors share no base class of their own
        hint = "pass a JSONL file with --source"
        reason = one_line(str(error), 200)
        raise DataError(f"hf:{name}: {reason}; {hint}") from None
    for row in rows:
        yield dict(row)


def load_converter(path: str) -> Callable[[dict], dict]:
    """The function `module.function` that turns a foreign row into {prompt_id, prompt, rubrics}.

    Raises UserError when there is none of that name.
    """
    try:
        return import_function(path)
    except UserError as error:
        hint = "give module.function, importable from here"
        raise UserError(f"--converter {path}: {error}; {hint}") from None


def to_row(item: object, where: str) -> Row:
    """One raw row (prompt_id, prompt, rubrics, example_tags, canary) as a Row.

    Raises DataError when it cannot be scored.
    """
    if not isinstance(item, dict) or not isinstance(item.get("prompt_id"), str):
        hint = "is it a HealthBench row? other data needs --converter"
        raise DataError(f"{where}: no prompt_id; {hint}")
    metadata = {"messages": item.get("prompt")}
    for key in KEPT_FIELDS:
        if key in item:
            metadata[key] = item[key]
    row = row_from_metadata(metadata, where)
    place = f"{where}, prompt_id {row.prompt_id}"
    check_json(metadata, place)
    theme = _theme_tag(row) or row.theme
    return replace(row, theme=theme)


def _theme_tag(row: Row) -> str:
    """HealthBench writes the theme as a tag of the example."""
    for tag in row.example_tags:
        if tag.startswith("theme:"):
            return tag.removeprefix("theme:")
    return ""


def fix_signs(row: Row) -> Row:
    """The row with the sign of its points flipped where WRONG_SIGNS names the criterion."""
    rubric = []
    for criterion in row.rubric:
        if _has_wrong_sign(criterion, row.prompt_id):
            criterion = replace(criterion, points=-criterion.points)
        rubric.append(criterion)
    return replace(row, rubric=tuple(rubric))


def _has_wrong_sign(criterion: Criterion, of_prompt: str) -> bool:
    for prompt_id, points, words in WRONG_SIGNS:
        known = prompt_id == of_prompt and points == criterion.points
        if known and words in criterion.text:
            return True
    return False


def consensus(row: Row) -> Row:
    """The row with only the criteria that physicians agreed on (`level:cluster`).

    The rubric may end up empty.
    """
    agreed = [criterion for criterion in row.rubric if criterion.tag("level") == "cluster"]
    return replace(row, rubric=tuple(agreed))
