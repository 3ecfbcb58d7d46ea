"""``best_model.pt``: all that a prediction needs, as tensors and plain types: a crafted file cannot run code."""

import io
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, Field, FiniteFloat, JsonValue, ValidationError, field_validator, model_validator
from torch import Tensor

from cmat_lib.base.errors import CmatError, first_line
from cmat_lib.base.files import atomic_path
from cmat_lib.config import Config, validate
from cmat_lib.models import MultiTaskCrossModalAttention, build_model
from cmat_lib.views import VIEWS

FORMAT_VERSION = 3  # 1 and 2 knew three views by position
REASON_LENGTH = 200  # torch lists every weight that does not fit

Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Plain = dict[str, JsonValue]


class Kind(BaseModel, strict=True, extra="forbid", arbitrary_types_allowed=True):
    """Shape of some content that is read from a file."""

    @classmethod
    def misfit(cls, content: Any) -> str | None:
        """Where and why some content is not of this kind, in a line; None if it is."""
        try:
            cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        return None


class Scaler(Kind):
    """Of one view, a number for each of its own."""

    center: list[FiniteFloat]
    scale: list[Annotated[FiniteFloat, Field(gt=0)]]


class Temperature(Kind):
    """See `cmat_lib.evaluation.calibration.fit_calibration`, as for `Isotonic`."""

    method: Literal["temperature"]
    slope: Annotated[FiniteFloat, Field(ge=0)]
    bias: FiniteFloat


class Isotonic(Kind):
    """Points of a curve that rises."""

    method: Literal["isotonic"]
    x: Annotated[list[FiniteFloat], Field(min_length=1)]
    y: list[Share]

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if len(self.x) != len(self.y) or self.x != sorted(self.x) or self.y != sorted(self.y):
            raise ValueError("x and y must be as many, and ascend")
        return self


class Content(Kind):
    """What a checkpoint holds."""

    format_version: int
    weights: dict[str, Tensor]
    config: Plain
    views: dict[str, list[str]]  # names of the numbers of each
    scalers: dict[str, Scaler]
    threshold: Share
    calibration: Annotated[Temperature | Isotonic, Field(discriminator="method")]
    labels: Plain
    symbols: list[str]  # of the training
    data_hash: str
    seen_until: str
    versions: dict

    @field_validator("seen_until")
    @classmethod
    def _has_a_zone(cls, time: str) -> str:
        if datetime.fromisoformat(time).tzinfo is None:
            raise ValueError("a time needs its zone")
        return time


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically: all that `Content` names except ``format_version``, else a CmatError."""
    content = {"format_version": FORMAT_VERSION, **content}
    if differ := sorted(set(content) ^ set(Content.model_fields)):
        raise CmatError(f"a checkpoint needs the keys {', '.join(Content.model_fields)}; these differ: {differ}")
    write_tensors(path, content)


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Content of a checkpoint; a CmatError if it is missing, of another format version, or damaged."""
    path = Path(path)
    if not path.is_file():
        raise CmatError(f"{path}: no such model; run notebooks/04_training.ipynb or `cmat train` first")
    content = read_tensors(path, device)
    # By repr, as a tensor has no truth value.
    version = repr(content.get("format_version")) if isinstance(content, dict) else None
    if version != repr(FORMAT_VERSION) or set(content) != set(Content.model_fields):
        raise CmatError(f"{path}: not a model of this version of CMAT (format {FORMAT_VERSION}); train again")
    if reason := Content.misfit(content):
        raise _damaged(path, reason)
    config = validate(content["config"], str(path))
    VIEWS.seen(config)  # a view of one's own needs its part, and says so
    try:
        fits = _fits_views(content, config)
    except CmatError as error:  # of parameters that no training would have taken
        raise _damaged(path, str(error)) from None
    if not fits:
        raise _damaged(path, "views or scalers are not what the parameters ask for")
    return content


def _fits_views(content: dict[str, Any], config: Config) -> bool:
    """Whether names and scalers are those of the views that the parameters ask for."""
    views = VIEWS.active(config)
    for view in views:
        names, scaler = content["views"].get(view.name, []), content["scalers"].get(view.name, {})
        if view.width and len(names) != view.width(config):  # there may be more than memory holds
            return False
        if names != view.names(config) or {len(numbers) for numbers in scaler.values()} != {len(names)}:
            return False
    return len(content["views"]) == len(views)


def _damaged(path: Path, reason: str) -> CmatError:
    return CmatError(f"{path}: damaged or not a model of CMAT ({reason[:REASON_LENGTH]}); train again")


def write_tensors(path: str | Path, content: Any) -> None:
    """Write tensors and plain types atomically; a CmatError if the file cannot be written."""
    buffer = io.BytesIO()  # as torch's own writer hides a full disk behind errors of its format
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_tensors(path: Path, device: torch.device | str) -> Any:
    """Content of a file of tensors and plain types; a CmatError if it is damaged, or would run code."""
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("not an archive of torch.save")  # whose older forms are never written here
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # bytes may ask of torch's reader whatever they like
        raise _damaged(path, first_line(error)) from None


def load_model(
    path: str | Path, device: torch.device | str = "cpu"
) -> tuple[MultiTaskCrossModalAttention, Config, dict[str, Any]]:
    """Model in eval mode from a checkpoint, its parameters and content; a CmatError if the file cannot be used."""
    path, content = Path(path), load_checkpoint(path, device)
    config = validate(content["config"], str(path))
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
