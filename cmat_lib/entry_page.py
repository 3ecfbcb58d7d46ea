"""The entry page of a run: headline scores, pages with thumbnails of their figures, parameters, environment.

One HTML file without scripts. Thumbnails are inside it; a click opens the figure in full size from the run folder.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from cmat_lib.plots.evaluation import metric_name, score_name
from cmat_lib.run import STAGE_NAMES, Run
from cmat_lib.schema import SECTIONS, Config

THUMBNAIL = (440, 330)  # pixels, twice what is shown, for screens of high density
PAGES = {
    "01_data_prep": ("Data", "Candles, channels, labels, and how time is split."),
    "02_tda_cache": (
        "Topology and complexity",
        "From a window of prices to its shape in numbers, and both over time.",
    ),
    "03_model_build": ("Model", "Every part with its parameters, and checks before training."),
    "04_training": ("Training", "Loss, curves, threshold, calibration."),
    "05_evaluation": (
        "Evaluation",
        "Scores beside their baselines, with intervals; whether acting on it would have paid.",
    ),
    "06_attention_visualization": (
        "Attention",
        "What it looks at, moment by moment, and what may be concluded from that.",
    ),
}
STYLE = """
:root { --ink: #1c1e21; --soft: #5a6068; --paper: #ffffff; --card: #f5f6f8; --line: #d9dce1; --accent: #0072b2 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --soft: #a3a9b2; --paper: #14161a; --card: #1e2127; --line: #363b44; --accent: #56b4e9 }
}
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper) }
body { max-width: 72rem; margin: 0 auto; padding: 2rem 1.5rem 4rem }
h1 { margin: 0; font-size: 1.9rem } h2 { margin: 2.5rem 0 .5rem; font-size: 1.25rem }
h3 { margin: 0; font-size: 1.05rem }
p { margin: .3rem 0 } .soft { color: var(--soft) } a { color: var(--accent) }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .35rem 1.2rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { font-weight: 600; color: var(--soft) } tr.own td { font-weight: 600 }
td small { display: block; color: var(--soft); font-weight: 400; white-space: nowrap }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; margin: 1rem 0 }
section h3 a { text-decoration: none }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(12.5rem, 1fr)); gap: .8rem; margin: .8rem 0 }
figure { margin: 0 }
figure img { width: 100%; height: 9rem; object-fit: contain; background: #fff; border-radius: .3rem }
figure img { border: 1px solid var(--line) }
figcaption { font-size: .8rem; color: var(--soft); overflow-wrap: anywhere }
summary { cursor: pointer } pre { background: var(--card); padding: 1rem; overflow: auto; border-radius: .4rem }
"""


def entry_page(run: Run) -> str:
    """HTML of the entry page."""
    name = html.escape(run.folder.name)
    parts = [_header(run), _scores(run), "<h2>Pages</h2>", *(_page(run, stage) for stage in STAGE_NAMES)]
    parts += [_parameters(run), _environment(run)]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>CMAT · {name}</title><style>{STYLE}</style>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def _header(run: Run) -> str:
    config = run.config
    source = config.data.data_dir or "the synthetic market"
    target = {
        "percent": f"at least {config.labels.threshold_pct:g} %",
        "sigma": f"at least {config.labels.threshold_sigma:g} standard deviations",
        "triple_barrier": f"{config.labels.upper_pct:g} % before it falls {config.labels.lower_pct:g} %",
    }[config.labels.mode]
    return (
        f"<h1>CMAT · {html.escape(run.folder.name)}</h1><p class=soft>Does the price rise {target} within the next "
        f"{config.labels.horizon} candles? Candles of {config.data.timeframe} of {html.escape(str(source))}.</p>"
    )


def _scores(run: Run) -> str:
    """Scores of the test part, a line per score column; the model's own line first."""
    if not run.is_finished("05_evaluation"):
        return "<h2>Scores</h2><p>Not evaluated yet with these parameters.</p>"
    stored = run.read_json("metrics.json")
    shares = run.config.evaluation.top_shares
    top = f"precision_top_{100 * shares[len(shares) // 2]:g}"
    columns = [
        ("roc_auc", "pooled"),
        ("roc_auc", "within"),
        ("pr_auc", "pooled"),
        (top, "pooled"),
        ("brier_skill", "pooled"),
    ]
    cells = {(row["score"], row["metric"], row["scope"]): row for row in stored["scores"]}
    names = list(dict.fromkeys(row["score"] for row in stored["scores"]))
    titles = [
        f"{metric_name(metric)}<br>{'within symbols' if scope == 'within' else scope}" for metric, scope in columns
    ]
    lines = [_line(score_name(name), [cells[name, *column] for column in columns], name == names[0]) for name in names]
    paired = {(row["baseline"], row["metric"], row["scope"]): row for row in stored["differences"]}
    for name in [name for name in names if (name, *columns[0]) in paired]:
        lines.append(_line(f"model − {score_name(name)}", [paired[name, *column] for column in columns], False, "+"))
    base_rate = cells[names[0], "base_rate", "pooled"]["value"]
    return (
        f"<h2>Scores on the test part</h2><p class=soft>Base rate of triggers {base_rate:.1%}. Below each number its "
        f"block-bootstrap interval of {run.config.evaluation.confidence:.0%}; differences are paired. Chance is 0.5 "
        f"for ROC-AUC, the base rate for PR-AUC and precision, 0 for skill.</p><div class=wide><table><tr><th></th>"
        f"{''.join(f'<th>{title}</th>' for title in titles)}</tr>{''.join(lines)}</table></div>"
    )


def _line(name: str, rows: Iterable[Mapping[str, Any]], own: bool, sign: str = "") -> str:
    cells = "".join(f"<td>{_number(row, sign)}</td>" for row in rows)
    return f"<tr{' class=own' if own else ''}><td>{html.escape(name)}</td>{cells}</tr>"


def _number(row: Mapping[str, Any], sign: str) -> str:
    if row["value"] is None:
        return "–"
    text = f"{row['value']:{sign}.3f}"
    return text if row["low"] is None else f"{text}<small>{row['low']:{sign}.3f} to {row['high']:{sign}.3f}</small>"


def _page(run: Run, stage: str) -> str:
    """Card of one page: link, what it tells, thumbnails of its pictures, links to its interactive figures."""
    title, text = PAGES[stage]
    label = f"{stage.partition('_')[0]} · {title}"
    done = run.is_finished(stage) and run.path(f"report/{stage}.html").is_file()
    heading = f'<a href="{stage}.html">{label}</a>' if done else f"{label} (not run with these parameters)"
    record = run.record(stage) if done else None
    names = [Path(name) for name in (record or {}).get("artefacts", {}) if name.startswith("figures/")]
    pictures = "".join(_thumbnail(run, name) for name in names if name.suffix == ".png")
    live = ", ".join(f'<a href="../{n}">{_caption(n)}</a>' for n in names if n.suffix == ".html")
    live = f"<p class=soft>To hover and zoom: {live}</p>" if live else ""
    time = f" <span class=soft>{record['seconds']:.0f} s</span>" if record else ""
    return f"<section><h3>{heading}</h3><p>{text}{time}</p><div class=figures>{pictures}</div>{live}</section>"


def _caption(name: Path) -> str:
    return html.escape(name.stem.replace("_", " "))


def _thumbnail(run: Run, name: Path) -> str:
    with Image.open(run.path(str(name))) as picture:
        small = picture.convert("RGB")
    small.thumbnail(THUMBNAIL)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    source = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    image = f'<img src="{source}" alt="{_caption(name)}">'
    return f'<figure><a href="../{name}">{image}</a><figcaption>{_caption(name)}</figcaption></figure>'


def changed_parameters(config: Config) -> dict[str, tuple[Any, Any]]:
    """Parameters that differ from their defaults.

    Returns
    -------
    dict
        ``section.key`` -> (value, default).
    """
    own, plain = config.model_dump(mode="json"), Config().model_dump(mode="json")
    changed = {}
    for name, value in own.items():
        pairs = {f"{name}.{k}": (v, plain[name][k]) for k, v in value.items()} if name in SECTIONS else {}
        changed |= {key: pair for key, pair in (pairs or {name: (value, plain[name])}).items() if pair[0] != pair[1]}
    return changed


def _parameters(run: Run) -> str:
    changed = changed_parameters(run.config)
    rows = "".join(
        f"<tr><td><code>{key}</code></td><td>{_value(value)}</td><td class=soft>{_value(default)}</td></tr>"
        for key, (value, default) in changed.items()
    )
    text = html.escape(run.path("params.yaml").read_text(encoding="utf-8"))
    table = f"<div class=wide><table><tr><th>parameter</th><th>here</th><th>default</th></tr>{rows}</table></div>"
    return (
        f"<h2>Parameters</h2><p class=soft>{len(changed)} differ from the defaults.</p>{table if changed else ''}"
        f"<details><summary>All of them (params.yaml)</summary><pre>{text}</pre></details>"
    )


def _value(value: Any) -> str:
    return html.escape(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _environment(run: Run) -> str:
    stored = run.read_json("environment.json")
    flat = {key: value for key, value in stored.items() if key != "packages"} | stored["packages"]
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(str(v))}</td></tr>" for k, v in flat.items())
    return f"<h2>Environment</h2><details><summary>Versions and machine</summary><table>{rows}</table></details>"
