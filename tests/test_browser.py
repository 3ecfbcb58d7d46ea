"""The pages in a browser without a network: nothing breaks, and the explorer of page 06 answers slider and click."""

import json
import os
import shutil
import socket
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from cmat_lib.config import project_root
from cmat_lib.workflow.run import STAGE_NAMES

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
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no network
    "--window-size=1250,1000",
)
# The explorer is the figure with a slider; its last trace is a map of the chosen moment.
EXPLORER = "return [...document.querySelectorAll('.js-plotly-plot')].find(p => p.layout.sliders)"
DRAWN = "return [...document.querySelectorAll('.js-plotly-plot')].filter(p => p.querySelector('.main-svg')).length"
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
    path = report.parent / f"{page}.html"
    browser.get(path.as_uri())
    places = path.read_text(encoding="utf-8").count('class="plotly-graph-div"')
    # On a busy machine a large page is still being read when the browser says that it is there.
    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(DRAWN) == places, f"of {places} figures")
    broken = browser.execute_script("return [...document.images].filter(i => i.complete && !i.naturalWidth).length")
    assert problems(browser) == [] and broken == 0
    assert places > 0 or page == "index"


def explorer(browser, page):
    """The explorer of a page, its upper part in the window."""
    browser.get(page.as_uri())
    WebDriverWait(browser, 10).until(lambda driver: driver.execute_script(EXPLORER))
    plot = browser.execute_script(EXPLORER)
    browser.execute_script("arguments[0].scrollIntoView({block: 'start'})", plot)
    return plot


def click_moments(browser, plot):
    """Click at two places on the price and on the lines; each must show the moment that is nearest in time."""
    moments = pd.to_datetime(browser.execute_script("return arguments[0].layout.meta.moments", plot))
    before = browser.execute_script(STATE, plot)
    for subplot in ("x2y", "xy2"):
        plane = plot.find_element(By.CSS_SELECTOR, f".draglayer > .{subplot} .nsewdrag")
        for share in (0.31, 0.62):
            offset = round((share - 0.5) * plane.rect["width"])
            top = 3 - int(plane.rect["height"] / 2)  # just below the upper edge, where there need not be a line
            ActionChains(browser).move_to_element_with_offset(plane, offset, top).click().perform()
            WebDriverWait(browser, 5).until(lambda d, old=before: d.execute_script(STATE, plot)["map"] != old["map"])
            after = browser.execute_script(STATE, plot)
            low, high = pd.to_datetime(after["range"])
            nearest = moments[np.abs(moments - (low + share * (high - low))).argmin()]
            assert pd.Timestamp(after["cursor"]) == nearest
            assert f"{nearest:%Y-%m-%d %H:%M}" in after["label"] and after["close"] != before["close"]
            before = after


@pytest.mark.parametrize("page", ["report/06_attention_visualization.html", "figures/attention_explorer.html"])
def test_a_click_chooses_the_nearest_moment(browser, smoke, page):
    folder, _, _ = smoke
    plot = explorer(browser, folder / "run" / page)
    click_moments(browser, plot)
    before = browser.execute_script(STATE, plot)
    heat = plot.find_element(By.CSS_SELECTOR, ".draglayer > .x6y6 .nsewdrag")
    ActionChains(browser).move_to_element(heat).click().perform()
    assert browser.execute_script(STATE, plot) == before, "a map is no place in time"
    assert problems(browser) == []


def test_slider_chooses_a_moment_and_the_menu_a_token(browser, smoke):
    _, report, _ = smoke
    plot = explorer(browser, report.parent / "06_attention_visualization.html")
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
    WebDriverWait(browser, 5).until(lambda driver: driver.execute_script(STATE, plot)["shown"] != after["shown"])
    assert len(browser.execute_script(STATE, plot)["shown"]) == len(after["shown"])
    assert problems(browser) == []


@pytest.fixture
def lab(tmp_path):
    """Address of a JupyterLab over a folder of its own, and the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        "--IdentityProvider.token=",
        f"--notebook-dir={tmp_path}",
    ]
    folders = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR")}
    environment = {**os.environ, **folders, "PYTHONPATH": str(project_root())}
    command = [sys.executable, "-m", "jupyter", "lab", "--LabApp.expose_app_in_browser=True", *options]
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    yield f"http://127.0.0.1:{port}/lab/tree", tmp_path
    server.terminate()
    server.wait(30)


@pytest.mark.long
def test_a_click_chooses_a_moment_in_jupyterlab(browser, smoke, lab):
    folder, _, _ = smoke
    address, work = lab
    page = nbformat.read(folder / "run/notebooks/06_attention_visualization.ipynb", as_version=4)
    outputs = next(cell.outputs for cell in page.cells if cell.id == "explorer")
    figure = next(o.data for o in outputs if "application/vnd.plotly.v1+json" in o.get("data", {}))
    stored = figure["application/vnd.plotly.v1+json"]
    (work / "figure.json").write_text(json.dumps({key: stored[key] for key in ("data", "layout", "frames")}))
    source = "import plotly.io as pio\nfrom cmat_lib.plots.explorer import click_script\n"
    source += "display(pio.read_json('figure.json'), click_script())"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(source)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), work / "page.ipynb")

    wait = WebDriverWait(browser, 60, ignored_exceptions=[WebDriverException])
    wait.until(lambda driver: driver.get(f"{address}/page.ipynb") is None)  # until the server answers
    wait.until(lambda d: d.execute_script("return window.jupyterapp && document.querySelector('.jp-Cell')"))
    browser.execute_async_script(
        "const done = arguments[0], {sessionContext} = window.jupyterapp.shell.currentWidget;"
        "sessionContext.ready.then(() => window.jupyterapp.commands.execute('notebook:run-all-cells')).then(done)"
    )
    wait.until(lambda driver: driver.execute_script(EXPLORER))
    plot = browser.execute_script(EXPLORER)
    browser.execute_script("arguments[0].scrollIntoView({block: 'start'})", plot)
    click_moments(browser, plot)
