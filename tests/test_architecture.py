"""The rules of this repository's design that a machine can check: imports, sizes, openings, shells (all stages)."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from rubric_rl import ROOT

LIBRARY = ROOT / "rubric_rl"
# A folder may import those to its left; the ground is what stands in rubric_rl/ itself.
FOLDERS = ("data", "grading", "evaluation", "report", "launch", "cpu", "tiny")
LIGHT = (
    "data",
    "grading",
    "evaluation",
    "report",
    "launch",
)  # load no torch, ray, megatron, sglang or slime
HEAVY = {
    "slime",
    "torch",
    "ray",
    "megatron",
    "sglang",
    "sglang_router",
    "transformers",
}  # none is needed to grade
HOOKS = ROOT / "self_reward_rm.py"
THIN = [HOOKS, ROOT / "data_preprocess.py"]
LIBRARY_WITHOUT_STACK = sorted(
    path
    for part in ("*.py", *(f"{folder}/**/*.py" for folder in LIGHT))
    for path in LIBRARY.glob(part)
)
MODULES = sorted(path for path in LIBRARY.rglob("*.py") if path.stem != "__init__") + THIN
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SHELLS = sorted(
    [
        *ROOT.glob("*.sh"),
        *(ROOT / "configs").rglob("*.sh"),
        *(ROOT / "scripts").rglob("*.sh"),
        *(ROOT / "tests").rglob("*.sh"),
    ]
)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def each(paths: list[Path]):
    return pytest.mark.parametrize("path", paths, ids=name)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names of everything a file imports, inside functions too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """The modules of rubric_rl, or its folders, that a file imports."""
    return {
        parts[1]
        for parts in (dotted.split(".") for dotted in imports(path))
        if parts[0] == "rubric_rl"
    }


@cache
def defined(path: Path) -> set[str]:
    """Every name that a module imports, assigns or defines."""
    nodes = list(ast.walk(tree(path)))
    stored = {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return stored | {getattr(node, "asname", None) or getattr(node, "name", "") for node in nodes}


def code(path: Path) -> str:
    """The program text without comments and docstrings."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(module):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""
    return ast.unparse(module)


class TestImports:
    @each([path for path in MODULES if path.parent.name in FOLDERS])
    def test_point_down(self, path):
        above = FOLDERS[FOLDERS.index(path.relative_to(LIBRARY).parts[0]) + 1 :]
        assert not own_imports(path) & set(above)

    @each([path for path in LIBRARY_WITHOUT_STACK if path.parent.name != "launch"] + THIN)
    def test_of_the_library_and_the_hooks_name_no_heavy_package(self, path):
        named = {dotted.split(".")[0] for dotted in imports(path)}
        if path == LIBRARY / "tokenizer.py":
            named.discard("transformers")  # imported when a chat template is rendered, not before
        assert not HEAVY & named

    def test_of_the_library_and_the_hooks_load_no_heavy_package(self):
        paths = [path for path in LIBRARY_WITHOUT_STACK if path.stem != "__main__"]
        modules = [name(path).removesuffix(".py").replace("/", ".") for path in paths + THIN]
        program = (
            "import importlib, sys\n"
            f"for name in {modules!r}:\n"
            "    importlib.import_module(name)\n"
            f"    assert not {HEAVY!r} & sys.modules.keys(), name\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    @each(MODULES + TESTS)
    def test_of_own_names_exist(self, path):
        """Also in tests and benchmarks that do not run everywhere."""
        for dotted in imports(path):
            if dotted.startswith("rubric_rl."):
                module = ROOT / dotted.replace(".", "/")
                if not (module.is_dir() or module.with_suffix(".py").is_file()):
                    folder = module.parent / "__init__.py"
                    holder = folder if folder.is_file() else module.parent.with_suffix(".py")
                    assert module.name in defined(holder), f"{name(path)}: no {dotted}"


class TestSizes:
    @each(MODULES)
    def test_no_file_is_long(self, path):
        assert len(path.read_text().splitlines()) <= 500

    @each(MODULES)
    def test_no_function_is_long(self, path):
        functions = [
            n
            for n in ast.walk(tree(path))
            if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
        ]
        assert [f.name for f in functions if f.end_lineno - f.lineno >= 80] == []

    @each(TESTS)
    def test_no_test_file_is_long(self, path):
        assert len(path.read_text().splitlines()) <= 500

    @each(sorted(ROOT.glob("run_*.sh")))
    def test_no_run_script_is_long(self, path):
        assert len(path.read_text().splitlines()) <= 80

    def test_no_line_is_wide(self):
        paths = [*LIBRARY.rglob("*.py"), *THIN, *TESTS, *SHELLS]
        lines = (
            (path, *pair)
            for path in paths
            for pair in enumerate(path.read_text("utf-8").split("\n"), 1)
        )
        assert [f"{name(path)}:{number}" for path, number, line in lines if len(line) > 120] == []


class TestOpenings:
    @each(MODULES)
    def test_a_module_says_in_one_sentence_what_it_is_for(self, path):
        first = (ast.get_docstring(tree(path)) or "").split("\n")[0]
        assert first.endswith((".", ":", "?", ")"))

    @each(SHELLS)
    def test_a_shell_script_stops_at_its_first_failure(self, path):
        lines = [
            line
            for line in path.read_text().splitlines()
            if line.strip() and not line.startswith("#")
        ]
        sourced = not path.read_text().startswith("#!")  # by a script that has set it
        assert sourced or lines[0] == "set -euo pipefail"


class TestHouse:
    @each(MODULES + TESTS)
    def test_no_exception_is_swallowed(self, path):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler):
                where = f"{name(path)}:{node.lineno}"
                assert node.type is not None, f"{where}: bare except"
                broad = ast.unparse(node.type) in ("Exception", "BaseException")
                silent = all(isinstance(child, (ast.Pass, ast.Continue)) for child in node.body)
                assert not (broad and silent), f"{where}: every error is swallowed"

    @each([path for path in MODULES + TESTS + SHELLS if path != Path(__file__)])
    def test_only_own_processes_are_ended(self, path):
        text = (
            code(path) if path.suffix == ".py" else re.sub(r"(?m)(^|\s)#.*$", "", path.read_text())
        )
        assert not re.search(r"\b(pkill|killall)\b|\bray\W+stop\b", text)
