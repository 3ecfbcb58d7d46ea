"""What several stages do: checks before any work, what stages 01 and 02 have left for the others."""

import numpy as np
import torch

from cmat_lib.config import Config
from cmat_lib.data.sources.files import market_files
from cmat_lib.models.fusion import fusion_class
from cmat_lib.training.devices import pick_device
from cmat_lib.views import VIEWS
from cmat_lib.views.panel import Panel
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.tracking import check_mlflow


def check_before_work(config: Config) -> None:
    """Raise a CmatError for what the schema cannot know.

    That is an unknown view, channel, indicator or fusion (with the nearest name), a view that the parameters do not
    allow, missing candle files, a missing GPU, or a package that is asked for and not installed.
    """
    check_parameters(config)
    if config.data.data_dir is not None:
        market_files(config.data)


def check_parameters(config: Config) -> None:
    """The same of all but the candle files."""
    check_mlflow(config)
    VIEWS.check(config)
    fusion_class(config.fusion.fusion_type)
    pick_device(config.training)


def read_views(config: Config, run: Run) -> dict[str, np.ndarray]:
    """Numbers (R, F) of every view of a run whose stages 01 and 02 are finished, memory-mapped."""
    return {view.name: run.read_array(f"data/{view.name}.npy") for view in VIEWS.active(config)}


def load_panel(config: Config, run: Run, device: torch.device | str = "cpu") -> Panel:
    """Panel of a run whose stages 01 and 02 are finished."""
    samples, scalers = run.read_frame("data/samples.parquet"), run.read_json("data/scalers.json")
    return Panel(read_views(config, run), samples, scalers, config, device)
