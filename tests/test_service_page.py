"""The page in a real headless Chromium, end to end, in front of a fake machine room.

Skipped where no Chromium is installed.
"""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from browser import Browser, find
from page_service import serve

from service.keys import Keys

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

KNOWN, BROKEN, SALT = "CCCCO", "C1CC(", "CCCCN.Cl"
CAFFEINE = "CN1C=NC2=C1C(=O)N(C)C(=O)N2C"
#: What Chromium logs when a molecule is refused, or a job is gone, is expected; everything else is not.
EXPECTED = ("422", "404", "401", "410", "409")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    url, stop = serve(tmp_path_factory.mktemp("service"))
    yield url
    stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find()
    if program is None:
        pytest.skip("needs Chromium: on Debian apt-get install chromium")
    with Browser(program, tmp_path_factory.mktemp("chromium")) as browser:
        browser.resize(1280, 900)
        yield browser


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Browser]:
    """The page, fresh; at the end of each test nothing was refused and no script failed."""
    browser.complaints.clear()
    browser.open("about:blank")
    browser.open(address)
    browser.until("document.documentElement?.dataset.started && document.getElementById('version').textContent")
    yield browser
    unexpected = [one for one in browser.complaints if not any(f"status of {code}" in one for code in EXPECTED)]
    assert unexpected == []


def text(page: Browser, selector: str) -> str:
    return str(page.js(f"document.querySelector({json.dumps(selector)}).textContent"))


def shown(selector: str) -> str:
    """Whether an element is there and visible, as an expression."""
    return f"Boolean(document.querySelector({json.dumps(selector)})?.checkVisibility())"


def ask(page: Browser, smiles: str, draws: int = 6) -> None:
    page.type("#smiles", smiles)
    page.type("#draws", str(draws))
    page.until("document.querySelector('#drawing img') && !document.getElementById('go').disabled")
    if "\n" in smiles:
        page.until("document.getElementById('lines-say').textContent")
    page.click("#go")


def answered(page: Browser) -> None:
    page.until(shown("#results"))
    seen(page)
    page.until("document.querySelectorAll('#grid [data-painted]').length >= 4")


def seen(page: Browser) -> None:
    """Scrolls to the pictures: only what is in view is painted."""
    page.until("document.querySelector('#grid .cell')")
    page.js("document.querySelector('#grid .cell').scrollIntoView({block: 'center', behavior: 'instant'})")


#: A number for each of the first pictures of the compound: equal numbers, equal pixels.
PIXELS = """[...document.querySelectorAll('#grid tr.compound canvas')].slice(0, 4)
  .map((one) => [...one.getContext('2d').getImageData(0, 0, one.width, one.height).data])
  .map((all) => all.reduce((sum, value, i) => sum + value * (i % 4 + 1), 0))"""


def test_a_molecule_is_standardised_or_refused_with_its_place(page: Browser) -> None:
    page.type("#smiles", CAFFEINE)
    page.until("document.querySelector('#drawing img')?.naturalWidth > 0")
    assert "nothing had to be changed" in text(page, "#smiles-says")
    assert page.js("document.querySelector('#drawing img').alt").startswith("Structure of")
    page.type("#smiles", SALT)
    page.until("document.getElementById('smiles-says').textContent.includes('Standardised')")
    page.type("#smiles", BROKEN)
    page.until("document.getElementById('smiles').getAttribute('aria-invalid') === 'true'")
    assert "Cannot be used" in text(page, "#smiles-says")
    page.until("document.querySelector('#smiles-says mark')")
    page.click("#smiles-says button")
    marked = page.js("document.getElementById('smiles').selectionStart")
    assert BROKEN[marked] == text(page, "#smiles-says mark")
    page.type("#smiles", f"{KNOWN}\n{BROKEN}")
    page.until("document.getElementById('lines-say').textContent.includes('number 2')")


def test_a_molecule_is_drawn_in_the_editor(page: Browser) -> None:
    page.type("#smiles", "c1ccccc1O")
    page.click("#open-editor")
    page.until("document.getElementById('editor').open && document.getElementById('editor-says').textContent === ''")
    page.js("document.getElementById('smiles').value = 'C'")
    page.click("#editor-take")
    page.until("!document.getElementById('editor').open")
    page.until("document.querySelector('#drawing-says code')?.textContent === 'Oc1ccccc1'")


