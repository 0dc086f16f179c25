"""README and the other pages say what is there: the tree, the verbs, the commands, the links."""

import ast
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
import typer

import dopaint
from service.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def tree_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tree", ROOT / "docs" / "tree.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tree_matches_the_folders() -> None:
    tree = tree_tool()
    block = tree.block_of(README)
    assert block == tree.render(ROOT, tree.parse(block)), "run: python docs/tree.py"
    assert not [name for name, words in tree.parse(block).items() if not words], "say in a few words what it is"


def test_tree_notices_a_new_and_a_lost_file(tmp_path: Path) -> None:
    tree = tree_tool()
    for room in tree.ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text('"""A room."""\n', encoding="utf-8")
    (tmp_path / "chem" / "new.py").write_text('"""Does one thing: well. And more."""\n', encoding="utf-8")
    block = tree.render(tmp_path, {"chem/": "molecules", "chem/lost.py": "gone"})
    assert tree.parse(block)["chem/new.py"] == "Does one thing: well"
    assert tree.parse(block)["chem/"] == "molecules"
    assert "lost" not in block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_name_only_verbs_that_exist(page: Path) -> None:
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(
        re.findall(r"(?:^|`)make ([a-z]+)(?:`|\s*$|\s+#)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    assert named <= verbs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"`[^`\n]*`", "", page.read_text(encoding="utf-8"))  # a SMILES in code may look like a link
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def commands(page: Path) -> set[tuple[str, ...]]:
    """The verbs after `dopaint` in code, such as ("benchmark", "gate")."""
    found = re.findall(
        r"(?:`|bin/|^|\)/)dopaint ((?:[a-z][a-z0-9-]* ?){1,2})", page.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    return {tuple(words.split()) for words in found}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "Makefile"], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_name_only_commands_that_exist(page: Path) -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    for words in commands(page):
        command = root.commands.get(words[0])
        assert command is not None, f"{page.name}: dopaint {' '.join(words)}"
        if isinstance(command, typer.core.TyperGroup) and words[1:]:
            assert words[1] in command.commands, f"{page.name}: dopaint {' '.join(words)}"


def test_readme_names_only_tests_and_benchmarks_that_exist() -> None:
    named = set(re.findall(r"\b(?:tests|benchmarks)/\w+\.py", README))
    assert named
    assert not [name for name in named if not (ROOT / name).is_file()]


def test_python_example_calls_what_exists() -> None:
    block = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert block is not None
    for node in ast.walk(ast.parse(block.group(1))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = getattr(dopaint, node.func.attr)
            inspect.signature(called).bind(
                *[None for _ in node.args], **{word.arg: None for word in node.keywords if word.arg}
            )


def test_makefile_explains_every_verb() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert phony is not None
    for verb in phony.group(1).split():
        assert re.search(rf"^{verb}:[^#\n]*## \S", makefile, flags=re.MULTILINE), verb
