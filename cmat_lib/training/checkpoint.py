"""``best_model.pt``: everything that a prediction needs, in one file of tensors and plain types.

It is loaded with ``weights_only=True``, so a crafted file cannot run code.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cmat_lib.base.errors import CmatError, first_line
from cmat_lib.base.files import atomic_path
from cmat_lib.config import Config, validate
from cmat_lib.models import MultiTaskCrossModalAttention, build_model
from cmat_lib.views import VIEWS

FORMAT_VERSION = 3  # 1 and 2 knew three views by position
KEYS = {  # and what stands under them
    "format_version": int,
    "weights": dict,
    "config": dict,
    "views": dict,  # names of the numbers of each
    "scalers": dict,
    "threshold": float,
    "calibration": dict,
    "labels": dict,
    "symbols": list,  # of the training
    "data_hash": str,
    "seen_until": str,
    "versions": dict,
}
CALIBRATIONS = {"isotonic": {"method", "x", "y"}, "temperature": {"method", "slope", "bias"}}
REASON_LENGTH = 200  # torch lists every weight that does not fit


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Parameters
    ----------
    content : dict
        All of `KEYS` except ``format_version``; tensors, plain numbers, texts, lists and dicts only.

    Raises
    ------
    CmatError
        If a key is missing or unknown.
    """
    content = {"format_version": FORMAT_VERSION, **content}
    if set(content) != set(KEYS):
        raise CmatError(
            f"a checkpoint needs the keys {', '.join(KEYS)}; these differ: {sorted(set(content) ^ set(KEYS))}"
        )
    write_tensors(path, content)


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read and check a checkpoint: `KEYS`; tensors are on `device`.

    Raises
    ------
    CmatError
        If the file is missing, damaged, of another format version, or not a checkpoint.
    """
    return _load(Path(path), device)[0]


def _load(path: Path, device: torch.device | str) -> tuple[dict[str, Any], Config]:
    """Content of a checkpoint, checked so far that no later step can stumble over it, and its parameters."""
    if not path.is_file():
        raise CmatError(f"{path}: no such model; run notebooks/04_training.ipynb or `cmat train` first")
    content = read_tensors(path, device)
    if not isinstance(content, dict) or not _is_version(content.get("format_version")) or set(content) != set(KEYS):
        raise CmatError(f"{path}: not a model of this version of CMAT (format {FORMAT_VERSION}); train again")
    for key, kind in KEYS.items():
        if not isinstance(content[key], kind):
            raise _damaged(path, f"{key} is no {kind.__name__}")
    config = validate(content["config"], str(path))
    VIEWS.seen(config)  # a view of one's own needs its part, and says so
    if reason := _fault(content, config):
        raise _damaged(path, reason)
    return content, config


def _is_version(value: Any) -> bool:
    return type(value) is int and value == FORMAT_VERSION


def _damaged(path: Path, reason: str) -> CmatError:
    return CmatError(f"{path}: damaged or not a model of CMAT ({reason[:REASON_LENGTH]}); train again")


def _fault(content: dict[str, Any], config: Config) -> str | None:
    """What in a checkpoint is not as the training writes it, or None."""
    try:
        active, stored = VIEWS.active(config), content["views"]
        sizes = {view.name: view.width(config) for view in active if view.width}  # names that memory may not hold
        is_long = all(isinstance(stored.get(name), list) and len(stored[name]) == n for name, n in sizes.items())
        views = {view.name: view.names(config) for view in active} if is_long else None
    except CmatError as error:  # of parameters that no training would have taken
        return str(error)
    if stored != views:
        return "views are not the names that the parameters ask for"
    for name, names in views.items():
        if not _is_scaler(content["scalers"].get(name), len(names)):
            return f"scalers: {name} needs {len(names)} centres and {len(names)} scales above 0, all finite"
    checks = {
        "weights are not tensors by name": _are_tensors(content["weights"]),
        "symbols are not names": all(isinstance(name, str) for name in content["symbols"]),
        "threshold is not between 0 and 1": 0 <= content["threshold"] <= 1,
        "calibration is none of " + " and ".join(CALIBRATIONS): _is_calibration(content["calibration"]),
        "seen_until is not a time with its zone": _is_zoned_time(content["seen_until"]),
        "config or labels hold more than plain numbers and texts": _is_plain([content["config"], content["labels"]]),
    }
    return next((reason for reason, holds in checks.items() if not holds), None)


def _are_tensors(weights: dict) -> bool:
    return all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in weights.items())


def _is_number(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_number, values))


def _is_scaler(scaler: Any, size: int) -> bool:
    if not isinstance(scaler, dict) or not all(_are_numbers(scaler.get(key)) for key in ("center", "scale")):
        return False
    return len(scaler["center"]) == len(scaler["scale"]) == size and all(scale > 0 for scale in scaler["scale"])


def _is_calibration(calibration: dict) -> bool:
    """Whether these are the numbers that `cmat_lib.evaluation.calibration.fit_calibration` gives."""
    method = calibration.get("method")
    if not isinstance(method, str) or set(calibration) != CALIBRATIONS.get(method):
        return False
    if method == "temperature":
        return _is_number(calibration["slope"]) and _is_number(calibration["bias"]) and calibration["slope"] >= 0
    x, y = calibration["x"], calibration["y"]
    if not _are_numbers(x) or not _are_numbers(y) or not len(x) == len(y) > 0:
        return False
    return x == sorted(x) and y == sorted(y) and all(0 <= value <= 1 for value in y)


def _is_zoned_time(text: str) -> bool:
    try:
        return pd.Timestamp(text).tzinfo is not None
    except (ValueError, TypeError, OverflowError):
        return False


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def write_tensors(path: str | Path, content: Any) -> None:
    """Write tensors and plain types atomically.

    Through memory, because torch's own writer hides from a full disk behind errors of its format.

    Raises
    ------
    CmatError
        If the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_tensors(path: Path, device: torch.device | str) -> Any:
    """Content of a file of tensors and plain types, on `device`; a file that holds anything else is refused.

    Raises
    ------
    CmatError
        If the file is damaged, or would run code.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("not an archive of torch.save")  # whose older forms are never written here
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # bytes may ask of torch's reader whatever they like
        raise _damaged(path, first_line(error)) from None


def load_model(
    path: str | Path, device: torch.device | str = "cpu"
) -> tuple[MultiTaskCrossModalAttention, Config, dict[str, Any]]:
    """Model in eval mode from a checkpoint, with the parameters it was trained under.

    The dict is the checkpoint's content, see `load_checkpoint`.

    Raises
    ------
    CmatError
        If the file cannot be used.
    """
    path = Path(path)
    content, config = _load(path, device)
    try:
        with torch.device("meta"):  # sizes that the weights do not have must not cost their memory first
            build_model(config).load_state_dict(content["weights"], assign=True)
        model = build_model(config).to(device)
        model.load_state_dict(content["weights"])
    except CmatError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, OverflowError, MemoryError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:REASON_LENGTH]
        raise CmatError(f"{path}: the weights do not fit the stored parameters ({reason}); train again") from None
    if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
        raise _damaged(path, "its weights are not all finite")  # a score of NaN would be no alarm
    return model.eval(), config, content
