"""The walk of a chemist through the page of a running service; writes docs/pictures.

python docs/walk.py http://127.0.0.1:8711/        (minutes: the model paints and measures 16 pictures)
"""

import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser, find  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
CAFFEINE = "CN1C=NC2=C1C(=O)N(C)C(=O)N2C"
DRAWS = 8
PATIENCE_S = 1500  # for the answer, on a busy machine
WIDTH, HEIGHT = 1280, 900
MOST_BYTES = 200 * 1024
PLAIN = 24  # colours that the page itself is made of
READY = "document.documentElement?.dataset.started && document.getElementById('version').textContent"


def keep(page: Browser, name: str) -> None:
    """The window as a PNG of at most 200 KiB, with fewer colours where it would be larger."""
    file = PICTURES / f"page-{name}.png"
    page.picture(file)
    with Image.open(file) as shot:
        image = shot.convert("RGB")
    for colours in (256, 192, 128, 96):
        if file.stat().st_size <= MOST_BYTES:
            return
        image.quantize(palette=palette(image, colours), dither=Image.Dither.NONE).save(file, optimize=True)


def palette(image: Image.Image, colours: int) -> Image.Image:
    """The colours that are most frequent, exactly, so that the page keeps its own; the rest covers the pictures."""
    counted = sorted(image.getcolors(image.width * image.height), reverse=True)
    exact = [colour for _, colour in counted[:PLAIN]]
    spread = image.quantize(colours - PLAIN, Image.Quantize.MAXCOVERAGE).getpalette()
    made = Image.new("P", (1, 1))
    made.putpalette([value for colour in exact for value in colour] + spread[: 3 * (colours - PLAIN)])
    return made


def show(page: Browser, selector: str, block: str = "center") -> None:
    """Scrolls to an element, and lets the page paint."""
    page.js(f"document.querySelector('{selector}').scrollIntoView({{block: '{block}', behavior: 'instant'}})")
    time.sleep(1.5)


def ask(page: Browser, url: str) -> None:
    """Paste caffeine, watch its pictures appear, wait for the answer."""
    page.open(url)
    page.until(READY, 300)
    page.type("#smiles", CAFFEINE)
    page.type("#draws", str(DRAWS))
    page.js("document.getElementById('allow').checked = true")
    page.until("document.querySelector('#drawing img')?.naturalWidth > 0")
    keep(page, "ask")

    page.click("#go")
    page.until("document.querySelector('#grid .cell')", PATIENCE_S)
    show(page, "#grid .cell")
    page.until("document.querySelectorAll('#grid [data-painted]').length >= 4", PATIENCE_S)
    keep(page, "painting")
    answered(page)


def answered(page: Browser) -> None:
    """Waits for the answer and everything below it."""
    page.until("document.getElementById('heat-section').checkVisibility()", PATIENCE_S)
    page.until("document.getElementById('settle-n').textContent", 300)


def look(page: Browser) -> None:
    """Difference, slider, heat map, one channel enlarged; reload from the link; in the dark, and on a phone."""
    show(page, "#grid .cell")
    page.until("document.querySelectorAll('#grid [data-painted]').length >= 8")
    page.click("#difference")
    page.until("document.querySelectorAll('#grid tr.difference [data-painted]').length >= 4")
    show(page, "#name", "start")
    keep(page, "grid")

    page.js("document.getElementById('settle-slider').focus()")
    for _ in range(DRAWS // 2 - 1):
        page.key("ArrowLeft")
    show(page, "#moa-title", "start")
    keep(page, "mechanisms")
    show(page, "#settle-title", "start")
    keep(page, "settling")
    for _ in range(DRAWS // 2 - 1):
        page.key("ArrowRight")

    page.click("#heat .heat.moved")
    page.until("document.querySelectorAll('#heat-detail tbody tr').length > 0")
    show(page, "#heat-title", "start")
    keep(page, "heat")

    for name in ("ER", "RNA", "AGP", "Mito"):
        page.click(f"#channels [data-channel={name}]")
    show(page, "#grid .cell")
    page.click("#grid .cell")
    page.until("document.getElementById('viewer').open && document.getElementById('viewer-waiting').hidden")
    time.sleep(2)
    keep(page, "enlarged")
    page.key("Escape")

    page.reload()
    answered(page)
    page.resize(WIDTH, HEIGHT, dark=True)
    show(page, "#name", "start")
    keep(page, "dark")
    page.resize(390, 844, phone=True)
    show(page, "#name", "start")
    keep(page, "phone")
    show(page, "#moa-title", "start")
    keep(page, "phone-mechanisms")


def main() -> None:
    """Walk through the page at the address given."""
    program = find()
    if program is None or len(sys.argv) != 2:
        raise SystemExit("usage: python docs/walk.py URL of a running `dopaint serve`; needs Chromium")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, Browser(program, Path(profile)) as page:
        page.resize(WIDTH, HEIGHT)
        ask(page, sys.argv[1])
        look(page)
        if page.complaints:
            raise SystemExit("the page complained: " + "; ".join(page.complaints))


if __name__ == "__main__":
    main()
