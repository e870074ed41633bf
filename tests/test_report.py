"""The report against a synthetic run folder: smooth made-up numbers, no model is trained here."""

import json
import math
import re

import numpy as np
import pytest
from report_cases import BETAS, Page, grid, write_run
from scipy import stats

from spikevae._text import shown, signed, span
from spikevae.cli import main
from spikevae.plot.style import colour, marker
from spikevae.reporting import build_report, headline
from spikevae.reporting.answer import sides, statements
from spikevae.reporting.findings import findings
from spikevae.reporting.sections import all_figures, answer_figure
from spikevae.reporting.summary import leading
from spikevae.sweep.families import Family
from spikevae.sweep.reading import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three families, two sizes, four betas, three seeds and two starts; and the published recipe."""
    folder = tmp_path_factory.mktemp("runs") / "synthetic"
    laws = ("poisson", "rectified_gaussian", "gaussian")
    own = ("own", grid(laws, seeds=(0, 1, 2)))
    published = ("published", grid(laws[:2], seeds=(0, 1, 2), starts=(-5.0,), recipe="paper"))
    folder = write_run(folder, [published, own])
    calls = []
    page = build_report(folder, progress=lambda done, total, text: calls.append((done, total, text)))
    assert page == folder / "report.html" and calls[-1][0] == calls[-1][1]
    assert [c[0] for c in calls] == sorted(c[0] for c in calls)
    return folder


@pytest.fixture
def page_only(monkeypatch):
    """Leave out the static figures, where only the page and the sentences are asked about."""
    monkeypatch.setattr("spikevae.reporting.figures.write_figures", lambda run, folder, figures, advance: {})


@pytest.fixture(scope="module")
def page(run):
    return Page((run / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sentences(run):
    return statements(read_run(run))


def data_of(page):
    return next(json.loads(s) for s in page.scripts if s.startswith("{"))


def test_page_is_one_small_offline_file(run, page):
    for tag, attributes in page.tags:
        for key in ("src", "href", "data", "poster", "srcset"):
            address = attributes.get(key) or ""
            assert not address or address.startswith(("data:", "#")), f"<{tag} {key}={address[:60]}>"
    assert not any(tag == "link" for tag, _ in page.tags)
    css = next(s for s in page.scripts if s.startswith(":root"))
    assert "url(" not in css and "@import" not in css
    assert len(page.ids) == len(set(page.ids))
    links = {a["href"][1:] for _, a in page.tags if a.get("href", "").startswith("#")}
    assert links <= set(page.ids)
    assert (run / "report.html").stat().st_size < 2e6


def test_page_is_accessible(page):
    images = [a for tag, a in page.tags if tag == "img" or a.get("role") == "img"]
    assert images and all(a.get("alt") or a.get("aria-label") for a in images)
    assert any(a.get("class") == "skip" for _, a in page.tags)
    assert any(tag == "html" and a.get("lang") == "en" for tag, a in page.tags)


def test_every_section_and_figure_is_there(run, page):
    figures = {
        "sparsity",
        "frontiers",
        "published",
        "families",
        "cost",
        "readout",
        "starts",
        "prior",
        "codes",
        "training",
    }
    for name in (*figures, "answer", "cheapest", "dictionaries", "reconstructions", "statistics", "cells", "run"):
        assert name in page.ids
    names = {p.stem for p in (run / "figures").glob("*.png")}
    assert figures <= names
    assert any(n.startswith("dictionary_") for n in names) and any(n.startswith("reconstruction_") for n in names)
    assert names == {p.stem for p in (run / "figures").glob("*.svg")}
    charts = [name for name in page.ids if name.startswith("chart-")]
    assert len(charts) > 15 and {"chart-sparsity-0", "chart-sparsity-2", "chart-frontiers-0"} <= set(charts)


def test_the_first_figure_is_of_the_two_laws_of_the_paper(run):
    loaded = read_run(run)
    assert [f.label for f in leading(loaded)] == ["Poisson (own)", "Rectified Gaussian (own)"]
    figure = answer_figure(loaded)[0]
    assert list(figure.labels.values()) == ["Poisson", "Rectified Gaussian"]
    zeros, spikes, r2 = figure.panels
    assert len(zeros.families) == len(r2.families) == 2
    assert [loaded.families[i].law for i in spikes.families] == ["poisson"]


def test_real_valued_codes_have_neither_spikes_nor_joules(run, page):
    loaded = read_run(run)
    real = {f.index for f in loaded.families if not f.is_count}
    for figure in all_figures(loaded):
        for panel in figure.panels:
            words = f"{panel.title} {panel.x.label} {panel.y.label}".lower()
            if "spike" in words or "energy" in words or "joule" in words:
                assert not real.intersection(panel.families), panel.title
    table = data_of(page)["table"]
    labels = [column["label"] for column in table["columns"]]
    for row in table["rows"]:
        known = [row["values"][labels.index(name)] != "" for name in ("spikes", "joules", "firing rate")]
        assert set(known) == {row["values"][0].startswith("Poisson")}


def test_every_family_has_a_colour_and_marker_of_its_own():
    looks = {(colour(f), marker(f)) for f in (Family(i, "poisson", "b", "l", False) for i in range(40))}
    assert len(looks) == 40


def test_lines_carry_their_family_and_size_and_points_their_texts(run, page):
    loaded = read_run(run)
    lines = [a for tag, a in page.tags if tag == "g" and "data-family" in a]
    assert {int(a["data-family"]) for a in lines} == {f.index for f in loaded.families}
    assert {a["data-size"] for a in lines} == {"8", "16"}
    assert all((a.get("class") == "off") == (a["data-size"] == "8") for a in lines)
    texts = data_of(page)["texts"]
    used = {int(a["data-t"]) for tag, a in page.tags if tag == "use" and "data-t" in a}
    assert used == set(range(len(texts)))
    assert any("K = 16, β = 0.1" in text and "spikes per unit" in text for text in texts)


def test_one_row_a_fit_with_its_flag(run, page):
    cells = read_run(run).cells
    assert len(cells) == 2 * 4 * 3 * (3 * 2 + 2)
    rows = [a for tag, a in page.tags if tag == "tr" and "data-flag" in a]
    assert [a["data-flag"] for a in rows] == [c.check.flag for c in cells]


def test_numbers_of_the_statistics_equal_independent_ones(run, sentences):
    """Slope and t interval of the best starts from the files alone, with SciPy."""
    raw = [json.loads(p.read_text()) for p in sorted((run / "cells").glob("*.json"))]
    chosen: dict[tuple[int, float], dict] = {}
    for cell in raw:
        config = cell["config"]
        if cell["block"] == "own" and config["latent"] == "poisson" and config["n_latents"] == 16:
            key = (config["seed"], config["beta"])
            if key not in chosen or cell["fit_objective"] < chosen[key]["fit_objective"]:
                chosen[key] = cell
    slopes = []
    for seed in (0, 1, 2):
        zeros = [chosen[seed, beta]["metrics"]["fraction_zeros"] for beta in BETAS]
        slopes.append(stats.linregress(np.log10(BETAS), zeros).slope)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(slopes), scale=stats.sem(slopes))
    expected = f"fraction of zeros +{shown(np.mean(slopes))} (+{shown(low)} to +{shown(high)})"
    lead = [line for line in sentences if line.startswith("Best of starts: Poisson (own)")]
    assert len(lead) == 1 and expected in lead[0]
    assert "95% t interval over 3 seeds" in lead[0]
    r2 = [np.mean([chosen[seed, beta]["metrics"]["r2_pooled"] for seed in (0, 1, 2)]) for beta in (0.01, 8.0)]
    assert f"R² meanwhile goes from {shown(r2[0])} to {shown(r2[1])}" in lead[0]


def test_claim_counts_sizes_and_sides(run, page, sentences):
    lines = sentences
    claims = [line for line in lines if "“raising β" in line]
    assert [line.split(",")[0] for line in claims] == ["Published recipe", "Best of starts"]
    assert all("holds for means over seeds at both latent sizes" in line for line in claims)
    assert sum("rectified Gaussian control" in line for line in lines) == 2
    assert sum("fits behind this" in line for line in lines) == 2
    assert "not a sample of natural images" in page.words
    for line in claims:
        assert line in page.words
    assert [side.title for side in sides(read_run(run))] == ["Published recipe", "Best of starts"]


def test_convergence_counts(run, sentences):
    cells = read_run(run).cells
    flags = {
        flag: sum(c.check.flag == flag for c in cells) for flag in ("converged", "not converged", "rate not identified")
    }
    line = next(line for line in sentences if line.startswith("Of "))
    assert line.startswith(f"Of {len(cells)} fits")
    for flag, count in flags.items():
        assert not count or f"{count} {flag}" in line


def test_undefined_numbers_are_dashes(page):
    text = page.words
    assert "nan" not in text.lower().replace("nanoj", "").split() and "None" not in text.split()
    assert not any("nan" in str(value).lower() for _, a in page.tags for value in a.values())


def test_hostile_text_stays_text(tmp_path):
    attack = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }} $x_{$"
    configs = grid(("poisson",), sizes=(8,), betas=(0.1, 1.0), seeds=(0,), starts=(0.5,))
    other = grid(("poisson",), sizes=(8,), betas=(0.1, 1.0), seeds=(1,), starts=(0.5,))
    folder = write_run(tmp_path / "r", [(attack, configs), ("b", other)], models=False, name=attack)
    (folder / "data.json").write_text(json.dumps({"description": attack, "name": attack, "info": {"citation": attack}}))
    text = build_report(folder).read_text(encoding="utf-8")
    parsed = Page(text)
    assert "alert(1)" not in "".join(s for s in parsed.scripts if not s.startswith("{"))
    assert not any(a.get("onerror") for _, a in parsed.tags)
    assert attack in parsed.words.replace("  ", " ") and "49" not in parsed.words.split(attack)[0]
    assert len([1 for tag, _ in parsed.tags if tag == "script"]) == 2


def test_a_single_fit_still_makes_a_page(tmp_path):
    configs = grid(("gaussian",), sizes=(8,), betas=(1.0,), seeds=(0,), starts=(0.5,))
    folder = write_run(tmp_path / "one", [("own", configs)])
    parsed = Page(build_report(folder).read_text(encoding="utf-8"))
    assert "one β only, so no trend" in parsed.words
    assert "no trend" in headline(folder)[0]
    assert "starts" not in parsed.ids


def test_scratch_files_of_a_report_that_was_killed_are_removed(tmp_path, page_only):
    configs = grid(("gaussian",), sizes=(8,), betas=(1.0,), seeds=(0,), starts=(0.5,))
    folder = write_run(tmp_path / "one", [("own", configs)], models=False)
    (folder / "figures").mkdir()
    others = [folder / "cells" / "a.json.0.tmp", folder / "figures" / "notes.txt"]  # of a sweep at work, of a person
    left = [folder / "report.html.0123.tmp", folder / "figures" / "cost.png.4567.tmp"]
    for path in (*others, *left):
        path.touch()
    build_report(folder)
    assert [path.exists() for path in (*others, *left)] == [True, True, False, False]


def test_one_seed_one_family_one_size(tmp_path):
    folder = write_run(
        tmp_path / "few", [("own", grid(("poisson",), sizes=(8,), seeds=(0,), starts=(0.5,)))], models=False
    )
    (folder / "examples.npy").unlink()
    assert any("regression over β, one seed" in line for line in statements(read_run(folder)))
    Page(build_report(folder).read_text(encoding="utf-8"))


def test_spike_prices_are_families_of_the_second_figure(tmp_path, page_only):
    configs = [c for price in (0.0, 0.1) for c in grid(("poisson",), sizes=(8,), seeds=(0, 1), spike_price=price)]
    folder = write_run(tmp_path / "price", [("own", configs)], models=False)
    loaded = read_run(folder)
    assert [f.label for f in loaded.families] == ["Poisson", "Poisson (spike price 0.1)"]
    assert [f.label for f in leading(loaded)] == ["Poisson"]
    parsed = Page(build_report(folder).read_text(encoding="utf-8"))
    lines = [a for tag, a in parsed.tags if tag == "button" and "data-family" in a]
    assert {a["data-family"] for a in lines} == {"0", "1"}
    assert "For R² of " in headline(folder)[2] and "spike price 0.1" in headline(folder)[2]


def test_a_run_without_the_published_recipe_compares_the_lowest_start(tmp_path):
    folder = write_run(tmp_path / "own", [("own", grid(("poisson",), sizes=(8,)))], models=False)
    low, best = sides(read_run(folder))
    assert (low.title, best.title) == ("Lowest start only", "Best of starts")
    cells = read_run(folder)
    assert all(c.start == -5.0 for c in cells.low) and all(c.start == 0.5 for c in cells.best)


def test_diverged_fits_are_left_out_of_trends(tmp_path, page_only):
    folder = write_run(tmp_path / "bad", [("own", grid(("poisson",), sizes=(8,), starts=(0.5,)))], models=False)
    path = sorted((folder / "cells").glob("*.json"))[0]
    cell = json.loads(path.read_text())
    cell |= {"diverged": True, "fit_objective": None, "objective": None, "metrics": dict.fromkeys(cell["metrics"])}
    path.write_text(json.dumps(cell))
    loaded = read_run(folder)
    assert len(loaded.best) == len(loaded.cells) - 1 and loaded.cells[0].check.flag == "not converged"
    assert len(findings(loaded.best)[0].cells) == 7
    assert any("(1 diverged)" in line for line in statements(read_run(folder)))
    Page(build_report(folder).read_text(encoding="utf-8"))


def test_a_run_without_a_finite_fit_makes_a_page(tmp_path, page_only):
    folder = write_run(tmp_path / "bad", [("own", grid(("poisson",), (8,), seeds=(0,), starts=(0.5,)))], models=False)
    for path in (folder / "cells").glob("*.json"):
        cell = json.loads(path.read_text())
        cell |= {"diverged": True, "fit_objective": None, "objective": None, "metrics": dict.fromkeys(cell["metrics"])}
        path.write_text(json.dumps(cell))
    assert headline(folder)[0] == "No fit of this run can be shown."
    Page(build_report(folder).read_text(encoding="utf-8"))


def test_a_beta_of_zero_has_no_place_in_trends(tmp_path, page_only):
    configs = grid(("poisson",), sizes=(8,), betas=(0.0, 0.1, 1.0), starts=(0.5,))
    folder = write_run(tmp_path / "zero", [("own", configs)], models=False)
    assert findings(read_run(folder).best)[0].betas == (0.1, 1.0)
    build_report(folder)


@pytest.mark.parametrize("damage", ["no folder", "no config", "no cells", "cut cell", "strange cell", "examples"])
def test_a_folder_that_is_no_run_is_named(tmp_path, damage):
    folder = tmp_path / "runs"
    if damage != "no folder":
        write_run(folder, [("own", grid(("poisson",), sizes=(8,), seeds=(0,), starts=(0.5,)))])
    cell = folder / "cells" / f"{0:012x}.json"
    if damage == "no config":
        (folder / "config.json").unlink()
    if damage == "no cells":
        for path in (folder / "cells").iterdir():
            path.unlink()
    if damage == "cut cell":
        cell.write_text(cell.read_text()[:100])
    if damage == "strange cell":
        cell.write_text(json.dumps({"id": f"{0:012x}", "metrics": {}, "block": "b", "config": {"latent": "poisson"}}))
    if damage == "examples":
        (folder / "examples.npy").write_bytes(b"no numbers")
    with pytest.raises((FileNotFoundError, ValueError), match=re.escape(str(folder))):
        build_report(folder)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.5, "0.500"),
        (-0.0123, "−0.0123"),
        (99.96, "100"),
        (1234.5, "1230"),
        (6e-11, "6×10⁻¹¹"),
        (math.nan, "-"),
    ],
)
def test_numbers_for_reading(value, text):
    assert shown(value) == text


def test_the_published_recipe_is_told_how_far_above_ours_its_objective_lies(run):
    """Computed again from the cell files: same law, K, beta and seed; ours from the better start."""
    cells = [json.loads(path.read_text()) for path in (run / "cells").glob("*.json")]
    ours: dict[tuple, float] = {}
    for cell in cells:
        c = cell["config"]
        place = (c["latent"], c["n_latents"], c["beta"], c["seed"])
        if c["recipe"] != "paper":
            ours[place] = min(cell["fit_objective"], ours.get(place, math.inf))
    gaps = []
    for cell in cells:
        c = cell["config"]
        if c["recipe"] == "paper" and c["latent"] == "poisson":
            gaps.append(100 * (cell["fit_objective"] / ours[c["latent"], c["n_latents"], c["beta"], c["seed"]] - 1))
    text = next(line for line in statements(read_run(run)) if "objective beside the best of our starts" in line)
    assert f"poisson {span(gaps)} %, median {signed(float(np.median(gaps)))} %" in text


def test_unidentified_firing_rates_are_told_as_a_factor(tmp_path):
    """Two starts of one objective and firing rates a factor of 40 apart."""
    folder = write_run(tmp_path / "flat", [("own", grid(("poisson",), sizes=(8,), seeds=(0,)))], models=False)
    for path in (folder / "cells").glob("*.json"):
        cell = json.loads(path.read_text())
        cell["fit_objective"] = cell["fit_objective_half"] = 100.0
        cell["metrics"]["firing_rate"] = 0.02 if cell["config"]["start"] < 0 else 0.8
        path.write_text(json.dumps(cell))
    line = next(line for line in statements(read_run(folder)) if line.startswith("Of "))
    assert "rate not identified" in line and "lie up to ×40.0 apart" in line


def test_trends_from_one_start_alone_are_counted(run):
    """Counted again from the cell files: means over seeds, zeros of the Poisson code, each size and start."""
    zeros: dict[tuple, dict[float, list[float]]] = {}
    for path in (run / "cells").glob("*.json"):
        cell = json.loads(path.read_text())
        c = cell["config"]
        if c["latent"] == "poisson" and c["recipe"] != "paper":
            at = zeros.setdefault((c["start"], c["n_latents"]), {}).setdefault(c["beta"], [])
            at.append(cell["metrics"]["fraction_zeros"])
    rising = {
        place: bool((np.diff([np.mean(values[beta]) for beta in sorted(values)]) > 0).all())
        for place, values in zeros.items()
    }
    low, high = (sum(holds for (start, _), holds in rising.items() if start == s) for s in (-5.0, 0.5))
    text = next(line for line in statements(read_run(run)) if "from one start alone" in line)
    assert f"−5 in {low} of 2 cases" in text and f"0.5 in {high} of 2 cases" in text


def test_the_seed_changes_the_sampled_reconstructions_alone(tmp_path, page_only):
    folder = write_run(tmp_path / "seeds", [("own", grid(("poisson",), sizes=(8,), seeds=(0,)))])
    pictures = []
    for seed in (0, 0, 1):
        build_report(folder, seed=seed)
        figures = folder / "figures"
        pictures.append({p.name: p.read_bytes() for p in figures.glob("*.png") if "_0_beta" in p.name})
    assert pictures[0] == pictures[1]
    changed = {name.split("_")[0] for name in pictures[0] if pictures[0][name] != pictures[2][name]}
    assert changed == {"reconstruction"}


def test_the_headline_is_short(run):
    lines = headline(run)
    assert len(lines) == 3 and all(len(line) < 420 for line in lines)
    assert lines[0].startswith("Raising β from 0.01 to 8 (K = 16)") and "rectified Gaussian" in lines[0]


def test_the_command_line_prints_few_lines(run, capsys):
    assert main(["report", str(run)]) == 0
    lines = capsys.readouterr().out.strip().split("\n")
    assert lines == [*headline(run), f"Report: {run / 'report.html'}"] and len(lines) < 5
