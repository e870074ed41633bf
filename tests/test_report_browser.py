"""The report in a real browser: layout at three widths, toggles, table and keyboard."""

import csv
import shutil

import pytest
from report_cases import grid, write_path, write_run

from spikevae.reporting import build_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

WIDTHS = {1280: 800, 768: 1024, 390: 844}
SMALL_TEXT = """() => {
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement, chart = element.closest("svg.chart");
    if (!walk.currentNode.textContent.trim() || !element.getClientRects().length) continue;
    const scale = chart ? chart.getBoundingClientRect().width / chart.viewBox.baseVal.width : 1;
    const size = parseFloat(getComputedStyle(element).fontSize) * scale;
    if (size < 12) found.push(`${size} ${walk.currentNode.textContent}`);
  }
  return found;
}"""
CUT_OFF = """() => [...document.querySelectorAll("svg.chart")].flatMap((chart) => {
  const box = chart.getBoundingClientRect();
  return [...chart.querySelectorAll("text")].filter((text) => {
    const own = text.getBoundingClientRect();
    return own.left < box.left - 1 || own.right > box.right + 1 || own.top < box.top - 1 || own.bottom > box.bottom + 1;
  }).map((text) => `${chart.id}: ${text.textContent}`);
})"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A run of four families at two latent sizes, one with a spike price and one with the published recipe."""
    laws = ("poisson", "rectified_gaussian")
    blocks = [
        ("own", grid(laws, seeds=(0, 1))),
        ("priced", grid(("poisson",), seeds=(0, 1), starts=(-5.0,), spike_price=0.1)),
        ("published", grid(("poisson",), seeds=(0, 1), starts=(-5.0,), recipe="paper")),
    ]
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", blocks)
    write_path(folder, "poisson", 16, 1.0)
    return build_report(folder)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(report, browser):
    """Opens the page at a width; errors and warnings of its scripts fail the test."""
    pages, problems = [], []

    def open_at(width=1280):
        page = browser.new_page(viewport={"width": width, "height": WIDTHS[width]})
        page.on("console", lambda line: problems.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(report.as_uri())
        pages.append(page)
        return page

    yield open_at
    for page in pages:
        page.close()
    assert not problems


def open_folds(page):
    page.evaluate("document.querySelectorAll('details.fold').forEach((fold) => { fold.open = true; })")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_its_width_and_its_text_is_readable(opened, width):
    page = opened(width)
    assert page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") < 2000
    open_folds(page)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.evaluate(SMALL_TEXT) == []
    assert page.evaluate(CUT_OFF) == []


def test_the_first_screen_has_answer_verdict_and_figure(opened):
    page = opened()
    for place in (".answer", ".verdict", "#sparsity"):
        box = page.locator(place).bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 800
    assert page.locator("#sparsity svg.chart").count() == 3
    lines = page.locator("main > section :is(p, figcaption)").evaluate_all(
        "(all) => all.map((p) => p.getBoundingClientRect().height / parseFloat(getComputedStyle(p).lineHeight))"
    )
    assert len(lines) >= 5 and max(lines) < 3.5


def visible(page, figure):
    """(family, size) of the lines that are shown in a figure."""
    shown = page.locator(f"#{figure} svg.chart g[data-family]:not(.off)").evaluate_all(
        "(lines) => lines.map((line) => [line.dataset.family, line.dataset.size])"
    )
    return {tuple(line) for line in shown}


def test_keys_work_by_keyboard_and_touch_their_figure_alone(opened):
    page = opened()
    assert visible(page, "sparsity") == {("0", "16"), ("1", "16")}
    other = visible(page, "frontiers")
    first = page.locator("#sparsity .families button").first
    first.focus()
    page.keyboard.press("Enter")
    assert visible(page, "sparsity") == {("1", "16")} and first.get_attribute("aria-pressed") == "false"
    page.keyboard.press("Shift+Enter")
    assert visible(page, "sparsity") == {("0", "16")}
    page.keyboard.press("Shift+Enter")
    assert visible(page, "sparsity") == {("0", "16"), ("1", "16")}
    page.locator("#sparsity .sizes input:checked").focus()
    page.keyboard.press("ArrowLeft")
    assert visible(page, "sparsity") == {("0", "8"), ("1", "8")}
    assert visible(page, "frontiers") == other


def test_a_double_click_isolates_a_family(opened):
    page = opened()
    button = page.locator("#frontiers .families button").nth(1)
    button.dblclick()
    assert {family for family, _ in visible(page, "frontiers")} == {button.get_attribute("data-family")}
    button.dblclick()
    assert len({family for family, _ in visible(page, "frontiers")}) == 4


def test_points_say_what_they_are(opened):
    page = opened()
    mark = page.locator("#sparsity use[data-t]").first
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    tip = page.locator("#tip")
    assert tip.is_visible() and "K = 16, β = 0.01" in tip.inner_text() and "R²" in tip.inner_text()
    page.mouse.move(2, 2)
    assert tip.is_hidden()


@pytest.mark.parametrize("width", WIDTHS)
def test_one_drawing_of_spikes_fits_the_width(opened, width):
    """A large one on wide screens, one of the usual size on narrow ones; both with the path, which says its price."""
    page = opened(width)
    charts = page.locator("#frontiers .leads svg.chart")
    assert [chart.is_visible() for chart in charts.all()] == ([True, False] if width == 390 else [False, True])
    chart = charts.nth(0 if width == 390 else 1)
    assert chart.locator("g[data-family='0'][data-size='16']:not(.off)").count() == 4  # markers and lines of both
    mark = chart.locator("use[data-t]").last
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    assert "spike price 1.00 nats" in page.locator("#tip").inner_text()


def column(page, index):
    return page.locator("#table tbody tr:not([hidden])").evaluate_all(
        f"(rows) => rows.map((r) => r.cells[{index}].innerText)"
    )


def test_the_table_sorts_by_keyboard(opened):
    page = opened()
    open_folds(page)
    heads = page.locator("#table thead th")
    assert heads.count() == 10
    heads.nth(4).locator("button").focus()
    page.keyboard.press("Enter")
    rising = [float(text.replace("−", "-")) for text in column(page, 4)]
    assert rising == sorted(rising) and heads.nth(4).get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    falling = [float(text.replace("−", "-")) for text in column(page, 4)]
    assert falling == sorted(falling, reverse=True)
    heads.nth(6).locator("button").press("Enter")
    spikes = column(page, 6)
    assert "-" in spikes and spikes.index("-") == len(spikes) - spikes.count("-")  # undefined ones come last


def test_the_table_searches_columns_and_saves_what_it_shows(opened, tmp_path):
    page = opened()
    open_folds(page)
    page.select_option("#field", label="β")
    page.fill("#filter", ">0.05")
    assert set(column(page, 2)) == {"0.1", "1", "8"}
    page.select_option("#field", label="family")
    page.fill("#filter", "priced")
    assert set(column(page, 0)) == {"Poisson (priced)"}
    assert page.locator("#count").inner_text().startswith("16 of ")
    page.check("#more")
    assert page.locator("#table thead th").count() > 25
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "fits.csv")
    with (tmp_path / "fits.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 17 and {row[0] for row in rows[1:]} == {"Poisson (priced)"}
    assert len(rows[0]) == page.locator("#table thead th").count() and "K (latent units)" in rows[0]


def test_the_first_column_stays_in_sight(opened):
    page = opened(390)
    open_folds(page)
    page.evaluate("document.querySelector('#cells .scroll').scrollLeft = 400")
    cell = page.locator("#table tbody tr th").first.bounding_box()
    assert 0 <= cell["x"] < 40


def test_links_open_the_fold_they_point_into(opened):
    page = opened()
    page.evaluate("location.hash = '#table'")
    page.wait_for_function("document.getElementById('cells').open")
