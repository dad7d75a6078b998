"""The page in Chromium, opened from its file; skipped where that is not installed, but never in CI."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

PHONE, DESK = 390, 1280
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """A Chromium with its own profile that logs its messages and requests."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        if os.environ.get("HEADSWEEP_REQUIRE_BROWSER"):
            pytest.fail("HEADSWEEP_REQUIRE_BROWSER is set, but chromium or chromedriver is not installed")
        pytest.skip("no chromium and chromedriver (Debian: chromium, chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield started
    started.quit()


def open_page(browser, page: Path, width: int, scheme: str = "light") -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(page.as_uri())


def color_of(browser, selector: str, name: str) -> str:
    script = "return getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])"
    return browser.execute_script(script, selector, name)


@pytest.mark.slow
def test_the_page_makes_no_requests_and_logs_no_errors(browser, study_file):
    open_page(browser, study_file, DESK)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [it["params"] for it in messages if it["method"] == "Network.requestWillBeSent"]
    page = study_file.as_uri()
    assert [it["request"]["url"] for it in requests if it["documentURL"] == page] == [page]
    assert browser.get_log("browser") == []
    assert browser.title == "pilot · headsweep"


def test_the_content_security_policy_blocks_scripts(browser, study_file, tmp_path):
    spoiled = tmp_path / "spoiled.html"
    (tmp_path / "other.js").write_text("")
    spoiled.write_text(study_file.read_text().replace("<main>", '<main><script src="other.js"></script>'))
    open_page(browser, spoiled, DESK)
    messages = [entry["message"] for entry in browser.get_log("browser")]
    assert len(messages) == 1 and "Content Security Policy" in messages[0]


@pytest.mark.slow
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_only_tables_are_wider_than_the_screen_and_they_scroll_by_themselves(browser, study_file, width):
    open_page(browser, study_file, width)
    assert browser.execute_script("return innerWidth") == width
    root = "const root = document.documentElement; return root.scrollWidth <= root.clientWidth"
    assert browser.execute_script(root)
    outside = """return [...document.querySelectorAll("body *")].filter(
        it => !it.closest(".scroll table, svg") && it.getBoundingClientRect().right > innerWidth + 0.5).length"""
    assert browser.execute_script(outside) == 0
    tables = "return [...document.querySelectorAll('.scroll')].map(it => it.scrollWidth > it.clientWidth)"
    assert browser.execute_script(tables)[0] is (width == PHONE)


def test_the_first_columns_stay_in_view_while_numbers_scroll(browser, study_file):
    open_page(browser, study_file, PHONE)
    places = browser.execute_script("""
        const box = document.querySelector(".scroll"), row = box.querySelector("tbody tr");
        box.scrollLeft = 10000;
        return [box, row.cells[0], row.cells[1], row.cells[2]].map(it => it.getBoundingClientRect().left)""")
    box, head, heads, first = places
    assert box <= head < heads
    assert first < box


def test_dark_mode_changes_background_text_and_lines(browser, study_file):
    seen = []
    for scheme in ("light", "dark"):
        open_page(browser, study_file, DESK, scheme)
        line = color_of(browser, "svg [style*='--series-1']", "stroke") + color_of(browser, "svg text", "fill")
        seen.append((color_of(browser, "body", "background-color"), color_of(browser, "body", "color"), line))
    assert all(light != dark for light, dark in zip(*seen, strict=True))
    assert seen[0][0] == "rgb(255, 255, 255)"


def test_on_a_phone_names_fit_and_the_difference_is_in_view_without_scrolling(browser, study_file):
    open_page(browser, study_file, PHONE)
    heights, names, right, box = browser.execute_script("""
        const box = document.querySelector("#table .scroll"), rows = [...box.querySelectorAll("tbody tr")];
        const title = [...box.querySelectorAll("thead th")].findIndex(it => it.textContent.startsWith("Δ"));
        return [rows.map(it => it.offsetHeight), rows.map(it => it.cells[0].scrollWidth <= it.cells[0].clientWidth),
                Math.max(...rows.map(it => it.cells[title].getBoundingClientRect().right)),
                box.getBoundingClientRect().right]""")
    assert max(heights) - min(heights) <= 1 and all(names)  # a name that breaks makes its row higher
    assert right <= box


@pytest.mark.slow
def test_a_table_that_scrolls_has_a_shadow_at_its_edge(browser, study_file):
    open_page(browser, study_file, PHONE)
    shadows = color_of(browser, "#table .scroll", "background-image").count("linear-gradient")
    assert shadows == 3 and color_of(browser, "#table .scroll", "background-attachment").startswith("local, scroll")
    assert color_of(browser, "#table tbody td:last-child", "background-color") == "rgba(0, 0, 0, 0)"