def test_the_walk(page: Browser, tmp_path: Path) -> None:
    ask(page, KNOWN)
    # pictures appear as they are made, before there is an answer
    seen(page)
    page.until(f"document.querySelector('#grid [data-painted]') && !{shown('#results')}")
    assert page.js(shown("#running"))
    answered(page)
    assert not page.js(shown("#running"))
    assert page.js("document.querySelectorAll('#grid tr.compound .cell').length") == 6
    assert page.js("document.querySelectorAll('#grid tr.control .cell').length") == 6
    heads = page.js(
        "[...document.querySelectorAll('#grid tr.source th[scope=colgroup]')].map((one) => one.textContent)"
    )
    assert heads == sorted(set(heads))  # one head a laboratory, its columns side by side
    assert page.js(shown("#banner"))

    # channels: a toggle changes the pictures and asks the service for nothing
    before = page.js(PIXELS)
    fetched = "performance.getEntriesByType('resource').filter((one) => one.name.includes('format=raw')).length"
    requests = page.js(fetched)
    page.click("#channels [data-channel=ER]")
    page.until(f"JSON.stringify({PIXELS}) !== {json.dumps(json.dumps(before, separators=(',', ':')))}")
    assert page.js("document.querySelector('#channels [data-channel=ER]').getAttribute('aria-pressed')") == "false"
    assert page.js(fetched) == requests
    page.js("document.querySelector('#grid .cell').focus()")
    page.key("2", "Digit2")
    page.until("document.querySelector('#channels [data-channel=ER]').getAttribute('aria-pressed') === 'true'")
    assert page.js(PIXELS) == before
    page.js("const gain = document.getElementById('gain'); gain.value = 2; gain.dispatchEvent(new Event('input'))")
    page.until(f"JSON.stringify({PIXELS}) !== {json.dumps(json.dumps(before, separators=(',', ':')))}")

    # the difference is a row of its own
    page.click("#difference")
    page.until("document.querySelectorAll('#grid tr.difference [data-painted]').length >= 4")

    # the slider moves the bars, the words and the pictures in use
    bar = "document.querySelector('#moa tr[data-label] .bars svg').getAttribute('aria-label')"
    page.until("document.getElementById('settle-says').textContent")
    whole, all_words = page.js(bar), text(page, "#settle-says")
    assert "6 of 6 draws" in all_words
    page.js("document.getElementById('settle-slider').focus()")
    for _ in range(3):
        page.key("ArrowLeft")
    page.until("document.getElementById('settle-says').textContent.includes('first 3 of 6')")
    assert page.js(bar) != whole
    assert page.js("document.querySelectorAll('#grid tr.compound .cell.unused').length") == 3
    assert not page.js(
        "document.querySelector('#moa td.p').checkVisibility({visibilityProperty: true})"
    )  # p of all draws
    for _ in range(3):
        page.key("ArrowRight")
    page.until("document.getElementById('settle-says').textContent.includes('first 6 of 6')")
    assert page.js(bar) == whole  # the last point of the settling is the answer

    # heat map and evidence
    page.until(shown("#heat-section"))
    page.click("#heat .heat")
    page.until("document.querySelectorAll('#heat-detail tbody tr').length > 0")
    page.click("#moa .evidence")
    page.until("document.querySelector('#compound-body img')?.naturalWidth > 0")
    page.key("Escape")
    page.until("!document.getElementById('compound').open")

    # a download
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("#links li:nth-child(2) a")
    end = time.monotonic() + 30
    while not list(tmp_path.glob("*-predictions.json")):
        assert time.monotonic() < end, "nothing was downloaded"
        time.sleep(0.1)
    kept = json.loads(next(tmp_path.glob("*-predictions.json")).read_text())
    assert kept["compound"]["smiles"] == KNOWN

    # reload from the link: the same answer, without a new job
    called = text(page, "#call")
    jobs = page.js("fetch('/v1/predictions').then((one) => one.json()).then((one) => one.items.length)")
    page.reload()
    answered(page)
    assert text(page, "#call") == called
    assert page.js("document.getElementById('smiles').value") == KNOWN
    assert page.js("fetch('/v1/predictions').then((one) => one.json()).then((one) => one.items.length)") == jobs


