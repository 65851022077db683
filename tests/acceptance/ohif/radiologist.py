"""A radiologist at OHIF: Chromium opens a study, its overlay and its report, and says what is seen and held."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

from tests.external import find_program

# WebGL in software: the machine has no screen.
_FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
_CANVAS = '[data-cy="viewport-pane"] canvas'
_TEXT_SERIES = '[data-cy="study-browser-thumbnail-no-image"]'
_PATIENCE_MS = 60_000
_PAINTED = 2_000  # pixels; the marks that the viewer writes over the picture are fewer

_HELD = """() => {
  const { cache, metaData } = window.cornerstone;
  const segmentation = window.services.segmentationService.getSegmentations()[0];
  const { imageIds, referencedImageIds } = segmentation.representationData.Labelmap;
  const slices = imageIds.map((imageId, place) => {
    const source = referencedImageIds[place];
    const { columns } = metaData.get('imagePlaneModule', source);
    const held = cache.getImage(imageId);
    const voxels = held.voxelManager?.getScalarData?.() ?? held.getPixelData();
    const sums = [0, 0, 0];
    voxels.forEach((value, index) => {
      if (value) {
        sums[0] += 1;
        sums[1] += index % columns;
        sums[2] += Math.floor(index / columns);
      }
    });
    return [source.match(/instances\\/([0-9.]+)/)[1], sums];
  });
  return { labels: Object.values(segmentation.segments).map((segment) => segment.label), slices };
}"""
"""What the viewer's engine holds of the segmentation: for each slice its voxels, their columns and rows added up."""

_IS_LOADED = """() => window.services?.segmentationService?.getSegmentations?.().some((segmentation) =>
  segmentation.representationData?.Labelmap?.imageIds?.length)"""

_JUMP = """(index) => {
  const { cornerstoneViewportService, viewportGridService } = window.services;
  const viewport = cornerstoneViewportService.getCornerstoneViewport(viewportGridService.getActiveViewportId());
  return window.cornerstone.utilities.jumpToSlice(viewport.element, { imageIndex: index });
}"""

_TOGGLE = """() => {
  const { segmentationService, viewportGridService } = window.services;
  const viewport = viewportGridService.getActiveViewportId();
  segmentationService.getSegmentationRepresentations(viewport).forEach(({ segmentationId, type }) =>
    segmentationService.toggleSegmentationRepresentationVisibility(viewport, { segmentationId, type }));
}"""


@dataclass(frozen=True)
class Overlay:
    """What the viewer holds of a segmentation.

    slices: in the viewer's order, the SOP Instance UID of the CT and the segmentation's voxels on it, their column
    indices added up, their row indices added up.
    """

    labels: list[str]
    slices: list[tuple[str, tuple[int, int, int]]]

    @property
    def sums(self) -> dict[str, tuple[int, int, int]]:
        """By SOP Instance UID, of slices that are not empty."""
        return {instance: sums for instance, sums in self.slices if sums[0]}

    @property
    def busiest(self) -> int:
        """The place of the slice with most voxels."""
        return max(range(len(self.slices)), key=lambda place: self.slices[place][1][0])


class Radiologist:
    """Looks at one study. problems: what the browser complained of; hosts: whom it asked."""

    def __init__(self, page: Page, pictures: Path) -> None:
        """pictures: the folder for screenshots."""
        self._page, self._pictures = page, pictures
        self.problems: list[str] = []
        self.hosts: set[str] = set()
        page.on("pageerror", lambda error: self.problems.append(f"page: {error}"))
        page.on("response", lambda r: self.problems.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def open_study(self, viewer: str, study_uid: str) -> None:
        """Until the CT is on the screen."""
        self._page.goto(f"{viewer}/viewer?StudyInstanceUIDs={study_uid}", wait_until="domcontentloaded")
        tour = self._page.get_by_text("Skip all").first
        self._page.add_locator_handler(tour, lambda: tour.click())  # it comes some seconds later, over everything
        self._page.locator('[data-cy="study-browser-thumbnail"]').first.wait_for(timeout=_PATIENCE_MS)
        self._until("the CT is on the screen", lambda: _count(self._look(), coloured=False) > 20_000)

    def open_overlay(self) -> Overlay:
        """Double-click the SEG and agree to load it; what the viewer then holds."""
        self._series("SEG").dblclick()
        self._page.locator('[data-cy="yes-hydrate-btn"]').click(timeout=_PATIENCE_MS)
        self._page.wait_for_function(_IS_LOADED, timeout=_PATIENCE_MS)
        held = self._page.evaluate(_HELD)
        return Overlay(held["labels"], [(instance, tuple(sums)) for instance, sums in held["slices"]])

    def is_painted(self, overlay: Overlay) -> bool:
        """Whether colour appears on the slice with most of it, and goes when the overlay is hidden."""
        self._page.evaluate(_JUMP, overlay.busiest)
        self._until("colour on the CT", lambda: _count(self._look(), coloured=True) > _PAINTED)
        shown = _count(self._look(), coloured=True)
        self._page.screenshot(path=self._pictures / "overlay.png")
        self._page.evaluate(_TOGGLE)
        self._until("the colour goes", lambda: _count(self._look(), coloured=True) < shown - _PAINTED)
        self._page.evaluate(_TOGGLE)
        return True

    def listed_segments(self) -> list[str]:
        """The rows of the segmentation panel."""
        self._page.locator('[data-cy="panelSegmentation-btn"]').click()
        rows = self._page.locator('[data-cy="data-row"]')
        rows.first.wait_for(timeout=_PATIENCE_MS)
        return rows.all_inner_texts()

    def read_report(self, words: str) -> str:
        """Double-click the SR; the text of the page once it has the words."""
        self._series("SR").dblclick()
        report = self._page.locator('[data-cy="viewport-pane"]').first
        report.get_by_text(words).first.wait_for(timeout=_PATIENCE_MS)
        self._page.screenshot(path=self._pictures / "report.png")
        return report.inner_text()

    def give_up(self) -> None:
        """A picture of what is on the screen."""
        self._page.screenshot(path=self._pictures / "given-up.png")

    def _series(self, modality: str) -> Locator:
        return self._page.locator(_TEXT_SERIES).filter(has_text=modality).first

    def _look(self) -> np.ndarray:
        png = self._page.locator(_CANVAS).first.screenshot()
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)

    def _until(self, what: str, is_so: Any) -> None:
        for _ in range(_PATIENCE_MS // 500):
            if is_so():
                return
            self._page.wait_for_timeout(500)
        self.give_up()
        raise AssertionError(f"never: {what}")


@contextmanager
def radiologist(pictures: Path) -> Iterator[Radiologist]:
    """At a small screen, which is quickly drawn."""
    chromium = find_program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        reader = Radiologist(browser.new_page(viewport={"width": 1200, "height": 760}), pictures)
        try:
            yield reader
        except BaseException:
            reader.give_up()
            raise
        finally:
            browser.close()


def _count(picture: np.ndarray, *, coloured: bool) -> int:
    """Pixels that have a colour, or are grey and not dark."""
    has_colour = np.ptp(picture, axis=2) > 25
    return int(np.count_nonzero(has_colour if coloured else ~has_colour & (picture.max(axis=2) > 40)))
