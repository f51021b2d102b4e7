"""The stack without a GPU is pinned whole: what requirements.txt names, and all that those packages bring along."""

import re
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rubric_rl import ROOT

PINS = ROOT / "scripts" / "cpu"


def pins(name: str) -> dict[str, str]:
    lines = (PINS / name).read_text().splitlines()
    found = [
        re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?==(\S+)", line)
        for line in lines
        if line and line[0] != "#"
    ]
    return {canonicalize_name(match[1]): match[2] for match in found}


def brought_along(names: set[str]) -> set[str]:
    """The packages that these need, and those in their turn; the CUDA ones that some builds of torch need left out."""
    seen, open_ = set(), set(names)
    while open_:
        seen.add(name := open_.pop())
        for text in metadata.requires(name) or []:
            need = Requirement(text)
            extra = "default" if name == "ray" else ""
            wanted = need.marker is None or need.marker.evaluate({"extra": extra})
            if wanted and not need.name.startswith(("nvidia", "cuda")):
                open_ |= {canonicalize_name(need.name)} - seen
    return seen


def test_every_line_is_an_exact_version_and_stands_once():
    requirements, constraints = (
        pins("requirements.txt"),
        pins("constraints.txt"),
    )  # a line without == fails here
    assert not requirements.keys() & constraints.keys()


def test_what_the_named_packages_bring_along_is_pinned_too():
    requirements = pins("requirements.txt")
    assert (
        brought_along(requirements.keys()) <= requirements.keys() | pins("constraints.txt").keys()
    )


def test_the_environment_has_the_pinned_versions():
    for name, version in (pins("requirements.txt") | pins("constraints.txt")).items():
        assert metadata.version(name).split("+")[0] == version