def test_a_link_carries_the_request_and_waits_to_be_asked(page: Browser, address: str) -> None:
    request = {"smiles": [KNOWN], "draws": 3, "seed": 7, "allow_simulated": True}
    words = base64.urlsafe_b64encode(json.dumps(request).encode()).rstrip(b"=").decode()
    page.open("about:blank")
    page.open(f"{address}#request={words}")
    page.until(shown("#link-says"))
    assert page.js("document.getElementById('seed').value") == "7"
    assert page.js("document.getElementById('allow').checked") is True
    assert not page.js(shown("#answer"))
    page.click("#go")
    answered(page)
    made = page.js("location.hash")
    assert made.startswith("#request=")
    assert "&job=" in made
    page.open("about:blank")
    page.open(f"{address}#request=bm9uc2Vuc2U")
    page.until(shown("#problem"))
    assert "link" in text(page, "#problem")
    page.open("about:blank")


def test_history_opens_and_deletes(page: Browser) -> None:
    ask(page, "CCCCCN", 2)
    answered(page)
    page.click("#open-history")
    page.until("document.querySelectorAll('#history-list li').length > 0")
    n = page.js("document.querySelectorAll('#history-list li').length")
    page.click("#history-list li:last-child .acts button:first-child")
    page.until("!document.getElementById('history').open")
    answered(page)
    page.click("#open-history")
    page.until(f"document.querySelectorAll('#history-list li').length === {n}")
    page.click("#history-list li:first-child .acts button:last-child")
    page.until(f"document.querySelectorAll('#history-list li').length === {n - 1}")
    page.key("Escape")


def test_a_job_can_be_cancelled_and_asked_again(page: Browser) -> None:
    ask(page, "CCCCCCO", 200)
    seen(page)
    page.until("document.querySelector('#grid [data-painted]')")
    page.click("#cancel")
    page.until("document.getElementById('problem').textContent.includes('cancelled')")
    assert not page.js(shown("#running"))
    page.until("!document.getElementById('go').disabled")
    page.click("#go")  # the same request once more is a new job, not the cancelled one
    page.until(shown("#running"))
    page.click("#cancel")
    page.until("document.getElementById('problem').textContent.includes('cancelled')")


def test_several_molecules_one_of_them_bad(page: Browser) -> None:
    ask(page, f"{KNOWN}\n{BROKEN}\n{CAFFEINE}", 2)
    answered(page)
    assert page.js("document.querySelectorAll('#tabs button').length") == 3
    page.click("#tabs button:nth-child(2)")
    page.until(shown("#why-not"))
    assert not page.js(shown("#pictures-section"))
    page.click("#tabs button:nth-child(3)")
    answered(page)
    page.until("document.getElementById('call').textContent.includes('No mechanism is called')")


def test_everything_works_by_keyboard(page: Browser) -> None:
    page.type("#smiles", KNOWN)
    page.type("#draws", "3")
    page.key("Enter")
    answered(page)
    page.js("document.querySelector('#grid .cell').focus()")
    at = "document.activeElement.dataset.row + ',' + (document.activeElement.closest('td').cellIndex - 1)"
    way = {"ArrowRight": "compound,1", "ArrowDown": "control,1", "End": "control,2", "Home": "control,0"}
    for key, place in (way | {"ArrowUp": "compound,0"}).items():
        page.key(key)
        assert page.js(at) == place
    assert page.js("document.querySelectorAll('#grid .cell[tabindex=\"0\"]').length") == 1  # one stop of the Tab key
    page.key("Enter")
    page.until("document.getElementById('viewer').open")
    title = text(page, "#viewer-title")
    page.key("ArrowRight")
    page.until(f"document.getElementById('viewer-title').textContent !== {json.dumps(title)}")
    page.key("Escape")
    page.until("!document.getElementById('viewer').open")
    assert page.js(at) == "compound,0"  # the focus comes back
    page.js("document.getElementById('tab-molecule').focus()")
    page.key("ArrowRight")
    assert page.js(shown("#own"))
    page.key("ArrowLeft")
    assert page.js(shown("#ask"))


def files_in(page: Browser, selector: str, files: list[Path]) -> None:
    """Chooses files in a field, as the file dialog does."""
    found = page.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
    page.call("DOM.setFileInputFiles", files=[str(one) for one in files], objectId=found["result"]["objectId"])


