"""The page's files, without a browser: nothing inline, nothing remote, every id there, colours that can be read."""

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import service

WEB = Path(service.__file__).parent / "web"
SCRIPTS = sorted(WEB.glob("*.js"))
STYLES = sorted(WEB.glob("*.css"))
HTML = (WEB / "index.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """All start tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))


def tags() -> list[tuple[str, dict[str, str]]]:
    reader = Reader()
    reader.feed(HTML)
    return reader.tags


def test_nothing_is_inline_or_remote() -> None:
    for tag, attributes in tags():
        assert tag != "style", "a style element"
        assert "style" not in attributes, f"{tag} has an inline style"
        assert not [name for name in attributes if name.startswith("on")], f"{tag} has an inline handler"
        assert tag != "script" or attributes.get("src"), "a script without a file"
        for name in ("src", "href"):
            assert "//" not in attributes.get(name, ""), f"{tag} points elsewhere: {attributes[name]}"
    for file in (*SCRIPTS, *STYLES):
        words = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|\beval\(|new Function|innerHTML|document\.write", words), file.name


def test_every_id_that_a_script_asks_for_is_on_the_page() -> None:
    known = {attributes["id"] for _, attributes in tags() if "id" in attributes}
    made = set(re.findall(r'id: "([\w-]+)"', "".join(file.read_text() for file in SCRIPTS)))
    for file in SCRIPTS:
        asked = set(re.findall(r'\$\("([\w-]+)"\)', file.read_text(encoding="utf-8")))
        assert asked <= known | made, f"{file.name} asks for {sorted(asked - known - made)}"


def test_ids_are_unique_and_references_lead_somewhere() -> None:
    ids = [attributes["id"] for _, attributes in tags() if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in tags():
        for name in ("for", "aria-labelledby", "aria-describedby", "aria-controls"):
            for one in attributes.get(name, "").split():
                assert one in ids, f"{tag} {name} points to {one!r}"


def test_every_field_and_dialog_has_a_name() -> None:
    labelled = {attributes["for"] for tag, attributes in tags() if tag == "label" and "for" in attributes}
    inside_label = {"allow", "abstain", "difference", "own-allow"}  # wrapped by their label
    for tag, attributes in tags():
        if tag in ("input", "textarea", "select"):
            assert attributes["id"] in labelled | inside_label or "aria-label" in attributes, attributes["id"]
        if tag == "dialog":
            assert "aria-labelledby" in attributes


def test_all_modules_are_imported_from_here_and_exist() -> None:
    for file in SCRIPTS:
        for name in re.findall(r'(?:from|import\()\s*"([^"]+)"', file.read_text(encoding="utf-8")):
            assert name.startswith("./")
            assert (WEB / name).is_file(), f"{file.name} imports {name}"


def test_the_pictures_of_the_document_are_there_and_small(repository: Path) -> None:
    words = (repository / "docs" / "page.md").read_text(encoding="utf-8")
    named = re.findall(r"\(pictures/([\w.-]+)\)", words)
    assert sorted(named) == sorted(one.name for one in (repository / "docs" / "pictures").glob("page-*"))
    assert all((repository / "docs" / "pictures" / name).stat().st_size <= 200 * 1024 for name in named)


def test_shipped_packages_are_pinned_by_their_hash_and_bring_their_licence() -> None:
    pins = json.loads((WEB / "vendor" / "pins.json").read_text(encoding="utf-8"))
    files = {one.name for one in (WEB / "vendor").iterdir()} - {"pins.json"}
    assert files == {name for package in pins.values() for name in package["files"]}
    for package in pins.values():
        assert package["licence"] in ("BSD-3-Clause", "MIT", "Apache-2.0")
        assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"])
        for name, digest in package["files"].items():
            assert hashlib.sha256((WEB / "vendor" / name).read_bytes()).hexdigest() == digest, name
        assert any("LICENSE" in name for name in package["files"])
    assert sum(one.stat().st_size for one in (WEB / "vendor").iterdir()) < 2_500_000


# ---------------------------------------------------------------------------------------------------------------------
# Colours


def _schemes() -> dict[str, dict[str, str]]:
    """The colours of the light scheme, and the dark one's on top of them."""
    words = (WEB / "style.css").read_text(encoding="utf-8")
    found = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block))
        for block in re.findall(r":root \{(.*?)\}", words, re.S)
    ]
    return {"light": found[0], "dark": {**found[0], **found[1]}}


def _linear(colour: str) -> tuple[float, ...]:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * one for one in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    return tuple(p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2, 1 to 21."""
    light, dark = sorted(
        (sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), _linear(c), strict=True)) for c in (one, other)),
        reverse=True,
    )
    return (light + 0.05) / (dark + 0.05)


TEXT = [("ink", ground) for ground in ("paper", "card", "sunk", "warm-ground", "good-ground", "up", "down", "neutral")]
TEXT += [("quiet", "paper"), ("quiet", "card"), ("quiet", "sunk"), ("accent", "card"), ("accent", "paper")]
TEXT += [("on-accent", "accent"), ("warm", "card"), ("warm", "warm-ground"), ("good", "good-ground"), ("good", "card")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("words", "ground"), TEXT, ids=["-on-".join(pair) for pair in TEXT])
def test_text_can_be_read(scheme: str, words: str, ground: str) -> None:
    colours = _schemes()[scheme]
    assert contrast(colours[words], colours[ground]) >= 4.5  # WCAG 2.2 AA for small text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("mark", ["accent", "warm", "quiet", "ink"])
def test_marks_can_be_seen(scheme: str, mark: str) -> None:
    colours = _schemes()[scheme]
    assert contrast(colours[mark], colours["card"]) >= 3.0  # WCAG 2.2 AA for graphics and the focus ring


# Linear RGB as people without one kind of cone see it, by confusing along its line (Vienot, Brettel and Mollon 1999).
BLIND = {
    "deuteranopia": ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0)),
    "protanopia": ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0)),
    "all cones": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
}


def _lab(linear: tuple[float, ...]) -> tuple[float, ...]:
    """OKLab, in which equal distances look equally different (Ottosson 2020)."""
    r, g, b = (max(0.0, p) for p in linear)
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    middle = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


@pytest.mark.parametrize("eyes", list(BLIND))
def test_channel_colours_are_told_apart_by_everyone(eyes: str) -> None:
    words = (WEB / "pixels.js").read_text(encoding="utf-8")
    table = words.split("COLOURS = {", 1)[1].split("};", 1)[0]
    found = {name: tuple(map(int, numbers.split(","))) for name, numbers in re.findall(r"(\w+): \[([\d, ]+)\]", table)}
    assert set(found) == {"DNA", "ER", "RNA", "AGP", "Mito"}
    seen = {}
    for name, rgb in found.items():
        linear = _linear("#" + "".join(f"{value:02x}" for value in rgb))
        seen[name] = _lab(tuple(sum(w * p for w, p in zip(row, linear, strict=True)) for row in BLIND[eyes]))
    for one in seen:
        for other in seen:
            if one < other:
                apart = sum((p - q) ** 2 for p, q in zip(seen[one], seen[other], strict=True)) ** 0.5
                assert apart > 0.06, f"{one} and {other} look alike"  # 0.02 is just noticeable side by side
