"""The rules of the house that a machine can check: what imports what, sizes, width, density."""

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
# A folder may import those above it in this list: common is the ground below all others.
FOLDERS = (
    "common",
    "serving",
    "data",
    "grading",
    "evaluation",
    "trust",
    "report",
    "generation",
    "commands",
    "launch",
    "cpu",
    "tiny",
)
LIGHT = FOLDERS[: FOLDERS.index("cpu")]
# None of these is needed to grade.
HEAVY = {"slime", "torch", "ray", "megatron", "sglang", "sglang_router"}

HOOKS = ROOT / "self_reward_rm.py"
TOP = [HOOKS, ROOT / "data_preprocess.py"]
MODULES = sorted(LIBRARY.rglob("*.py")) + TOP
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SCRIPTS = sorted([*(ROOT / "scripts").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")])
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


def folder(path: Path) -> str:
    """The folder of rubric_rl that a module stands in; "" for what is outside."""
    parts = path.relative_to(ROOT).parts
    return parts[1] if parts[0] == "rubric_rl" and len(parts) > 2 else ""


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


def imported_folders(path: Path) -> set[str]:
    """The folders of rubric_rl from which a file imports."""
    parts = (dotted.split(".") for dotted in imports(path))
    return {part[1] for part in parts if part[0] == "rubric_rl" and part[1] in FOLDERS}


@cache
def defined(path: Path) -> set[str]:
    """Every name that a module imports, assigns or defines."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        names.add(getattr(node, "asname", None) or getattr(node, "name", ""))
    return names


def docstring_lines(module: ast.Module) -> set[int]:
    lines: set[int] = set()
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(module):
        if isinstance(node, holders) and ast.get_docstring(node, clean=False) is not None:
            lines |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def code_lines(path: Path) -> list[int]:
    """The lines that are neither blank, comment nor docstring."""
    docstrings = docstring_lines(tree(path))
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        text = line.strip()
        if text and not text.startswith("#") and number not in docstrings:
            found.append(number)
    return found


def code(path: Path) -> str:
    """The program text without comments and docstrings."""
    if path.suffix != ".py":
        return re.sub(r"(?m)(^|\s)#.*$", "", path.read_text())
    lines = path.read_text(encoding="utf-8").split("\n")
    return "\n".join(lines[number - 1] for number in code_lines(path))


class TestImports:
    @each([path for path in MODULES if folder(path)])
    def test_point_down(self, path):
        above = FOLDERS[FOLDERS.index(folder(path)) + 1 :]
        assert not imported_folders(path) & set(above)

    @each([path for path in MODULES if folder(path) == "cpu"])
    def test_of_the_trainer_without_a_gpu_know_nothing_of_the_tiny_world(self, path):
        assert "tiny" not in imported_folders(path)

    @each([path for path in MODULES if folder(path) not in ("launch", "cpu", "tiny")])
    def test_name_no_heavy_package(self, path):
        assert not HEAVY & {dotted.split(".")[0] for dotted in imports(path)}

    def test_load_no_heavy_package(self):
        """Also those of launch/, which name slime and Ray inside functions."""
        light = [path for path in MODULES if folder(path) in ("", *LIGHT)]
        light = [path for path in light if path.stem != "__init__"]  # come with the others
        modules = [name(path).removesuffix(".py").replace("/", ".") for path in light]
        program = (
            "import importlib, sys\n"
            f"for name in {modules!r}:\n"
            "    importlib.import_module(name)\n"
            f"    assert not {HEAVY!r} & sys.modules.keys(), name\n"
        )
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    @each(MODULES + TESTS)
    def test_of_own_names_exist(self, path):
        """Also in tests and benchmarks that do not run everywhere."""
        for dotted in imports(path):
            if not dotted.startswith("rubric_rl."):
                continue
            module = ROOT / dotted.replace(".", "/")
            if module.is_dir() or module.with_suffix(".py").is_file():
                continue
            package = module.parent / "__init__.py"
            holder = package if package.is_file() else module.parent.with_suffix(".py")
            assert module.name in defined(holder), f"{name(path)}: no {dotted}"


class TestSizes:
    """Guards against outliers only: where to split, the subject says and not a count."""

    @each(MODULES + TESTS)
    def test_no_file_is_long(self, path):
        assert len(path.read_text().splitlines()) <= 500

    @each(MODULES)
    def test_no_function_is_long(self, path):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        functions = [node for node in ast.walk(tree(path)) if isinstance(node, kinds)]
        long = [node.name for node in functions if node.end_lineno - node.lineno >= 80]
        assert long == []

    @each(sorted(ROOT.glob("run_*.sh")))
    def test_no_run_script_is_long(self, path):
        assert len(path.read_text().splitlines()) <= 100

    def test_no_line_is_wide(self):
        texts = [*LIBRARY.rglob("*.js"), *LIBRARY.rglob("*.html"), *LIBRARY.rglob("*.jinja*")]
        texts = [path for path in texts if "model" not in path.parts]
        wide = []
        configs = sorted((ROOT / "configs").glob("*.yaml"))
        for path in [*MODULES, *TESTS, *SCRIPTS, *SHELLS, *configs, *texts]:
            for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
                if len(line) > 100:
                    wide.append(f"{name(path)}:{number}")
        assert wide == []

    @each([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
    def test_no_line_of_prose_is_wide(self, path):
        """Tables and code may be: they cannot be folded."""
        wide = []
        in_code = False
        for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
            if line.lstrip().startswith("```"):
                in_code = not in_code
            elif len(line) > 100 and not in_code and not line.startswith("|"):
                wide.append(number)
        assert wide == []

    def test_a_line_of_code_holds_one_thought(self):
        """At most five expressions and statements of the syntax tree, on average."""
        nodes = lines = 0
        for path in MODULES:
            module = tree(path)
            docstrings = docstring_lines(module)
            for node in ast.walk(module):
                if isinstance(node, (ast.expr, ast.stmt)) and node.lineno not in docstrings:
                    nodes += 1
            lines += len(code_lines(path))
        assert nodes / lines <= 5.0, f"{nodes / lines:.2f} on {lines} lines"


class TestCommands:
    @pytest.mark.parametrize(
        "command", ["evaluate", "meta_eval", "rescore", "report", "compare", "peek", "generate"]
    )
    def test_keep_their_short_names(self, command):
        program = [sys.executable, "-m", f"rubric_rl.{command}", "--help"]
        done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and f"rubric_rl.{command}" in done.stdout


class TestOpenings:
    @each(MODULES)
    def test_a_module_says_in_one_sentence_what_it_is_for(self, path):
        first = (ast.get_docstring(tree(path)) or "").split("\n")[0]
        assert first.endswith((".", ":", "?"))

    @each(SHELLS)
    def test_a_shell_script_stops_at_its_first_failure(self, path):
        text = path.read_text()
        if text.startswith("#!"):  # others are sourced by a script that has set it
            lines = [line for line in text.splitlines() if line.strip()]
            code = [line for line in lines if not line.startswith("#")]
            assert code[0] == "set -euo pipefail"


class TestHabits:
    @each(MODULES + TESTS)
    def test_no_exception_is_swallowed(self, path):
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            where = f"{name(path)}:{node.lineno}"
            assert node.type is not None, f"{where}: bare except"
            broad = ast.unparse(node.type) in ("Exception", "BaseException")
            silent = all(isinstance(child, (ast.Pass, ast.Continue)) for child in node.body)
            assert not (broad and silent), f"{where}: every error is swallowed"

    @each([path for path in MODULES + TESTS + SHELLS if path != Path(__file__)])
    def test_only_own_processes_are_ended(self, path):
        assert not re.search(r"\b(pkill|killall)\b|\bray\W+stop\b", code(path))