def test_own_pictures_are_a_second_way_in(page: Browser, address: str, tmp_path: Path) -> None:
    ask(page, KNOWN, 4)
    answered(page)
    root = f"{address}v1/predictions/{page.js('location.hash').split('&job=')[1]}/molecules/0/pictures"
    chosen: dict[str, list[Path]] = {"compound": [], "control": []}
    for row, files in chosen.items():
        for draw in range(4):
            files.append(tmp_path / f"{row}{draw}.ome.tiff")
            files[-1].write_bytes(httpx.get(f"{root}/{draw}?row={row}&format=ome-tiff").raise_for_status().content)
    page.click("#tab-own")
    files_in(page, "#own-compound", chosen["compound"])
    files_in(page, "#own-control", chosen["control"])
    page.until("document.getElementById('own-control-says').textContent.includes('4 files')")
    page.type("#own-channels", "DNA,ER,RNA,AGP")  # one too few
    page.click("#own-go")
    page.until(shown("#own-problem"))
    assert "channel" in text(page, "#own-problem")
    page.type("#own-channels", "DNA, ER, RNA, AGP, Mito")
    page.click("#own-allow")
    page.click("#own-go")
    page.until(shown("#own-answer"))
    assert page.js("document.querySelectorAll('#own-fields tbody tr').length") == 8
    assert "own control pictures" in text(page, "#own-control-text")
    assert text(page, "#own-moa tbody tr:first-child th").startswith("alpha")  # the class of the pictures' compound
    links = page.js(
        "Promise.all([...document.querySelectorAll('#own-links a')].map((a) => fetch(a.href).then((r) => r.ok)))"
    )
    assert links == [True] * 3


def test_the_page_fits_a_phone(page: Browser) -> None:
    try:
        page.resize(390, 844, phone=True)
        assert page.js("document.documentElement.scrollWidth") <= 390
        ask(page, KNOWN, 3)
        answered(page)
        assert page.js("document.documentElement.scrollWidth") <= 390
        page.click("#tab-own")
        assert page.js("document.documentElement.scrollWidth") <= 390
    finally:
        page.resize(1280, 900)


NAMELESS = """(() => {
  const words = (one) => one && one.textContent.trim();
  const named = (one) => one.getAttribute('aria-label') || words(one)
    || (one.tagName === 'IMG' && one.hasAttribute('alt'))
    || [...(one.labels || [])].some(words)
    || (one.getAttribute('aria-labelledby') || '').split(' ').some((id) => words(document.getElementById(id)));
  return [...document.querySelectorAll('button, a[href], input, select, textarea, [role=img], summary, img')]
    .filter((one) => one.checkVisibility() && !named(one)).map((one) => one.outerHTML.slice(0, 100));
})()"""


def test_everything_that_can_be_used_has_a_name(page: Browser) -> None:
    assert page.js(NAMELESS) == []
    ask(page, KNOWN, 3)
    answered(page)
    page.until(shown("#heat-section"))
    page.until("document.getElementById('settle-n').textContent === '3 of 3'")
    assert page.js(NAMELESS) == []
    ids = page.js("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    heard = [one for one in tree if not one.get("ignored")]
    roles = {(one.get("role", {}).get("value"), one.get("name", {}).get("value")) for one in heard}
    assert ("slider", "Draws used") in roles
    assert ("button", "Paint") in roles
    assert any(role == "image" and "95 % interval over draws" in (name or "") for role, name in roles)
    assert any(role == "button" and "Enlarge" in (name or "") for role, name in roles)


def test_a_key_is_asked_for_and_stays_out_of_every_address(browser: Browser, tmp_path: Path) -> None:
    _, key = Keys(tmp_path / "keys.json").add("a tester")
    url, stop = serve(tmp_path, auth="required")
    try:
        browser.open("about:blank")
        browser.open(url)
        browser.until("document.getElementById('key').open")
        browser.type("#key-text", "dopaint_wrong")
        browser.key("Enter")
        browser.until("document.getElementById('key').open && document.getElementById('key-says').textContent")
        browser.type("#key-text", key)
        browser.key("Enter")
        browser.until("document.getElementById('version')?.textContent")
        ask(browser, KNOWN, 2)
        answered(browser)
        assert key not in browser.js("location.href")
        assert key not in browser.js("JSON.stringify(performance.getEntriesByType('resource').map((one) => one.name))")
        assert key not in browser.js("JSON.stringify(localStorage)")
    finally:
        stop()
