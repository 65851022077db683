"""Pages that fetch themselves again, in a browser whose clock the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from dicomnode.store import queue
from dicomnode.web.server import serve
from tests.clinic import Clinic
from tests.external import find_program
from tests.served import take_port

EVERY_MS = 4000


@pytest.fixture
def page() -> Iterator[Page]:
    program = find_program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.clock.install()
        yield page
        browser.close()


@pytest.mark.slow
def test_a_page_follows_the_node_and_leaves_alone_what_somebody_types(page: Page, tmp_path: Path) -> None:
    clinic, stop, port = Clinic(tmp_path), Event(), take_port()
    web = clinic.settings.web.model_copy(update={"port": port})
    thread = Thread(target=serve, args=(clinic.app(), web, None, stop))
    thread.start()
    try:
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.get_by_text("The queue is empty.")).to_be_visible()
        page.evaluate("window.isTheSamePage = true")
        job_id = clinic.receive(attributes={"SeriesDescription": "Abdomen"})
        page.clock.fast_forward(EVERY_MS)
        expect(page.get_by_role("link", name="Abdomen")).to_be_visible()
        assert page.evaluate("window.isTheSamePage")

        with clinic.database.begin() as connection:
            held = queue.claim(connection, "me", clinic.now, 60)
            assert held
            queue.refuse(connection, held, "a slice is missing", clinic.now)
        page.goto(f"http://127.0.0.1:{port}/jobs/{job_id}")
        page.get_by_label("Your name").fill("Dr. Exam")
        with clinic.database.begin() as connection:
            queue.requeue(connection, job_id, clinic.now)
        page.clock.fast_forward(EVERY_MS)
        expect(page.locator("#job .state").first).to_have_text("queued")
        expect(page.get_by_label("Your name")).to_have_value("Dr. Exam")
        expect(page.get_by_label("Your name")).to_be_focused()
        page.get_by_role("button", name="Requeue").focus()
        page.clock.fast_forward(EVERY_MS)
        expect(page.get_by_role("button", name="Requeue")).to_have_count(0)
    finally:
        stop.set()
        thread.join(20)
    page.clock.fast_forward(EVERY_MS)
    expect(page.get_by_role("status")).to_have_text("The node does not answer. What is shown is not up to date.")
