"""What a training step spends its time on, for ``training.py``: parts, kernels, the N-BEATS encoder, dropout."""

from __future__ import annotations

import copy

import pandas as pd
import torch
from reporting import say
from timing import Laps, take_turns
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from training_steps import EAGER, Stepper, config_of

from cmat_lib.encoders.dropout import Dropout
from cmat_lib.encoders.plain import OHLCVNBEATSEncoder
from cmat_lib.models import build_model
from cmat_lib.training.steps import Steps
from cmat_lib.views.panel import Batch, Panel

# -- parts of a step ---------------------------------------------------------------------------------------------------

HEADS = "heads and loss"
PARTS = ("N-BEATS", "topology and complexity", "fusion", HEADS)
REST = ("gather", "clip", "optimiser")


def parts_of_step(panel: Panel, batch: int, rounds: int) -> pd.DataFrame:
    """Milliseconds of every part of an eager step: the smallest over the rounds of whole steps cut into parts."""
    whole = Stepper(panel, config_of(batch, **EAGER))
    laps = []

    def cut() -> None:
        laps.append(_cut_step(whole))

    best = take_turns({"whole": whole, "parts": cut}, panel.device, rounds).min()
    seconds = pd.DataFrame(laps).min()
    table = pd.DataFrame(
        [(name, 1000 * seconds.get(name, 0.0), 1000 * seconds.get(f"{name}, backward", 0.0)) for name in PARTS + REST],
        columns=["part", "ms", "backward ms"],
    ).set_index("part")
    table["share"] = (table["ms"] + table["backward ms"]) / table[["ms", "backward ms"]].to_numpy().sum()
    table.attrs["whole ms"] = 1000 * best["whole"]
    say("parts: " + ", ".join(f"{name} {share:.0%}" for name, share in table["share"].items()))
    return table


def _cut_step(stepper: Stepper) -> dict[str, float]:
    """Seconds by part of one step that is done by hand: the graph is cut where a part ends, its gradient handed on."""
    steps, model, laps = stepper.steps, stepper.steps.raw, Laps(stepper.steps.panel.device)
    batch = laps.measured("gather", steps.panel.gather, stepper.next_index())
    with stepper.fabric.autocast():
        nbeats = laps.measured(PARTS[0], model.encoders["nbeats"], batch.inputs["nbeats"])
        small = laps.measured(
            PARTS[1], lambda: [model.encoders[name](batch.inputs[name]) for name in ("tda", "complexity")]
        )
        encoded = [x.detach().requires_grad_() for x in (nbeats, *small)]
        fused = laps.measured(PARTS[2], model.fusion, *encoded)
        joint = fused.detach().requires_grad_()
        loss = laps.measured(HEADS, _heads_and_loss, steps, joint, batch)
    laps.measured(f"{HEADS}, backward", loss.backward)
    laps.measured(f"{PARTS[2]}, backward", fused.backward, joint.grad)
    laps.measured(f"{PARTS[1]}, backward", torch.autograd.backward, small, [x.grad for x in encoded[1:]])
    laps.measured(f"{PARTS[0]}, backward", nbeats.backward, encoded[0].grad)
    laps.measured(
        "clip",
        lambda: stepper.fabric.clip_gradients(steps.objective, steps.optimizer, max_norm=1.0, error_if_nonfinite=False),
    )
    laps.measured("optimiser", lambda: (steps.optimizer.step(), steps.optimizer.zero_grad()))
    return laps.seconds


def _heads_and_loss(steps: Steps, fused: Tensor, batch: Batch) -> Tensor:
    logits, size = steps.raw.trigger_head(fused), steps.raw.max_pct_scale * steps.raw.max_pct_head(fused)
    weight = batch.weight / batch.weight.sum()
    return steps.loss(logits.float(), size.float(), batch.trigger, batch.max_pct, weight)["total"]


