"""The entry page of a run, ``report/index.html``: one file without scripts, from the template `entry_page.html`."""

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from cmat_lib.config import Config
from cmat_lib.evaluation.names import metric_name, score_name
from cmat_lib.workflow.fingerprints import flat_parameters
from cmat_lib.workflow.run import STAGE_NAMES, Run

_TOLD = (  # title of each page, and what it tells
    ("Data", "Candles, channels, labels, and how time is split."),
    ("Topology and complexity", "From a window of prices to its shape in numbers, and both over time."),
    ("Model", "Every part with its parameters, and checks before training."),
    ("Training", "Loss, curves, threshold, calibration."),
    ("Evaluation", "Scores beside their baselines, with intervals; whether acting on it would have paid."),
    ("Attention", "What it looks at, moment by moment, and what may be concluded from that."),
)
PAGES = dict(zip(STAGE_NAMES, _TOLD, strict=True))


def entry_page(run: Run) -> str:
    """HTML of the entry page."""
    stored, labels = run.read_json("environment.json"), run.config.labels
    targets = {
        "percent": f"at least {labels.threshold_pct:g} %",
        "sigma": f"at least {labels.threshold_sigma:g} standard deviations",
        "triple_barrier": f"{labels.upper_pct:g} % before it falls {labels.lower_pct:g} %",
    }
    look = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    pages = Environment(loader=FileSystemLoader(Path(__file__).parent), **look)
    pages.filters["plain"] = lambda value: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return pages.get_template("entry_page.html").render(
        name=run.folder.name,
        config=run.config,
        target=targets[labels.mode],
        scores=_scores(run) if run.is_finished("05_evaluation") else None,
        pages=[_page(run, stage) for stage in STAGE_NAMES],
        changed=changed_parameters(run.config),
        params=run.path("params.yaml").read_text(encoding="utf-8"),
        environment={key: value for key, value in stored.items() if key != "packages"} | stored["packages"],
    )


def _scores(run: Run) -> dict[str, Any]:
    """Scores of the test part, a line per score column, the model's own first; then the paired differences."""
    stored = run.read_json("metrics.json")
    shares = run.config.evaluation.top_shares
    top = f"precision_top_{100 * shares[len(shares) // 2]:g}"
    columns = [("roc_auc", "pooled"), ("roc_auc", "within")]
    columns += [(metric, "pooled") for metric in ("pr_auc", top, "brier_skill")]
    cells = {(row["score"], row["metric"], row["scope"]): row for row in stored["scores"]}
    paired = {(row["baseline"], row["metric"], row["scope"]): row for row in stored["differences"]}
    names = list(dict.fromkeys(row["score"] for row in stored["scores"]))
    lines = [(score_name(name), [cells[name, *column] for column in columns], "%.3f") for name in names]
    for name in [name for name in names if (name, *columns[0]) in paired]:
        lines.append((f"model − {score_name(name)}", [paired[name, *column] for column in columns], "%+.3f"))
    return {
        "base_rate": f"{cells[names[0], 'base_rate', 'pooled']['value']:.1%}",
        "confidence": f"{run.config.evaluation.confidence:.0%}",
        "titles": [(metric_name(metric), {"within": "within symbols"}.get(scope, scope)) for metric, scope in columns],
        "lines": lines,
    }


def _page(run: Run, stage: str) -> dict[str, Any]:
    """Card of one page: link, what it tells, thumbnails of its pictures, links to its interactive figures."""
    title, text = PAGES[stage]
    done = run.is_finished(stage) and run.path(f"report/{stage}.html").is_file()
    record = run.record(stage) if done else None
    paths = [Path(name) for name in record.artefacts if name.startswith("figures/")] if record else []
    named = [(path, path.stem.replace("_", " ")) for path in paths]
    return {
        "stage": stage,
        "label": f"{stage.partition('_')[0]} · {title}",
        "text": text,
        "done": done,
        "seconds": f"{record.seconds:.0f}" if record else "",
        "pictures": [(path, caption, _thumbnail(run, path)) for path, caption in named if path.suffix == ".png"],
        "live": [(path, caption) for path, caption in named if path.suffix == ".html"],
    }


def _thumbnail(run: Run, name: Path) -> str:
    """Small picture as the source of an image."""
    with Image.open(run.path(str(name))) as picture:
        small = picture.convert("RGB")
    small.thumbnail((440, 330))  # pixels, twice what is shown, for screens of high density
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def changed_parameters(config: Config) -> dict[str, tuple[Any, Any]]:
    """Parameters that differ from their defaults: ``section.key`` -> (value, default)."""
    defaults = flat_parameters(Config())
    pairs = {name: (value, defaults.get(name)) for name, value in flat_parameters(config).items()}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
