"""The house rules that no linter knows. Each failure names the rule and the file; CONTRIBUTING.md says why."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("chem", "ldm", "causal", "profiling", "service")
PACKAGES = (*ROOMS, "dopaint")
SOURCES = sorted(path for room in PACKAGES for path in (ROOT / room).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))
#: Runs in CellProfiler's own environment, without our packages and without the tests' import hook.
WORKER = ROOT / "profiling" / "engines" / "cellprofiler_worker"
OTHER_ENVIRONMENT = ("cellprofiler", "cellprofiler_core", "centrosome", "mahotas")
#: Distributions whose import name is another one.
IMPORT_NAMES = {
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "protobuf": "google",
    "umap-learn": "umap",
}
#: Needed at run time, by name, through a library that imports them itself.
INDIRECT = {
    "sentencepiece": "transformers reads MolT5's tokenizer with it",
    "protobuf": "transformers converts that tokenizer with it",
    "einops": "MONAI's attention is written with it",
    "s3fs": "fsspec opens s3:// addresses with it",
    "tensorboard": "accelerate's tracker writes with it",
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports_of(path: Path) -> set[str]:
    """The dotted names of all modules that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.add(node.module)
    return names


def calls_in(node: ast.AST) -> list[ast.Call]:
    return [inner for inner in ast.walk(node) if isinstance(inner, ast.Call)]


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------------------------------
# files


@pytest.mark.parametrize("path", [*SOURCES, *TESTS, *BENCHMARKS], ids=relative)
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{relative(path)} has {lines} lines: one idea a file"


def test_no_drawer_for_leftovers() -> None:
    drawers = {"utils", "util", "common", "helpers", "misc", "base"}
    assert not [relative(path) for path in SOURCES if path.stem in drawers or path.parent.name in drawers]


def test_tests_are_flat_and_no_package() -> None:
    assert not [relative(path) for path in TESTS if path.name == "__init__.py"]
    assert not [relative(path) for path in TESTS if path.name.startswith("test_") and path.parent.name != "tests"]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), f"{relative(path)} has no docstring"


@pytest.mark.parametrize("path", [path for path in SOURCES if not path.is_relative_to(WORKER)], ids=relative)
def test_kernels_are_left_alone_by_the_type_checker(path: Path) -> None:
    """numba cannot compile what the tests' import hook has wrapped; see CONTRIBUTING.md, "Array annotations"."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef):
            names = [ast.unparse(item).split("(")[0].split(".")[-1] for item in node.decorator_list]
            if {"njit", "jit", "vectorize", "guvectorize"} & set(names):
                assert "no_type_check" in names, f"{relative(path)}:{node.lineno} put @no_type_check under @{names[0]}"


def test_nothing_is_left_for_later() -> None:
    words = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|NotImplemented" + r"Error|x" + r"fail)\b")
    found = [
        f"{relative(path)}:{number}"
        for path in [*SOURCES, *TESTS, *BENCHMARKS]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if words.search(line)
    ]
    assert not found


# ---------------------------------------------------------------------------------------------------------------------
# rooms and their doors


@pytest.mark.parametrize("name", PACKAGES)
def test_rooms_are_imported_from_this_checkout(name: str) -> None:
    """Other people's packages have the same names: `ldm` of Stable Diffusion, `profiling` of Python 3.15."""
    assert Path(str(importlib.import_module(name).__file__)).resolve().is_relative_to(ROOT)


@pytest.mark.parametrize("name", PACKAGES)
def test_doors_name_what_is_public(name: str) -> None:
    room = importlib.import_module(name)
    public = list(room.__all__)
    assert public, f"{name}.__all__ is empty"
    assert len(public) == len(set(public)), f"{name}.__all__ names something twice"
    missing = [item for item in public if not hasattr(room, item) and not (ROOT / name / f"{item}.py").is_file()]
    assert not missing, f"{name}.__all__ names what is not there"
    assert not [item for item in public if item.startswith("_") and item != "__version__"]


def test_profiling_needs_no_torch_outside_engines_and_embedders() -> None:
    allowed = {ROOT / "profiling" / "engines", ROOT / "profiling" / "embedders"}
    for path in (ROOT / "profiling").rglob("*.py"):
        if not allowed & set(path.parents):
            assert not [name for name in imports_of(path) if name.split(".")[0] == "torch"], relative(path)


def test_pictures_enter_no_molecule_and_molecules_no_picture() -> None:
    """The rooms' own wall, by name: also for imports inside functions and behind TYPE_CHECKING."""
    for path in SOURCES:
        room = path.relative_to(ROOT).parts[0]
        if room not in ("service", "dopaint"):
            others = set(PACKAGES) - {room}
            assert not [name for name in imports_of(path) if name.split(".")[0] in others], relative(path)


