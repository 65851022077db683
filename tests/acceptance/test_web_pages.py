"""The web interface in a browser: pages that can be read, an overlay on the right voxels, a plot; by keyboard, too."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event, Thread
from urllib.parse import urlsplit

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from dicomnode.arrivals import Patient
from dicomnode.store import watch
from dicomnode.web.server import serve
from tests.clinic import Clinic, fast_model
from tests.external import find_program
from tests.patients import add_five_studies
from tests.phantom import PhantomOptions, scan
from tests.served import take_port

SCANNED = PhantomOptions(shape=(20, 52, 50), spacing_mm=(5.0, 3.0, 4.0))
MIDDLE_HU = 90.0  # between trunk and pancreas


@dataclass(frozen=True)
class Site:
    """A served node. measured: a job with images. studied: a job of the patient with five studies, without."""

    url: str
    measured: int
    studied: int


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    clinic = Clinic(tmp_path_factory.mktemp("node"), web={"port": take_port()})
    model = fast_model(spacing_mm=SCANNED.spacing_mm, patch=SCANNED.shape)
    measured = clinic.measure(model, shape=SCANNED.shape, spacing_mm=SCANNED.spacing_mm)
    with clinic.database.begin() as connection:
        studied = add_five_studies(connection, Patient("P-5", "HOSPITAL"))[0]
        watch.raise_alarm(connection, watch.AlarmKind.DISK, "archive", "0.1 GB free", clinic.now)
    clinic.receive(seed="waits for the worker")
    stop = Event()
    thread = Thread(target=serve, args=(clinic.app(), clinic.settings.web, None, stop), daemon=True)
    thread.start()
    yield Site(f"http://127.0.0.1:{clinic.settings.web.port}", measured, studied)
    stop.set()
    thread.join(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """A page that must neither complain nor ask another machine for anything."""
    page = browser.new_page(base_url=site.url, viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    hosts, complaints = set(), []
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    page.close()
    assert complaints == []
    assert hosts == {"127.0.0.1"}


def look(seen: Locator | Page) -> NDArray[np.int_]:
    """The pixels of a part of the page, RGB."""
    return np.asarray(Image.open(io.BytesIO(seen.screenshot())).convert("RGB")).astype(int)


@pytest.mark.slow
def test_every_page_can_be_read_by_everybody(page: Page, site: Site) -> None:
    paths = ["/", "/jobs", f"/jobs/{site.measured}", f"/jobs/{site.measured}/overlay", "/patients"]
    for path in [*paths, f"/patients/{site.studied}", "/deliveries", "/pulls", "/refusals", "/api"]:
        page.goto(path)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert list_barriers(page) == [], f"{path} in {scheme}"
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (int(ground.split("(")[1].split(",")[0]) < 100) == (scheme == "dark")
        fits = page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert fits, f"{path} is wider than the screen"


def list_barriers(page: Page) -> list[str]:
    """What keeps somebody from using the page, by axe-core's judgement."""
    found = Axe().run(page).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in grave]


def open_overlay(page: Page, site: Site) -> Callable[[int], None]:
    """Open the viewer; what it returns waits until a slice is painted."""

    def wait(number: int) -> None:
        page.wait_for_selector(f"#stage[data-painted='{number}'][aria-busy=false]", timeout=10_000)

    page.goto(f"/jobs/{site.measured}/overlay")
    page.wait_for_selector("#stage[aria-busy=false]")
    return wait


def sample(picture: NDArray[np.int_], rows: int, columns: int) -> NDArray[np.int_]:
    """The colour in the middle of each voxel."""
    high, wide = picture.shape[:2]
    at = [((np.arange(count) + 0.5) * size / count).astype(int) for count, size in ((rows, high), (columns, wide))]
    return picture[np.ix_(*at)]


