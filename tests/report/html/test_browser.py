"""The page in Chromium, opened from its file; skipped where that is not installed, but never in CI."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import ActionChains, Keys

pytestmark = pytest.mark.slow

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


def test_a_table_that_scrolls_has_a_shadow_at_its_edge(browser, study_file):
    open_page(browser, study_file, PHONE)
    shadows = color_of(browser, "#table .scroll", "background-image").count("linear-gradient")
    assert shadows == 3 and color_of(browser, "#table .scroll", "background-attachment").startswith("local, scroll")
    assert color_of(browser, "#table tbody td:last-child", "background-color") == "rgba(0, 0, 0, 0)"


def column(browser, at: int) -> list[str]:
    """The texts of a column of the comparison, from top to bottom."""
    script = "return [...document.querySelectorAll('#table tbody tr')].map(row => row.cells[arguments[0]].textContent)"
    return browser.execute_script(script, at)


def numbers(texts: list[str]) -> list[float]:
    words = [text.split(" ")[0].replace("\N{MINUS SIGN}", "-") for text in texts]
    return [float(word) for word in words if re.match(r"[-+]?\d", word)]


def test_a_click_sorts_a_column_the_next_reverses_it_and_the_third_restores_the_order_of_the_plan(browser, study_file):
    open_page(browser, study_file, DESK)
    titles = browser.find_elements("css selector", "#table thead th")
    at = next(at for at, title in enumerate(titles) if title.text.startswith("Δ"))
    planned = column(browser, 0)
    button = titles[at].find_element("tag name", "button")
    for order, is_reversed in (("descending", True), ("ascending", False)):
        button.click()
        shown = column(browser, at)
        assert titles[at].get_attribute("aria-sort") == order
        assert numbers(shown) == sorted(numbers(shown), reverse=is_reversed) and len(numbers(shown)) == 6
        assert shown[6:] == ["baseline"] * 3  # what has no number is last in both orders
    button.click()
    assert titles[at].get_attribute("aria-sort") is None and column(browser, 0) == planned


def test_columns_are_sorted_by_keyboard_and_texts_alphabetically(browser, study_file):
    open_page(browser, study_file, PHONE)
    browser.execute_script("document.querySelector('#table th button').focus()")
    for order, is_reversed in (("ascending", False), ("descending", True)):
        browser.switch_to.active_element.send_keys(Keys.ENTER)
        assert column(browser, 0) == sorted(column(browser, 0), reverse=is_reversed)
        assert browser.find_element("css selector", "#table th").get_attribute("aria-sort") == order


def test_a_mark_shows_its_number_to_the_pointer_and_to_the_keyboard(browser, study_file):
    open_page(browser, study_file, DESK)
    tip, marks = browser.find_element("class name", "tip"), browser.find_elements("css selector", "#accuracy .mark")
    assert not tip.is_displayed()
    for mark in (marks[0], marks[-1]):
        ActionChains(browser).move_to_element(mark).perform()
        assert tip.is_displayed() and tip.text == mark.get_attribute("aria-label")
        box, place = tip.rect, mark.rect
        assert box["y"] + box["height"] <= place["y"] or box["y"] >= place["y"] + place["height"]
    ActionChains(browser).move_to_element(browser.find_element("css selector", "#table h2")).perform()
    assert not tip.is_displayed()
    assert [mark.get_attribute("tabindex") for mark in marks] == ["0"] + ["-1"] * (len(marks) - 1)
    browser.execute_script("arguments[0].focus()", marks[0])
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert browser.switch_to.active_element == marks[1] and tip.text == "seqpool, 4 heads: 92.20 ± 0.50 %"
    assert [mark.get_attribute("tabindex") for mark in marks[:2]] == ["-1", "0"]
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()


def test_a_number_is_within_the_screen_of_a_phone_and_a_tap_keeps_it(browser, study_file):
    open_page(browser, study_file, PHONE)
    tip = browser.find_element("class name", "tip")
    for at in (0, -1):
        mark = browser.find_elements("css selector", "#differences .mark")[at]
        ActionChains(browser).click(mark).perform()
        assert browser.switch_to.active_element == mark and tip.is_displayed()
        left, right = browser.execute_script(
            "const box = arguments[0].getBoundingClientRect(); return [box.left, box.right]", tip
        )
        assert 0 <= left < right <= PHONE


def test_the_page_is_complete_without_scripts(browser, study_file):
    script = "return document.querySelector('main').innerText"
    open_page(browser, study_file, DESK)
    text = browser.execute_script(script).split()
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        open_page(browser, study_file, DESK)
        assert not browser.find_elements("css selector", "th button")
        assert browser.find_elements("css selector", ".mark title")
        assert browser.find_element("tag name", "main").text.split() == text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
