"""Are the weights whole from which a run starts: those of Hugging Face's folder, and Megatron's? (stages 2 and 5)"""

import json
from collections.abc import Iterator
from pathlib import Path

from rubric_rl.launch.words import Words


def problems(words: Words, options) -> Iterator[str]:
    """One line for each checkpoint that would break the run when all GPUs are up."""
    for folder in dict.fromkeys(Path(words.text(flag)) for flag in ("hf-checkpoint", "ref-load")):
        if (folder / "config.json").is_file():
            yield from hugging_face(folder)
    for flag in ("ref-load", "load"):
        yield from megatron(Path(words.text(flag)), flag)


def hugging_face(folder: Path) -> Iterator[str]:
    """Files that the folder lacks, and files that a broken download cut short."""
    index = folder / "model.safetensors.index.json"
    try:
        named = (
            set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            if index.is_file()
            else set()
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        yield f"{index}: cannot be read; get the checkpoint again"
        return
    paths = sorted(folder / name for name in named) or sorted(folder.glob("*.safetensors"))
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        yield f"{folder}: lacks {len(missing)} of {len(paths)} weight files, e.g. {missing[0]}; finish the download"
    elif not paths and not any(folder.glob("*.bin")):
        yield f"{folder}: holds no weights (*.safetensors); get the checkpoint again"
    for path in paths:
        if path.is_file() and not is_whole(path):
            yield f"{path}: is cut short, or a pointer of git-lfs; get it again"


def is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            return False
        try:
            header = json.loads(file.read(length))
            ends = [
                entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"
            ]
        except (ValueError, LookupError, TypeError, AttributeError):
            return False
    return size == 8 + length + max(ends, default=0)


def megatron(folder: Path, flag: str) -> Iterator[str]:
    """A checkpoint that is named, but was removed or never finished."""
    tracker = folder / "latest_checkpointed_iteration.txt"
    if not tracker.is_file():
        return
    word = tracker.read_text(errors="replace").strip()
    name = f"iter_{int(word):07d}" if word.isdecimal() else word
    if name != "release" and not word.isdecimal():
        yield f"--{flag}: {tracker} holds {word[:20]!r}, no iteration; write the number of the last iter_* folder"
    elif not (folder / name).is_dir():
        yield f"--{flag}: {tracker} names {name}, which is not there; bring it back, or name another one there"
