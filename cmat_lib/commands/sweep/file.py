"""The file of a sweep, ``params/sweep.yaml``: what is searched, over which parameter file, by which metric."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError, field_validator, model_validator

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.config.load import NUMBER_HINT, checked, nest, read_params, shown
from cmat_lib.config.schema import OF_THE_LOSS, Config
from cmat_lib.config.section import Positive, Section

SEARCHED = ("fusion", "model", "training")  # not data, labels and features, which all trials share
OF_THE_MACHINE = ("device", "devices", "num_nodes", "resume")  # how a trial is executed
KEYS = {
    f"{section}.{key}": field
    for section in SEARCHED
    for key, field in Config.model_fields[section].annotation.model_fields.items()
    if key not in OF_THE_MACHINE
}


class Range(Section):
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = Field(False, description="draw evenly in the logarithm")
    step: Annotated[float, Field(gt=0)] | None = Field(
        None, description="distance of the values; not together with log"
    )

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0 and no step")
        return self


class Pruning(Section):
    """When a trial whose curve stays below the median of the earlier ones is given up."""

    startup_trials: Annotated[int, Field(ge=0)] = Field(5, description="trials that run to their end first")
    warmup_epochs: Annotated[int, Field(ge=0)] = Field(3, description="epochs of every trial that are not judged")


Values = Annotated[list[Any], Field(max_length=1000), Tag("list")]
Kind = Discriminator(lambda space: "range" if isinstance(space, dict | Range) else "list")
Space = Annotated[Values | Annotated[Range, Tag("range")], Kind]


class Sweep(Section):
    """A search over training parameters. The number of a trial is the seed of its training."""

    base: str = Field(description="parameter file that every trial starts from, relative to this file")
    metric: Literal["stop_roc_auc", "stop_loss"] = Field(
        "stop_roc_auc", description="of the stop part at the best epoch of each training; never of the test part"
    )
    trials: Positive = Field(20, description="trials in all, finished or pruned")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(  # the sampler's bound, with room for the trial's number
        0, description="seed of the sampler; the seed of a training is the number of its trial"
    )
    pruning: Pruning | None = Field(Pruning(), description="null trains every trial to its end")
    search: dict[str, Space] = Field(
        min_length=1,
        json_schema_extra={"propertyNames": {"enum": list(KEYS)}},
        description="key -> list of values, or low and high of a range",
    )

    @field_validator("search")
    @classmethod
    def _keys_and_values_exist(cls, search: dict[str, Space]) -> dict[str, Space]:
        for key, space in search.items():
            if key not in KEYS:
                raise ValueError(_unknown(key))
            for value in _ends(key, space):
                _check_value(key, value)
        return search

    @model_validator(mode="after")
    def _loss_stays_comparable(self) -> Self:
        turned = [key for key in self.search if OF_THE_LOSS in KEYS[key].metadata]
        if self.metric == "stop_loss" and turned:
            why = "changes what the loss is, so that losses cannot be compared; use metric: stop_roc_auc"
            raise ValueError(f"{turned[0]} {why}")
        return self


def _unknown(key: str) -> str:
    section, _, name = key.partition(".")
    if section in SEARCHED and name in OF_THE_MACHINE:
        return f"{key} says where a training runs, not what it learns; set it in the base file"
    if name in getattr(Config.model_fields.get(section), "annotation", Config).model_fields and section not in SEARCHED:
        return f"{key} changes what all trials share; search {', '.join(SEARCHED)}, or use `cmat run --grid {key}=...`"
    homes = [known for known in KEYS if known.split(".")[1] == key.split(".")[-1]]
    return f"unknown key '{key}'" + (f"; did you mean '{homes[0]}'?" if homes else nearest(key, KEYS))


def _ends(key: str, space: Space) -> list[Any]:
    """Values to check: every choice, or both ends of a range, whole where the key is."""
    if isinstance(space, Range):
        return [int(end) if is_whole(key) and end == int(end) else end for end in (space.low, space.high)]
    if not space or any(space.count(value) > 1 for value in space):
        raise ValueError(f"{key}: list every value once")
    return space


def is_whole(key: str) -> bool:
    """Whether a key takes whole numbers."""
    return KEYS[key].annotation is int


def _check_value(key: str, value: Any) -> None:
    try:
        TypeAdapter(Annotated[KEYS[key].annotation, KEYS[key]], config=Section.model_config).validate_python(value)
    except ValidationError as error:
        hint = NUMBER_HINT if isinstance(value, str) else ""
        raise ValueError(f"{key}: {error.errors()[0]['msg']}, got {shown(value)}{hint}") from None


def read_sweep(path: Path) -> tuple[Sweep, dict[str, Any]]:
    """Sweep of a file, and the raw parameters of its base file.

    A CmatError if one of the files is missing or cannot be read; for an unknown key, with the nearest one; for values
    that the key does not take.
    """
    raw = read_params(path)
    if "search" not in raw:
        raise CmatError(f"{path}: no 'search' in this file, so it is no sweep; see params/sweep.yaml")
    sweep = checked(Sweep, raw, str(path), _explain)
    return sweep, read_params(path.parent / sweep.base)


def _explain(item: dict[str, Any]) -> str:
    """One line of plain language for one pydantic error."""
    place = [str(part) for part in item["loc"] if part not in ("list", "range")]
    if item["type"] == "extra_forbidden":
        form = Sweep if len(place) == 1 else Pruning if place[0] == "pruning" else Range
        where = ": ".join(place[:-1]) or "this file"
        return f"unknown key '{place[-1]}' in {where}{nearest(place[-1], form.model_fields)}"
    got = "" if item["type"] in ("value_error", "missing") else f", got {shown(item['input'])}"
    return f"{': '.join(place)}: {item['msg'].removeprefix('Value error, ')}{got}"


def trial_changes(values: dict[str, Any]) -> dict[str, Any]:
    """Sections of the parameters from values by key. ``fusion.output_dim`` follows ``fusion.hidden_dim``."""
    width = {"fusion.output_dim": values["fusion.hidden_dim"]} if "fusion.hidden_dim" in values else {}
    return nest(width | values)
