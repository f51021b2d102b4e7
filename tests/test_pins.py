"""Everything that setup.sh installs is pinned: what is named, and all that those packages need."""

import re
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rubric_rl import ROOT

PINS = ROOT / "scripts" / "cpu"
NAMED = ("requirements.txt", "dev.txt")
ALL = (*NAMED, "constraints.txt")


def pins(*files: str) -> dict[str, str]:
    """Name -> version of every package in these files. A line without == fails here."""
    found = {}
    for file in files:
        for line in (PINS / file).read_text().splitlines():
            if line.startswith("#"):
                continue
            match = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?==(\S+)", line)
            assert match, f"{file}: {line} is not NAME==VERSION"
            name = canonicalize_name(match[1])
            assert name not in found, f"{file}: {name} is pinned twice"
            found[name] = match[2]
    return found


def needs(name: str) -> set[str]:
    """The packages that an installed one needs here, without the CUDA ones of some torch builds."""
    extra = "default" if name == "ray" else ""
    needed = set()
    for text in metadata.requires(name) or []:
        need = Requirement(text)
        is_wanted = need.marker is None or need.marker.evaluate({"extra": extra})
        if is_wanted and not need.name.startswith(("nvidia", "cuda")):
            needed.add(canonicalize_name(need.name))
    return needed


def test_every_line_is_an_exact_version_and_stands_once():
    assert pins(*ALL)


def test_what_the_named_packages_need_is_pinned_too():
    pinned = pins(*ALL)
    seen, waiting = set(), set(pins(*NAMED))
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= needs(name) - seen
    assert seen <= pinned.keys()


def test_the_environment_has_the_pinned_versions():
    for name, version in pins(*ALL).items():
        assert metadata.version(name).split("+")[0] == version
