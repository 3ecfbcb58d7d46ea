"""``best_model.pt``: everything that a prediction needs, in one file of tensors and plain types.

It is loaded with ``weights_only=True``, so a crafted file cannot run code.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from cmat_lib.config import Config, validate
from cmat_lib.errors import CmatError
from cmat_lib.files import atomic_path
from cmat_lib.models import MultiTaskCrossModalAttention, build_model

FORMAT_VERSION = 2
KEYS = {  # and what stands under them
    "format_version": int,
    "weights": dict,
    "config": dict,
    "channel_names": list,
    "feature_names": list,
    "complexity_names": list,
    "scalers": dict,
    "threshold": float,
    "calibration": dict,
    "labels": dict,
    "data_hash": str,
    "seen_until": str,
    "versions": dict,
}


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Parameters
    ----------
    path : str or Path
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
    """Read and check a checkpoint.

    Returns
    -------
    dict
        `KEYS`; tensors are on `device`.

    Raises
    ------
    CmatError
        If the file is missing, damaged, of another format version, or not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise CmatError(f"{path}: no such model; run notebooks/04_training.ipynb or `cmat train` first")
    content = read_tensors(path, device)
    if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION or set(content) != set(KEYS):
        raise CmatError(f"{path}: not a model of this version of CMAT (format {FORMAT_VERSION}); train again")
    if wrong := [key for key, kind in KEYS.items() if not isinstance(content[key], kind)]:
        raise CmatError(f"{path}: damaged ({wrong[0]} is no {KEYS[wrong[0]].__name__}); train again")
    return content


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
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CmatError(f"{path}: damaged or not a model of CMAT ({reason}); train again") from None


def load_model(
    path: str | Path, device: torch.device | str = "cpu"
) -> tuple[MultiTaskCrossModalAttention, Config, dict[str, Any]]:
    """Model in eval mode from a checkpoint, with the parameters it was trained under.

    Returns
    -------
    model : MultiTaskCrossModalAttention
    config : Config
    content : dict
        The checkpoint, see `load_checkpoint`.

    Raises
    ------
    CmatError
        If the file cannot be used.
    """
    content = load_checkpoint(path, device)
    config = validate(content["config"], str(path))
    try:
        with torch.device("meta"):  # sizes that the weights do not have must not cost their memory first
            build_model(config).load_state_dict(content["weights"], assign=True)
        model = build_model(config).to(device)
        model.load_state_dict(content["weights"])
    except CmatError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, OverflowError, MemoryError, ArithmeticError) as error:
        raise CmatError(f"{path}: the weights do not fit the stored parameters ({error}); train again") from None
    return model.eval(), config, content
