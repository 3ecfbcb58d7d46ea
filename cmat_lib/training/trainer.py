"""The training loop: short, on Lightning Fabric, ignorant of files and of what the model is made of."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from cmat_lib.config import Config
from cmat_lib.data.panel import Panel
from cmat_lib.errors import CmatError
from cmat_lib.models import build_model
from cmat_lib.training.devices import is_on, make_fabric
from cmat_lib.training.optimisation import build_loss, count_steps, parameter_groups, schedule

ENCODERS = ("ohlcv_encoder", "tda_encoder", "complexity_encoder")
TERMS = ("total", "trigger", "max_pct")
FEWEST_STEPS = 50  # below this an epoch says little, and warm-up and cosine are coarse
Row = dict[str, float]


class Training(NamedTuple):
    """What a training leaves behind."""

    model: nn.Module  # with the weights of the best epoch, in eval mode
    history: list[Row]  # one row per epoch
    best_epoch: int


def train(config: Config, panel: Panel, on_epoch: Callable[[Row], None] = lambda row: None) -> Training:
    """Train the model of `config` on the train part; the stop part decides when to end and which epoch is best.

    Parameters
    ----------
    config : Config
    panel : Panel
        On the device where training shall happen.
    on_epoch : callable
        Called with each epoch's row of the history.

    Returns
    -------
    Training

    Raises
    ------
    CmatError
        If a loss is not finite; the message names the term and the step.
    """
    torch.manual_seed(config.seed)
    fabric = make_fabric(config.training, panel.device)
    raw = build_model(config)
    loss = build_loss(config.training, panel).to(panel.device)
    raw.max_pct_scale.fill_(loss.max_pct_std)
    optimizer = torch.optim.AdamW(parameter_groups(raw, loss, config.training))
    compiled = torch.compile(raw) if is_on(config.training.compile, panel.device) else raw
    model, optimizer = fabric.setup(compiled, optimizer)
    loop = _Loop(fabric, raw, model, loss, optimizer, panel, config)
    return loop.run(on_epoch)


def evaluate(model: nn.Module, loss: nn.Module, panel: Panel, index: torch.Tensor, size: int) -> Row:
    """Mean loss terms and ROC-AUC of the raw trigger score over the samples of `index`."""
    was_training = model.training
    model.eval()
    totals, scores, triggers = torch.zeros(3, device=panel.device), [], []
    with torch.no_grad():
        for batch in panel.batches(index, size):
            logits, max_pct = model(*batch.inputs)
            terms = loss(logits.float(), max_pct.float(), batch.trigger, batch.max_pct)
            totals += torch.stack([terms[name] for name in TERMS]) * len(batch.trigger)
            scores.append(logits[:, 0].float())
            triggers.append(batch.trigger)
    model.train(was_training)
    score = torch.cat(scores)
    if not (totals.isfinite().all() and score.isfinite().all()):
        raise CmatError(
            "training stopped: the model's answers on the stop part are not finite; lower training.learning_rate, or "
            "look for extreme values in the inputs (notebook 01)"
        )
    auc = roc_auc_score(torch.cat(triggers).cpu().numpy(), score.cpu().numpy())
    total, trigger, max_pct = (totals / len(index)).tolist()
    return {"loss": total, "trigger_loss": trigger, "max_pct_loss": max_pct, "roc_auc": float(auc)}


class _Loop:
    """State of one training: kept together so that its steps stay short."""

    def __init__(self, fabric, raw, model, loss, optimizer, panel: Panel, config: Config):
        self.fabric, self.raw, self.model, self.loss, self.optimizer = fabric, raw, model, loss, optimizer
        self.panel, self.training = panel, config.training
        self.train_index, self.stop_index = panel.index("train"), panel.index("stop")
        self.generator = torch.Generator(device=panel.device).manual_seed(config.seed)
        self.steps_per_epoch = count_steps(len(self.train_index), self.training)
        total = self.steps_per_epoch * self.training.epochs
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: schedule(step, total, self.training.warmup_share)
        )

    def run(self, on_epoch: Callable[[Row], None]) -> Training:
        """Epochs until patience or the last one."""
        if self.steps_per_epoch < FEWEST_STEPS:
            warnings.warn(
                f"an epoch has {self.steps_per_epoch} optimiser steps (fewer than {FEWEST_STEPS}): lower "
                "training.batch_size or training.gradient_accumulation_steps",
                stacklevel=3,
            )
        history, best, best_weights = [], math.inf, None
        for epoch in range(1, self.training.epochs + 1):
            row = self._epoch(epoch)
            history.append(row)
            on_epoch(row)
            if (badness := self._badness(row)) < best:
                best, best_epoch, best_weights = badness, epoch, _copy(self.raw)
            if epoch - best_epoch >= self.training.early_stopping_patience:
                break
        self.raw.load_state_dict(best_weights)
        return Training(self.raw.eval(), history, best_epoch)

    def _badness(self, row: Row) -> float:
        return row["stop_loss"] if self.training.early_stopping_metric == "loss" else -row["stop_roc_auc"]

    def _epoch(self, epoch: int) -> Row:
        started = time.perf_counter()
        self._freeze(epoch <= self.training.freeze_encoder_epochs)
        terms = self._pass(epoch)
        seconds = time.perf_counter() - started
        size = self.training.batch_size
        stop = evaluate(self.model, self.loss, self.panel, self.stop_index, size)
        row = {"epoch": epoch, "train_loss": terms[0], "train_trigger_loss": terms[1], "train_max_pct_loss": terms[2]}
        row |= {f"stop_{name}": value for name, value in stop.items()}
        row |= {"learning_rate": self.optimizer.param_groups[0]["lr"], "seconds": seconds}
        row["samples_per_second"] = len(self.train_index) / seconds
        return row

    def _freeze(self, frozen: bool) -> None:
        """Frozen encoders get no gradient, and their BatchNorm and dropout stand still."""
        self.model.train()
        for name in ENCODERS:
            encoder = getattr(self.raw, name)
            if encoder is not None:
                encoder.requires_grad_(not frozen).train(not frozen)

    def _pass(self, epoch: int) -> list[float]:
        """One pass over the training part; returns the mean of each loss term."""
        size, group = self.training.batch_size, self.training.gradient_accumulation_steps
        index = self.train_index
        order = index[torch.randperm(len(index), generator=self.generator, device=self.panel.device)]
        seen = []
        for chunk in order.split(size * group):  # one optimiser step each; the last one is smaller, and still a step
            seen.append(self._step(chunk, size))
        # Looking at the numbers only here keeps a GPU from waiting at every step.
        terms = torch.stack(seen)  # (steps, 3)
        self._check_finite(terms, epoch)
        return terms.mean(0).tolist()

    def _step(self, chunk: torch.Tensor, size: int) -> torch.Tensor:
        sums = torch.zeros(3, device=self.panel.device)
        for index in chunk.split(size):
            batch = self.panel.gather(index)
            logits, max_pct = self.model(*batch.inputs)
            terms = self.loss(logits.float(), max_pct.float(), batch.trigger, batch.max_pct)
            share = len(index) / len(chunk)
            self.fabric.backward(terms["total"] * share)
            sums += torch.stack([terms[name].detach() for name in TERMS]) * share
        self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=self.training.gradient_clip, error_if_nonfinite=False
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        return sums

    def _check_finite(self, terms: torch.Tensor, epoch: int) -> None:
        bad = (~terms.isfinite()).nonzero()
        if len(bad):
            step = int(bad[0, 0])
            # The total is not finite whenever a term is; it is named only if it is the only one.
            names = [name for name, value in zip(TERMS, terms[step], strict=True) if not value.isfinite()]
            culprit = " and ".join(names[1:] or names)
            raise CmatError(
                f"training stopped: the {culprit} loss is not finite at step {step + 1} of epoch {epoch}; "
                "lower training.learning_rate, or look for extreme values in the inputs (notebook 01)"
            )


def _copy(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
