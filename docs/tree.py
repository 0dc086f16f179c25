"""Keeps README's annotated tree in step with the folders: `python docs/tree.py` rewrites it, the tests compare it.

A line that is there keeps its words; a new file gets the first sentence of its docstring; a line without its file goes.
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- tree: python docs/tree.py -->", "<!-- end of tree -->"
ROOMS = ("chem", "ldm", "causal", "profiling", "service", "dopaint")
#: Folders of which each file or folder directly inside gets a line.
SHELVES = ("configs", "models", "benchmarks", "deploy", "docs")
COLUMN = 34
LONGEST = 100


def first_sentence(path: Path) -> str:
    """What a module says of itself, in one line; a long sentence ends at its last pause before 100 characters."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    sentence = re.split(r"(?<=[.!?])\s", " ".join(text.split()), maxsplit=1)[0].rstrip(".:")
    if len(sentence) <= LONGEST:
        return sentence
    pause = max(sentence.rfind(mark, 25, LONGEST) for mark in (", ", ": ", "; "))
    return sentence[:pause] if pause > 0 else sentence[:LONGEST].rsplit(" ", 1)[0]


def entries(root: Path) -> list[tuple[str, str]]:
    """(path below the root, description to start with) in the order of the tree; folders end in a slash."""
    found: list[tuple[str, str]] = []

    def walk(folder: Path) -> None:
        door = folder / "__init__.py"
        found.append((f"{folder.relative_to(root).as_posix()}/", first_sentence(door) if door.is_file() else ""))
        for path in sorted(folder.iterdir(), key=lambda item: (item.is_dir(), item.name)):
            if path.is_dir() and any(path.rglob("*.py")) and path.name != "__pycache__":
                walk(path)
            elif path.is_dir() and path.name != "__pycache__" and any(path.iterdir()):
                found.append((f"{path.relative_to(root).as_posix()}/", ""))
            elif path.suffix == ".py" and path.name != "__init__.py":
                found.append((path.relative_to(root).as_posix(), first_sentence(path)))

    for room in ROOMS:
        walk(root / room)
    for shelf in SHELVES:
        found.append((f"{shelf}/", ""))
        for path in sorted((root / shelf).iterdir()) if (root / shelf).is_dir() else []:
            if path.is_dir() and path.name != "__pycache__" and any(path.iterdir()):
                found.append((f"{path.relative_to(root).as_posix()}/", ""))
            elif path.suffix in (".py", ".md"):
                found.append((path.relative_to(root).as_posix(), first_sentence(path) if path.suffix == ".py" else ""))
    found.append(("tests/", ""))
    return found


def parse(block: str) -> dict[str, str]:
    """The descriptions that a rendered tree holds, by path."""
    known: dict[str, str] = {}
    folders: list[str] = []
    for line in block.splitlines():
        match = re.match(r"^( *)(\S+)(?: +(.*))?$", line)
        if match and not line.startswith("```"):
            depth = len(match.group(1)) // 2
            folders[depth:] = [match.group(2)]
            known["".join(folders)] = (match.group(3) or "").strip()
    return known


def render(root: Path, known: dict[str, str]) -> str:
    """The tree as a fenced block: two spaces a level, one line a file."""
    lines = ["```"]
    for path, start in entries(root):
        parts = path.rstrip("/").split("/")
        name = "  " * (len(parts) - 1) + parts[-1] + ("/" if path.endswith("/") else "")
        lines.append(f"{name:<{COLUMN}} {known.get(path) or start}".rstrip())
    return "\n".join([*lines, "```"])


def block_of(readme: str) -> str:
    """The tree between its two marks."""
    return readme.split(BEGIN, 1)[1].split(END, 1)[0].strip()


def main() -> int:
    path = ROOT / "README.md"
    readme = path.read_text(encoding="utf-8")
    old = block_of(readme)
    new = render(ROOT, parse(old))
    path.write_text(readme.replace(old, new), encoding="utf-8")
    empty = [name for name, words in parse(new).items() if not words]
    if empty:
        sys.stderr.write(f"no words yet: {', '.join(empty)}\n")
    return 1 if empty else 0


if __name__ == "__main__":
    sys.exit(main())
