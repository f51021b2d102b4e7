"""HealthBench as published: its files, where to find them, and how a raw row becomes a Row (stage 1, prompt)."""

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rubric_rl.data.download import Published, download
from rubric_rl.data.schema import Criterion, Row, row_from_metadata
from rubric_rl.errors import DataError, UserError
from rubric_rl.jsonl import read_jsonl

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
FULL_ROWS, HARD_ROWS = 5000, 1000

# (prompt_id, published points, words of the criterion): the sign contradicts the text (simple-evals issue 77)
WRONG_SIGNS = (
    ("a7014ba7-dff8-41f8-9f51-8c39be0cdfd4", 10, "any herbal teas"),
    ("287d7b73-d8d5-4727-a094-fd7d778fc019", -9, "seek emergency help immediately"),
)


@dataclass(frozen=True)
class Source:
    """Where raw rows come from."""

    full: Path | str  # all rows: a JSONL file, or `hf:OWNER/NAME`
    hard: Path | None  # the rows held out for evaluation


def locate(source: str, hard: Path | None, cache: Path) -> Source:
    """Finds the files named by `--source`, downloading them if necessary.

    It is `official`, `hf`, `hf:OWNER/NAME`, a folder with the published files, or a JSONL file. Raises DataError for a
    missing file or a failed download.
    """
    if source == "official":
        return Source(download(URL, FULL, cache), hard or download(URL, HARD, cache))
    if source == "hf":
        return Source(_from_hub(FULL), hard or _from_hub(HARD))
    if source.startswith("hf:"):
        return Source(source, hard)
    path = Path(source).expanduser()
    if path.is_dir():
        beside, path = path / HARD.name, path / FULL.name
        if not path.is_file():
            raise DataError(
                f"{path.parent}: holds no {FULL.name}; name the file itself with --source, and --hard"
            )
    else:
        beside = path.parent / HARD.name
    return Source(path, hard or (beside if beside.is_file() else None))


def _from_hub(file: Published) -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise UserError(
            "--source hf needs huggingface_hub, which comes with datasets: pip install datasets"
        ) from None
    try:
        return Path(hf_hub_download(HF_DATASET, file.name, repo_type="dataset"))
    except Exception as error:  # its errors share no base class of their own
        why = " ".join(str(error).split())[:200]
        raise DataError(f"{HF_DATASET}: {why}; use --source official or a local copy") from None


def raw_rows(source: Path | str, refused: list[str]) -> Iterator[tuple[str, dict]]:
    """Yields (where, raw row); a message for each broken line is added to `refused`. Raises DataError for no file."""
    if isinstance(source, str) and source.startswith("hf:"):
        numbered = (
            (number, dict(item))
            for number, item in enumerate(_hf_rows(source.removeprefix("hf:")), 1)
        )
    else:
        numbered = read_jsonl(source, refused=refused)
    yield from ((f"{source}:{number}", item) for number, item in numbered)


def _hf_rows(name: str):
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(
            f"--source hf:{name} needs the package datasets: pip install datasets"
        ) from None
    name, _, part = name.partition("@")
    try:
        return load_dataset(name, split=part or "train")
    except Exception as error:  # its errors share no base class of their own
        raise DataError(
            f"hf:{name}: {' '.join(str(error).split())[:200]}; pass a JSONL file with --source"
        ) from None


def load_converter(path: str) -> Callable[[dict], dict]:
    """The function `module.function` that turns a foreign row into {prompt_id, prompt, rubrics}; raises UserError."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"--converter {path}: {error}; give module.function, importable from here"
        ) from None


def to_row(item: dict, where: str) -> Row:
    """One raw row (prompt_id, prompt, rubrics, example_tags, canary) as a Row.

    Raises DataError when it cannot be scored.
    """
    if not isinstance(item, dict) or not isinstance(item.get("prompt_id"), str):
        raise DataError(
            f"{where}: no prompt_id; is it a HealthBench row? other data needs --converter"
        )
    kept = {
        key: item[key]
        for key in ("prompt_id", "rubrics", "example_tags", "theme", "canary")
        if key in item
    }
    row = row_from_metadata(kept | {"messages": item.get("prompt")}, where)
    try:
        json.dumps(row.to_json(), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        name = row.prompt_id.encode(errors="replace").decode()
        raise DataError(
            f"{where}, prompt_id {name}: a lone surrogate, which no tokenizer reads"
        ) from None
    except ValueError:
        raise DataError(
            f"{where}, prompt_id {row.prompt_id}: a number that is not finite, which JSON lacks"
        ) from None
    theme = next(
        (tag.removeprefix("theme:") for tag in row.example_tags if tag.startswith("theme:")),
        row.theme,
    )
    return replace(row, theme=theme)


def fix_signs(row: Row) -> Row:
    """The row with the sign of its points flipped where WRONG_SIGNS names the criterion."""

    def wrong(criterion: Criterion) -> bool:
        known = (
            entry
            for entry in WRONG_SIGNS
            if entry[0] == row.prompt_id and entry[1] == criterion.points
        )
        return any(words in criterion.text for _, _, words in known)

    return replace(
        row, rubric=tuple(replace(c, points=-c.points) if wrong(c) else c for c in row.rubric)
    )


def consensus(row: Row) -> Row:
    """The row with only the criteria that physicians agreed on (`level:cluster`); the rubric may end up empty."""
    return replace(
        row,
        rubric=tuple(criterion for criterion in row.rubric if criterion.tag("level") == "cluster"),
    )
