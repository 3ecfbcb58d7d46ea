"""The entry page of a run: what it says is what the run holds."""

import re

import pytest
from smoke_run import SMOKE, smoke_config

from cmat_lib.config import load_config
from cmat_lib.workflow.entry_page import PAGES, changed_parameters, entry_page
from cmat_lib.workflow.run import STAGE_NAMES, Run


@pytest.fixture
def page(smoke):
    folder, report, _ = smoke
    return report.read_text(), Run(smoke_config(folder), STAGE_NAMES[-1])


def rows(text):
    """Cells of every table row, without tags; an interval follows its number after a space."""
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr.*?</tr>", text)]
    return {
        row[0]: row[1:] for row in [[re.sub(r"<[^>]+>", " ", cell).strip() for cell in row] for row in cells] if row
    }


def test_scores_stand_with_interval_and_baselines(page):
    text, run = page
    found = rows(text)
    stored = run.read_json("metrics.json")
    for source, key, names in (
        ("scores", "score", {"model": "probability", "volatility alone": "volatility", "boosted trees": "trees"}),
        ("differences", "baseline", {"model − boosted trees": "trees"}),
    ):
        for shown, name in names.items():
            wanted = (name, "roc_auc", "within")
            row = next(r for r in stored[source] if (r[key], r["metric"], r["scope"]) == wanted)
            sign = "+" if source == "differences" else ""
            expected = f"{row['value']:{sign}.3f} {row['low']:{sign}.3f} to {row['high']:{sign}.3f}"
            assert found[shown][1] == expected, shown
    base_rate = next(r["value"] for r in stored["scores"] if r["metric"] == "base_rate")
    assert f"Base rate of triggers {base_rate:.1%}" in text


def test_every_page_and_picture_is_linked_and_there(page):
    text, run = page
    links = re.findall(r'href="([^"]+)"', text)
    assert {f"{stage}.html" for stage in STAGE_NAMES} <= set(links)
    assert all((run.path("report") / link).is_file() for link in links)
    pictures = [n for s in STAGE_NAMES for n in run.record(s).artefacts if n.endswith(".png")]
    assert text.count("data:image/webp;base64,") == len(pictures) >= 20 and f'href="../{pictures[0]}"' in text
    assert "<script" not in text and "http" not in re.sub(r"base64,[^\"]+", "", text) and len(text) < 2_000_000


def test_parameters_that_differ_and_only_these(page):
    text, run = page
    found = rows(text)
    assert found["labels.horizon"] == ["4", "16"] and found["fusion.hidden_dim"] == ["32", "256"]
    assert "labels.threshold_pct" not in found and found["torch"] == [
        run.read_json("environment.json")["packages"]["torch"]
    ]
    changed = changed_parameters(load_config(SMOKE))
    assert changed["data.synthetic_symbols"] == (2, 4) and "seed" not in changed
    assert changed_parameters(load_config(SMOKE, {"seed": 7}))["seed"] == (7, 0)


def test_a_run_that_is_not_evaluated_says_so(page, tmp_path):
    _, run = page
    other = Run(run.config.model_copy(update={"seed": run.config.seed + 1}), STAGE_NAMES[-1])
    text = entry_page(other)
    assert "Not evaluated yet" in text and text.count("not run with these parameters") == 4, "the model and after"
    assert set(PAGES) == set(STAGE_NAMES)