@pytest.mark.slow
def test_the_overlay_lies_on_the_organ_voxel_for_voxel(page: Page, site: Site) -> None:
    wait = open_overlay(page, site)
    page.get_by_label("Filled").check()
    page.locator("#opacity").fill("100")
    hounsfield = scan(SCANNED)[::-1]  # from the head down
    _, rows, columns = SCANNED.shape
    for number in (9, 7, 12):
        page.locator("#slice").fill(str(number))
        wait(number)
        box = page.locator("#picture").bounding_box()
        assert box is not None
        assert box["width"] / box["height"] == pytest.approx(columns * 4.0 / (rows * 3.0), rel=0.01)
        colours = sample(look(page.locator("#picture")), rows, columns)
        is_gold = (colours[..., 0] > 230) & (colours[..., 2] < 60)
        expected = hounsfield[number - 1] > MIDDLE_HU
        assert expected.any()
        np.testing.assert_array_equal(is_gold, expected)
    page.get_by_label("Hidden").check()
    row, column = np.unravel_index(hounsfield[11].argmax(), (rows, columns))
    page.mouse.move(box["x"] + (column + 0.5) * box["width"] / columns, box["y"] + (row + 0.5) * box["height"] / rows)
    assert page.locator("#value").inner_text() == f"{round(hounsfield[11].max())} HU"
    page.mouse.wheel(0, 120)
    wait(13)
    assert page.locator("#value").inner_text() == f"{round(hounsfield[12][row, column])} HU"
    page.mouse.wheel(0, -120)
    wait(12)
    greys = sample(look(page.locator("#picture")), rows, columns)[..., 0]
    window = np.clip((hounsfield[11] - 39.5) / 399 + 0.5, 0, 1) * 255
    assert np.abs(greys - window).mean() < 3  # smoothed between voxels


@pytest.mark.slow
def test_the_viewer_is_steered_by_keys_wheel_and_mouse(page: Page, site: Site) -> None:
    wait = open_overlay(page, site)
    last = SCANNED.shape[0]
    for key, number in (("End", last), ("ArrowUp", last - 1), ("Home", 1), ("PageDown", 11), ("ArrowDown", 12)):
        page.keyboard.press(key)
        wait(number)
    assert page.locator("#slice").input_value() == "12"
    assert page.locator("#said").inner_text().startswith("Slice 12 of 20, F 7.5 mm")
    page.locator("#stage").hover()
    page.mouse.wheel(0, -120)
    wait(11)
    page.locator("#strip").click(position={"x": 2, "y": 5})
    wait(1)
    before = look(page.locator("#picture"))
    page.get_by_role("button", name="Lung").click()
    assert page.locator("#level").input_value() == "-600"
    assert np.abs(look(page.locator("#picture")) - before).mean() > 20
    page.get_by_role("button", name="Pancreas").last.click()
    wait(int(page.locator("#viewer").get_attribute("data-start") or 0))
    assert int((page.locator("#zoom").inner_text()).split()[0]) > 150
    page.locator("#stage").focus()
    page.keyboard.press("h")
    assert not page.locator("#mask").is_visible()
    page.keyboard.press("h")
    assert page.locator("#mask").is_visible()
    width = page.locator("#width").input_value()
    page.mouse.move(400, 400)
    page.mouse.down()
    page.mouse.move(460, 400)
    page.mouse.up()
    assert page.locator("#width").input_value() == str(int(width) + 120)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_plot_is_seen_and_steered_by_keys(page: Page, site: Site, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(f"/patients/{site.studied}")
    marks = page.locator("#plot .mark")
    assert marks.count() == 5
    colours = [tuple(look(mark.locator(".shape"))[3:-3, 3:-3].mean(axis=(0, 1)).round()) for mark in marks.all()]
    ground = look(page.locator("#plot"))[2, 2]
    assert all(np.abs(np.array(colour) - ground).max() > 60 for colour in colours[:2])
    assert np.abs(np.array(colours[0]) - np.array(colours[4])).max() > 60  # two models
    marks.nth(0).focus()
    assert page.locator("#facts").inner_text().startswith("2019-01-01 08:00: 80.0 mL")
    for told in ("2020-01-01 08:00: 84.0 mL", "Marked as invalid: outlined the stomach", "at least 50.0 mL"):
        page.keyboard.press("ArrowRight")
        assert told in page.locator("#facts").inner_text()
    page.keyboard.press("Escape")
    assert page.locator("#facts").is_hidden()
    marks.nth(4).hover()
    assert "+10.0 mL (+20.0 %) since 2022-01-01: not comparable" in page.locator("#facts").inner_text()
    assert "-20.0 mL (-25.0 %) since 2019-01-01: not comparable" in page.locator("#facts").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url("**/overlay")


@pytest.mark.slow
def test_a_slice_that_cannot_be_had_is_said_to_be_missing_and_the_picture_fades(page: Page, site: Site) -> None:
    open_overlay(page, site)
    page.route("**/slices/20", lambda route: route.fulfill(status=204))
    page.keyboard.press("End")
    page.wait_for_selector("#trouble:not(:empty)")
    assert page.locator("#stage").get_attribute("aria-busy") == "true"
    page.keyboard.press("Home")
    page.wait_for_selector("#stage[data-painted='1'][aria-busy=false]")
    assert page.locator("#trouble").inner_text() == ""
