"""The report of a run: the executed pages as HTML and one entry page, readable without a network."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import HTMLExporter

from cmat_lib.files import write_text
from cmat_lib.plots.evaluation import score_name
from cmat_lib.run import STAGE_NAMES, Run

# nbconvert and Plotly's renderer link to require.js, MathJax and mermaid; no page needs them.
_REMOTE_SCRIPT = re.compile(r"<script[^>]*\bsrc=[\"']https?://[^>]*>\s*</script>")
_MERMAID = re.compile(r"<script type=\"module\">(?:(?!</script>).)*?mermaid.*?</script>", re.DOTALL)
_REMOTE_LINK = re.compile(r"<link[^>]*\bhref=[\"']https?://[^>]*>")
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
body { color: #222; background: #fff }
table { border-collapse: collapse }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #ddd }
td.number { text-align: right; font-variant-numeric: tabular-nums }
img { max-width: 100% } pre { background: #f6f6f6; padding: 1rem; overflow: auto }
.pages { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; padding: 0 }
.pages a { display: block; border: 1px solid #ddd; border-radius: .4rem; padding: .8rem }
.pages a { text-decoration: none; color: inherit }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818 } th, td { border-color: #444 } pre { background: #242424 }
  .pages a { border-color: #444 } img { background: #fff }
}
"""


def write_page(notebook: Path, target: Path) -> None:
    """Export an executed notebook to one HTML file that loads nothing from the network.

    Parameters
    ----------
    notebook : Path
        Executed notebook.
    target : Path
        HTML file to write.
    """
    body, _ = HTMLExporter(embed_images=True).from_notebook_node(nbformat.read(notebook, as_version=4))
    write_text(target, offline(body))


def offline(page: str) -> str:
    """Page without the scripts and links that would be fetched from the network."""
    for pattern in (_REMOTE_SCRIPT, _MERMAID, _REMOTE_LINK):
        page = pattern.sub("", page)
    return page


def write_report(run: Run) -> Path:
    """Write ``report/index.html``: headline scores beside their baselines, links to the pages, parameters, environment.

    Parameters
    ----------
    run : Run

    Returns
    -------
    Path
        The page.
    """
    path = run.path("report/index.html")
    parts = [_header(run), _scores(run), _pages(run), _figures(run)]
    for title, name in (("Parameters", "params.yaml"), ("Environment", "environment.json")):
        text = html.escape(run.path(name).read_text(encoding="utf-8"))
        parts.append(f"<details><summary>{title}</summary><pre>{text}</pre></details>")
    name = html.escape(run.folder.name)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>CMAT · {name}</title><style>{_STYLE}</style>'
    write_text(path, head + "\n".join(parts) + "</html>")
    return path


def _header(run: Run) -> str:
    config = run.config
    source = config.data.data_dir or "synthetic market"
    return (
        f"<h1>CMAT · {html.escape(run.folder.name)}</h1>"
        f"<p>{html.escape(source)}, candles of {config.data.timeframe}; does the price rise far enough within "
        f"{config.labels.horizon} candles?</p>"
    )


def _scores(run: Run) -> str:
    if not run.is_finished("05_evaluation"):
        return "<p>Not evaluated yet with these parameters.</p>"
    stored = run.read_json("metrics.json")["scores"]
    rows = [row for row in stored if row["metric"] == "roc_auc"]
    base_rate = next(row["value"] for row in stored if row["metric"] == "base_rate")
    names = list(dict.fromkeys(row["score"] for row in rows))
    cells = {(row["score"], row["scope"]): _with_interval(row) for row in rows}
    lines = [
        f'<tr><td>{html.escape(score_name(name))}</td><td class="number">{cells[name, "pooled"]}</td>'
        f'<td class="number">{cells[name, "within"]}</td></tr>'
        for name in names
    ]
    return (
        f"<h2>ROC-AUC on the test part</h2><p>Base rate of triggers {base_rate:.1%}; block-bootstrap intervals "
        f"of {run.config.evaluation.confidence:.0%}.</p>"
        f"<table><tr><th>score</th><th>pooled</th><th>within symbols</th></tr>{''.join(lines)}</table>"
    )


def _with_interval(row: dict[str, Any]) -> str:
    if row["low"] is None:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _pages(run: Run) -> str:
    links = []
    for stage in STAGE_NAMES:
        number, _, title = stage.partition("_")
        label = f"<b>{number}</b> {html.escape(title.replace('_', ' '))}"
        exists = run.path(f"report/{stage}.html").is_file()
        links.append(f'<a href="{stage}.html">{label}</a>' if exists else f"<a>{label} (not run)</a>")
    return f'<h2>Pages</h2><div class="pages">{"".join(links)}</div>'


def _figures(run: Run) -> str:
    """Pictures of the finished stages; the folder may hold older ones."""
    finished = [run.record(stage)["artefacts"] for stage in STAGE_NAMES if run.is_finished(stage)]
    pictures = [Path(name) for artefacts in finished for name in artefacts if name.endswith(".png")]
    images = [f'<p><img loading="lazy" src="../{path}" alt="{html.escape(path.stem)}"></p>' for path in pictures]
    return f"<h2>Figures</h2>{''.join(images)}" if images else ""
