"""The version of the slime in a folder, and the flags that came and went between versions.

    python -m rubric_rl.launch.slime_version SLIME_DIR    prints the version

Read at 0.3.1 (624b824a8) and 0.4.0 (0b0c277d to 13b347f8). Where slime's own parser runs, it says
which flags there are; the lists here say why one is missing, and stand in where it cannot run.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from rubric_rl.common.command_line import CommandParser, exit_status

Version = tuple[int, ...]  # () where it is not told

OLDEST: Version = (0, 3, 1)  # whose flags the recipe uses
V0_4: Version = (0, 4)
# A module that only a version has: there since that version.
MODULES = (
    ("slime/data/batch_builder.py", V0_4),
    ("slime/rollout/data_source.py", OLDEST),
)

# Removed by 0.3.1, which ignores them silently; with what to do instead.
REMOVED_BEFORE = {
    "use-slime-router": "the router is SGLang's: --router-policy",
    "megatron-to-hf-mode": "leave it out",
    "qkv-format": "leave it out",
    "train-memory-margin-bytes": "leave it out",
    "rollout-external": "use --rollout-external-engine-addrs",
    "use-hf-config-for-megatron": "source the model's flags from SLIME_DIR/scripts/models",
    "true-on-policy-mode": "leave it out",
    "use-dynamic-global-batch-size": "use --global-batch-size",
    "disable-rollout-trim-samples": "leave it out",
    "critic-load": "leave it out",
    "critic-save": "leave it out",
}

# Removed in 0.4; with what to do instead.
REMOVED_IN_0_4 = {
    "disable-rollout-global-dataset": "name a data source of your own: --data-source-path",
    "keep-old-actor": "leave it out",
    "profile-target": "leave it out",
    "update-weights-interval": "the engines get the weights after every rollout; leave it out",
}

_NEW_IN_0_4 = """
buffer-sort-by-staleness flush-cache-interval force-fp8-ue8m0-scale pg-loss-type
rollout-cleanup-timeout rollout-data-dir rollout-io-concurrency rollout-queue-lease-seconds
rollout-queue-online-gc rollout-queue-run-id rollout-queue-segment-mib rollout-session-id
rollout-storage-declaration rollout-storage-profile routing-replay-prefetch-microbatches
score-centering-top-k use-score-centering
"""
NEW_IN_0_4 = frozenset(_NEW_IN_0_4.split())


def read_version(folder: Path) -> Version:
    """The version of a checkout: what it says of itself, else what its modules tell.

    () where neither does, and where they disagree: between two releases, a checkout has the number
    of the first and some flags of the second.
    """
    told = _told_version(folder)
    seen: Version = ()
    for module, version in MODULES:
        if (folder / module).is_file():
            seen = version
            break
    if told and seen >= V0_4 and told < V0_4:
        return ()
    return told or seen


def _told_version(folder: Path) -> Version:
    """The version that setup.py, pyproject.toml or slime/__init__.py names."""
    texts = [
        _find(r"\bversion\s*=\s*[\"']([\d.]+)", folder / "setup.py"),
        _project_version(folder / "pyproject.toml"),
        _find(r"(?m)^__version__\s*=\s*[\"']([\d.]+)", folder / "slime" / "__init__.py"),
    ]
    for text in texts:
        numbers = [int(number) for number in re.findall(r"\d+", text)[:3]]
        if len(numbers) > 1:
            return tuple(numbers)
    return ()


def _find(pattern: str, file: Path) -> str:
    if not file.is_file():
        return ""
    found = re.search(pattern, file.read_text(encoding="utf-8", errors="replace"))
    return found[1] if found else ""


def _project_version(file: Path) -> str:
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8")).get("project")
    except (OSError, ValueError):
        return ""
    version = project.get("version") if isinstance(project, dict) else None
    return version if isinstance(version, str) else ""


def in_words(version: Version) -> str:
    """The version as a person writes it."""
    return ".".join(map(str, version)) or "unknown"


def why_missing(name: str) -> str:
    """Why a slime lacks the flag `name`, and the next step; "" where no version had it."""
    instead = REMOVED_BEFORE.get(name)
    if name.startswith("slime-router-"):
        instead = "the router is SGLang's: --router-*"
    if instead:
        return f"was removed from slime and does nothing any more; {instead}"
    if name in REMOVED_IN_0_4:
        return f"was removed in slime 0.4, which would ignore it; {REMOVED_IN_0_4[name]}"
    if name in NEW_IN_0_4:
        hint = "take slime 0.4, or leave the flag out"
        return f"is new in slime 0.4, and the slime in SLIME_DIR would ignore it; {hint}"
    return ""


def missing_flags(names: Iterable[str], version: Version) -> list[str]:
    """Those of the flags that a slime of this version lacks; of an unknown one nothing is known."""
    if not version:
        return []
    lacked = REMOVED_IN_0_4 if version >= V0_4 else NEW_IN_0_4
    return [name for name in names if name in lacked]


def main() -> int:
    """Prints the version; returns the exit status."""
    parser = CommandParser("python -m rubric_rl.launch.slime_version", "The version of a slime.")
    parser.add_argument("slime_dir", type=Path, help="a checkout of slime")
    return exit_status(lambda: _print_version(parser.parse_args().slime_dir))


def _print_version(folder: Path) -> int:
    print(in_words(read_version(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
