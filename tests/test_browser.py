"""The exported pages in a browser without a network: nothing breaks, and the explorer of page 06 answers its slider."""

import shutil

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from cmat_lib.run import STAGE_NAMES

pytestmark = pytest.mark.browser
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no network
    "--window-size=1250,1000",
)
# The explorer is the figure with a slider; its last trace is a map of the chosen moment.
EXPLORER = "return [...document.querySelectorAll('.js-plotly-plot')].find(p => p.layout.sliders)"
STATE = """
const plot = arguments[0], traces = plot._fullData, candle = traces.find(t => t.type == 'candlestick');
const cursor = plot.data[traces.indexOf(candle) - 1];
return {label: plot.querySelector('.slider-label').textContent, cursor: String(cursor.x[0]),
        close: [...candle.close], map: traces[traces.length - 1].z.map(row => [...row]),
        shown: traces.filter(t => t.yaxis == 'y2' && t.visible === true).map(t => [...t.y].slice(0, 3)),
        range: [...plot.layout.xaxis.range]}
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if None in found.values():
        pytest.skip("no chromium and chromedriver on the PATH (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = found["chromium"]
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found["chromedriver"]))
    yield driver
    driver.quit()


def problems(browser):
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


@pytest.mark.parametrize("page", ["index", *STAGE_NAMES])
def test_page_opens_without_a_network_and_without_errors(browser, smoke, page):
    _, report, _ = smoke
    browser.get((report.parent / f"{page}.html").as_uri())
    plots = browser.execute_script("return document.querySelectorAll('.js-plotly-plot').length")
    empty = browser.execute_script(
        "return [...document.querySelectorAll('.js-plotly-plot')].filter(p => !p.querySelector('.main-svg')).length"
    )
    broken = browser.execute_script("return [...document.images].filter(i => i.complete && !i.naturalWidth).length")
    assert problems(browser) == [] and empty == 0 and broken == 0
    assert plots > 0 or page == "index"


def test_slider_chooses_a_moment_and_the_menu_a_token(browser, smoke):
    _, report, _ = smoke
    browser.get((report.parent / "06_attention_visualization.html").as_uri())
    WebDriverWait(browser, 10).until(lambda driver: driver.execute_script(EXPLORER))
    plot = browser.execute_script(EXPLORER)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    before = browser.execute_script(STATE, plot)

    rail = plot.find_element(By.CSS_SELECTOR, ".slider-rail-touch-rect")
    left = -rail.rect["width"] // 2 + 4
    ActionChains(browser).move_to_element_with_offset(rail, left, 0).click().perform()
    WebDriverWait(browser, 5).until(lambda driver: driver.execute_script(STATE, plot)["close"] != before["close"])
    after = browser.execute_script(STATE, plot)
    assert after["label"] != before["label"] and after["cursor"] < before["cursor"], "the first moment, not the last"
    assert after["cursor"][:16].replace("T", " ") in after["label"], "cursor and label name one moment"
    assert after["map"] != before["map"]
    np.testing.assert_allclose(np.sum(after["map"], axis=1), 1, atol=1e-3)

    plot.find_element(By.CSS_SELECTOR, ".updatemenu-header").click()
    buttons = plot.find_elements(By.CSS_SELECTOR, ".updatemenu-dropdown-button")
    assert [button.text for button in buttons] == [
        f"weights {name}" for name in ("to the output", "from nbeats", "from tda", "from complexity", "from clock")
    ]
    buttons[1].click()
    chosen = browser.execute_script(STATE, plot)
    assert len(chosen["shown"]) == len(after["shown"]) and chosen["shown"] != after["shown"]
    assert problems(browser) == []