# ---------------------------------------------------------------------------------------------------------------------
# what must not be done


@pytest.mark.parametrize("path", [*SOURCES, *BENCHMARKS], ids=relative)
def test_nothing_is_pickled(path: Path) -> None:
    picklers = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    assert not picklers & {name.split(".")[0] for name in imports_of(path)}, relative(path)
    for call in calls_in(tree_of(path)):
        name, place = ast.unparse(call.func), f"{relative(path)}:{call.lineno}"
        assert name not in ("torch.load", "torch.save"), f"{place} use safetensors"
        assert not [
            word for word in call.keywords if word.arg == "allow_pickle" and ast.unparse(word.value) != "False"
        ], place


@pytest.mark.parametrize("path", [*SOURCES, *BENCHMARKS], ids=relative)
def test_no_global_seed(path: Path) -> None:
    """Weights may be initialised from a seed inside `torch.random.fork_rng`, which puts the global state back."""
    seeds = ("np.random.seed", "numpy.random.seed", "random.seed", "torch.manual_seed", "torch.random.manual_seed")
    forks = [
        node
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.With) and any("fork_rng" in ast.unparse(item) for item in node.items)
    ]
    forked = {id(call) for fork in forks for call in calls_in(fork)}
    calls = [call for call in calls_in(tree_of(path)) if ast.unparse(call.func) in seeds and id(call) not in forked]
    assert not calls, f"{relative(path)}:{calls[0].lineno} pass a generator"


# ---------------------------------------------------------------------------------------------------------------------
# dependencies


def requirements() -> dict[str, Requirement]:
    return {item.name: item for item in map(Requirement, pyproject()["project"]["dependencies"])}


def test_every_import_is_declared_and_every_dependency_is_used() -> None:
    declared = {IMPORT_NAMES.get(name, name).replace("-", "_") for name in requirements()}
    declared |= {Requirement(item).name for item in pyproject()["project"]["optional-dependencies"]["cluster"]}
    inside = set(sys.stdlib_module_names) | set(PACKAGES) | set(OTHER_ENVIRONMENT)
    used = {
        name.split(".")[0]: relative(path)
        for path in SOURCES
        if not path.is_relative_to(WORKER)
        for name in imports_of(path)
    }
    undeclared = {name: path for name, path in used.items() if name not in inside | declared}
    assert not undeclared
    unused = declared - set(used) - {IMPORT_NAMES.get(name, name) for name in INDIRECT}
    assert not unused, "declared, yet nothing imports it"


def test_constraints_pin_every_dependency_exactly() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    extras = [Requirement(item) for group in pyproject()["project"]["optional-dependencies"].values() for item in group]
    for item in [*requirements().values(), *extras]:
        if item.name != "dopaint":
            assert re.sub(r"[-_.]+", "-", item.name).lower() in names, item.name
    assert not [name for name in names if name.startswith(("nvidia", "cuda", "triton"))]
    assert "+" not in pins["torch"], "a local label ties torch to one build"


def test_every_dependency_says_why_it_is_there() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = [item for group in pyproject()["project"]["optional-dependencies"].values() for item in group]
    for item in [*pyproject()["project"]["dependencies"], *extras]:
        if not item.startswith("dopaint["):
            assert re.search(rf'^\s*"{re.escape(item)}",\s*# \S', text, flags=re.MULTILINE), item


# ---------------------------------------------------------------------------------------------------------------------
# what is shipped


def test_licence_is_apache() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert pyproject()["project"]["license"] == "Apache-2.0"


def test_changelog_names_the_version_of_the_code_first() -> None:
    from service.version import __version__

    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert heading is not None
    assert heading.group(1) == __version__


def test_models_are_small_and_hold_no_code() -> None:
    files = [path for path in (ROOT / "models").rglob("*") if path.is_file()]
    assert files, "models/ is empty"
    kinds = {".safetensors", ".json", ".parquet", ".md", ".model", ".txt"}
    assert not [relative(path) for path in files if path.suffix not in kinds]
    assert sum(path.stat().st_size for path in files) <= 40 * 1024**2
    assert not [relative(path) for path in files if path.stat().st_size > 15 * 1024**2]


def test_no_name_of_a_machine_is_committed() -> None:
    """Absolute paths of somebody's machine and addresses of package registries stay out of the repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    words = re.compile(rb"/wo" + rb"rk/|/ro" + rb"ot/|--(?:extra-)?index-url\s+https?:")
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix not in (".safetensors", ".parquet", ".png"):
            assert not words.search(path.read_bytes()), name