def top_kernels(panel: Panel, batch: int, steps: int, warm_up: int, rows: int = 12) -> pd.DataFrame:
    """The profiler's kernels with the largest own time, per step, as `Steps` runs it with the default switches."""
    torch.compiler.reset()
    stepper, gpu = Stepper(panel, config_of(batch)), panel.device.type == "cuda"
    for _ in range(warm_up):
        stepper()
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * gpu
    with profile(activities=kinds) as record:
        for _ in range(steps):
            stepper()
    attribute = "self_device_time_total" if gpu else "self_cpu_time_total"
    events = record.key_averages()
    own = [(event.key, event.count / steps, getattr(event, attribute) / steps / 1000) for event in events]
    table = pd.DataFrame(own, columns=["kernel", "calls a step", "ms a step"]).sort_values("ms a step", ascending=False)
    table["share"] = table["ms a step"] / table["ms a step"].sum()
    table["kernel"] = table["kernel"].str.slice(0, 60).str.replace("|", "/")
    return table.head(rows).reset_index(drop=True)


# -- N-BEATS and dropout -----------------------------------------------------------------------------------------------

NOW, PLAIN, PLAIN_DROPOUT = "as it is", "plain blocks and torch's dropout", "plain blocks, this dropout"


class PlainStack(nn.Module):
    """Blocks one after the other: each reads the residual, writes its backcast, and adds its features."""

    def __init__(self, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, feature_dim) and residual (B, C * T) of an input (B, C * T)."""
        features = 0
        for block in self.blocks:
            hidden = block.layers(residual)
            features = features + block.feature_head(hidden)
            if block.theta is not None:
                residual = residual - block.expand(block.theta(hidden))
        return features, residual


def plain_encoder(encoder: OHLCVNBEATSEncoder, dropout: type[nn.Dropout]) -> OHLCVNBEATSEncoder:
    """Copy with the same weights in `PlainStack` form and with another dropout module."""
    plain = copy.deepcopy(encoder)
    plain.stacks = nn.ModuleList(PlainStack(stack.blocks) for stack in plain.stacks)
    for module in list(plain.modules()):
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, dropout(child.p))
    return plain


def compare_encoders(panel: Panel, batch: int, rounds: int, calls: int) -> pd.DataFrame:
    """Forward and backward pass of the N-BEATS encoder against its plain forms, which must answer the same."""
    encoder = build_model(config_of(batch)).encoders["nbeats"].to(panel.device)
    encoders = {PLAIN: plain_encoder(encoder, nn.Dropout), PLAIN_DROPOUT: plain_encoder(encoder, Dropout), NOW: encoder}
    windows = panel.gather(torch.arange(batch, device=panel.device) % len(panel)).inputs["nbeats"]
    with torch.no_grad():
        answers = [e.eval()(windows) for e in encoders.values()]
    difference = max(float((answer - answers[-1]).abs().max()) for answer in answers)
    if difference > 1e-4 * float(answers[-1].abs().max()):
        raise AssertionError(f"the plain form of the N-BEATS encoder answers otherwise, by {difference:.1e}")
    turns = {name: lambda e=e: _forward_backward(e.train(), windows) for name, e in encoders.items()}
    table = _against_first(take_turns(turns, panel.device, rounds, calls), "N-BEATS encoder")
    table.attrs["difference"] = difference
    return table


def compare_dropout(panel: Panel, batch: int, width: int, rounds: int, calls: int) -> pd.DataFrame:
    """Forward and backward pass of both dropouts on (B, width)."""
    x = torch.randn(batch, width, device=panel.device, requires_grad=True)
    modules = {"torch.nn.Dropout": nn.Dropout(0.1), "cmat_lib.encoders.dropout.Dropout": Dropout(0.1)}
    turns = {name: lambda m=m: _forward_backward(m, x) for name, m in modules.items()}
    return _against_first(take_turns(turns, panel.device, rounds, calls, warm_up=3), "dropout")


def _forward_backward(module: nn.Module, x: Tensor) -> None:
    module.zero_grad()
    module(x).sum().backward()


def _against_first(seconds: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Best milliseconds of each column, and how many times faster than the first it is."""
    table = pd.DataFrame({"ms": 1000 * seconds.min()}).rename_axis(kind)
    table["times faster"] = table["ms"].iloc[0] / table["ms"]
    say(f"{kind}: " + ", ".join(f"{name} {ms:.2f} ms" for name, ms in table["ms"].items()))
    return table
