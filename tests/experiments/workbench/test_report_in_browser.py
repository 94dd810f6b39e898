"""A report in a real browser: Chromium without a window, driven by Playwright. Skipped where either is missing."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.workbench.reporting.page import make_report
from tests.experiments.workbench.reported_runs import PNG, make_run

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

EVIL = "runs/<img src=x onerror=alert(1)>"
# The WCAG contrast of every text with its background, worst first: [ratio, text].
CONTRASTS = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (element) => {
    const colour = numbers(getComputedStyle(element).backgroundColor);
    return colour.length === 4 && colour[3] === 0 ? ground(element.parentElement) : colour;
  };
  const found = [];
  for (const element of document.querySelectorAll("body *, .chart text")) {
    const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join("");
    if (!text || !element.getClientRects().length || element.closest("script")) continue;
    const style = getComputedStyle(element);
    const of_text = numbers(element instanceof SVGElement ? style.fill : style.color);
    const both = [luminance(of_text), luminance(ground(element.closest(".chart") ?? element))];
    found.push([(Math.max(...both) + 0.05) / (Math.min(...both) + 0.05), text]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """Two runs, one of them with a name that a careless page would run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("reports"))
        paths = [make_run("runs/a", files={"exploration.png": PNG}), make_run(EVIL, seed=1, better=1.0)]
        out = Path("report.html").resolve()
        make_report(list(map(str, paths)), out)
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, report) -> Iterator[Any]:
    """A function that opens the report at a width and in a theme, with all runs and charts shown; no error is made."""
    said: list[str] = []
    pages = []

    def open_page(width: int = 1280, theme: str = "light") -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        pages.append(page)
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: None if request.url[:5] in ("file:", "data:") else said.append(request.url))
        page.goto(report.as_uri())
        for summary in page.query_selector_all("details.run > summary"):
            summary.click()
        for chart in page.query_selector_all(".chart"):
            chart.scroll_into_view_if_needed()
        page.wait_for_function(
            "[...document.querySelectorAll('.chart')].every((chart) => chart.querySelector('.main-svg'))"
        )
        return page

    yield open_page
    for page in pages:
        page.close()
    assert said == []


@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (1280, "light")])
def test_every_chart_is_drawn_and_every_text_can_be_read(opened, width, theme):
    page = opened(width, theme)
    marks = page.eval_on_selector_all(
        ".chart", "all => all.map((chart) => chart.querySelectorAll('.trace, .heatmaplayer image, .point').length)"
    )
    assert len(marks) == 19
    assert min(marks) > 0
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 300
    assert contrasts[0][0] >= 4.5, contrasts[:5]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator(".chart:not([aria-labelledby])").count() == 0


def test_tables_sort_and_charts_tell_values_and_follow_the_theme_and_the_printer(opened):
    page = opened()
    scores = page.locator("table").first.locator("tbody tr td:nth-child(7)")
    button = page.locator("table").first.locator("th button", has_text="last point")
    before = [float(text) for text in scores.all_inner_texts()]
    for order in (sorted(before), sorted(before, reverse=True)):
        button.click()
        assert [float(text) for text in scores.all_inner_texts()] == order
    chart = page.locator("details .chart").first
    chart.scroll_into_view_if_needed()
    chart.hover(position={"x": 120, "y": 120})
    page.wait_for_selector(".hoverlayer .legend text")
    assert "rl2 : " in str(page.locator(".hoverlayer .legend").text_content()).replace("\xa0", " ")

    def line() -> str:  # of the agent, over which only the recipe's expectation lies
        return chart.evaluate("found => [...found.querySelectorAll('.js-line')].at(-2).style.stroke")

    assert line() == "rgb(31, 95, 168)"
    page.emulate_media(color_scheme="dark")
    assert line() == "rgb(127, 178, 234)"
    page.evaluate("document.querySelector('details.run').open = false; dispatchEvent(new Event('beforeprint'))")
    assert (line(), page.locator("details.run:not([open])").count()) == ("rgb(31, 95, 168)", 0)
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert (line(), page.locator("details.run:not([open])").count()) == ("rgb(127, 178, 234)", 1)


def test_a_link_in_the_list_of_runs_opens_the_run(browser, report):
    page = browser.new_page()
    page.goto(report.as_uri())
    page.locator("a[href='#run-2']").click()
    assert page.evaluate("document.getElementById('run-2').open")
    assert not page.evaluate("document.getElementById('run-1').open")
    page.close()
