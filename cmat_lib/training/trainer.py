"""The training loop: epochs, early stopping, save points. It knows nothing of the model, the data or the device."""

import math
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cmat_lib.base.errors import CmatError, first_line
from cmat_lib.config import Config
from cmat_lib.config.schema import TrainingConfig
from cmat_lib.training.devices import make_fabric
from cmat_lib.training.memory import memory_in_use, out_of_memory
from cmat_lib.training.objective import compiled_graphs
from cmat_lib.training.resume import Loop, SavePoint, StopRequest
from cmat_lib.training.steps import Steps, diverged, loss_name
from cmat_lib.views.panel import Panel

FEWEST_STEPS = 50  # below this an epoch says little, and warm-up and cosine are coarse
SAVE_SECONDS = 300  # an epoch that takes longer is saved on the way
SAVE_SHARE = 0.05  # of the time that saving after epochs may take
Row = dict[str, float]


class Training(NamedTuple):
    """What a training leaves behind."""

    model: nn.Module  # with the weights of the best epoch, in eval mode
    history: list[Row]  # one row per epoch
    best_epoch: int
    interrupted: bool  # whether somebody ended it before its time; a save point then holds where it was


def train(
    config: Config,
    panel: Panel,
    on_epoch: Callable[[Row], None] = lambda row: None,
    *,
    fabric: Fabric | None = None,
    save_point: SavePoint | None = None,
) -> Training:
    """Train the model of `config` on the train part; the stop part decides when to end and which epoch is best.

    `panel` is on the device where training shall happen. `on_epoch` takes each epoch's row of the history, in the first
    process only; a training that goes on hands in its earlier rows first. `fabric` must be launched, if it has several
    processes. The state is kept in `save_point` after every epoch. Ctrl-C ends the epoch early, keeps the state and
    returns the best model so far (with one process; several are killed, and leave the state of the last whole epoch).

    A CmatError if a loss is not finite (it names the term and the step), if the memory does not hold a batch, or if
    ``training.batch_size`` cannot be shared among the processes.
    """
    steps = Steps(fabric or make_fabric(config.training), panel, config)
    try:
        return TrainingLoop(steps, config.training, save_point).run(on_epoch)
    except torch.OutOfMemoryError:
        raise out_of_memory(config.training, steps.size, steps.fabric.world_size) from None


class TrainingLoop:
    """State of one training: kept together so that its parts stay short."""

    def __init__(self, steps: Steps, training: TrainingConfig, save_point: SavePoint | None):
        self.steps, self.training, self.save_point = steps, training, save_point
        self.is_alone = steps.fabric.world_size == 1
        self.stop = StopRequest(enabled=self.is_alone)
        self.history: list[Row] = []
        self.best, self.best_epoch, self.best_weights = math.inf, 0, {}
        self.epoch, self.step, self.seen = 1, 0, []  # where the training is, and the losses of this epoch's steps
        self.saved, self.save_seconds = -math.inf, 0.0  # when the state was last saved, and how long that took
        self.graphs, self.graphs_expected = compiled_graphs(), 2  # one for training, one for validation

    def run(self, on_epoch: Callable[[Row], None]) -> Training:
        """Epochs until patience, the last one, or somebody's wish to stop."""
        self._resume()
        show = on_epoch if self.steps.fabric.is_global_zero else lambda row: None
        for row in self.history:
            show(row)
        if self.steps.per_epoch < FEWEST_STEPS:
            few = f"an epoch has {self.steps.per_epoch} optimiser steps (fewer than {FEWEST_STEPS})"
            lower = "lower training.batch_size or training.gradient_accumulation_steps"
            warnings.warn(f"{few}: {lower}", stacklevel=3)
        with self.stop:
            while not self._is_done() and (row := self.run_epoch()):
                show(row)
        interrupted = not self._is_done()
        if interrupted and not self.best_weights:  # the model as it stands
            terms = torch.stack(self.seen).mean(0).tolist() if self.seen else [math.nan] * len(self.steps.loss.terms)
            self.history = [self._row(terms) | self._speed(math.nan, math.nan, 0)]
            self.best_epoch, self.best_weights = self.epoch, deepcopy(self.steps.best_model.state_dict())
        self.steps.raw.load_state_dict(self.best_weights)
        return Training(self.steps.raw.eval(), self.history, self.best_epoch, interrupted)

    def _is_done(self) -> bool:
        without_better = self.epoch - 1 - self.best_epoch
        return self.epoch > self.training.epochs or without_better >= self.training.early_stopping_patience

    def run_epoch(self) -> Row | None:
        """One pass over the train part and a look at the stop part; None if it was ended on the way."""
        started, first = time.perf_counter(), self.step
        self.steps.freeze_encoders(self.epoch <= self.training.freeze_encoder_epochs)
        if not self._pass():
            return None
        terms, seconds = self._mean_losses(), time.perf_counter() - started
        row = self._row(terms)
        row |= self._speed(seconds, time.perf_counter() - started - seconds, self.steps.per_epoch - first)
        self._report_recompiles()
        self._keep(row)
        return row

    def _pass(self) -> bool:
        """The steps of this epoch that are left; False if somebody asked to stop before the last one."""
        before = self.steps.generator.get_state()  # the order of this epoch follows from it
        order, started = self.steps.new_order(), time.monotonic()
        while self.step < self.steps.per_epoch:
            late = self.is_alone and time.monotonic() - max(started, self.saved) > SAVE_SECONDS
            if self.stop.asked or late:
                self._save(before)
            if self.stop.asked:
                return False
            self.seen.append(self.steps.step(order, self.step))
            self.step += 1
        return True

    def _mean_losses(self) -> list[float]:
        """Mean of each term over the steps. Looking at the numbers only here keeps a GPU from waiting at every step."""
        terms = self.steps.fabric.all_reduce(torch.stack(self.seen), reduce_op="sum")  # (steps, terms)
        bad = (~terms.isfinite()).nonzero()
        if len(bad):
            step = int(bad[0, 0])
            # The total is not finite whenever a term is not; it is named only if it is the only one.
            names = [self.steps.loss.terms[term] for row, term in bad.tolist() if row == step]
            culprit = " and ".join(names[1:] or names)
            raise diverged(f"the {culprit} loss is not finite at step {step + 1} of epoch {self.epoch}")
        return terms.mean(0).tolist()

    def _row(self, terms: list[float]) -> Row:
        trained = {f"train_{loss_name(name)}": loss for name, loss in zip(self.steps.loss.terms, terms, strict=True)}
        stopped = {f"stop_{name}": value for name, value in self.steps.evaluate().items()}
        return {"epoch": self.epoch} | trained | stopped | {"learning_rate": self.steps.optimizer.param_groups[0]["lr"]}

    def _speed(self, seconds: float, validation: float, steps: int) -> Row:
        """Speed of the epoch's `steps` (fewer after a resumption), time left without an early stop, and memory."""
        whole = seconds * self.steps.per_epoch / max(1, steps)
        return {
            "seconds": seconds,
            "samples_per_second": len(self.steps.train_index) / whole if steps else math.nan,
            "seconds_left": (self.training.epochs - self.epoch) * (whole + validation),
            "memory_gb": memory_in_use(self.steps.panel.device) / 1e9,
        }

    def _keep(self, row: Row) -> None:
        """Take the epoch into the history, its weights if they are the best, and the whole state to disk."""
        self.history.append(row)
        badness = row["stop_loss"] if self.training.early_stopping_metric == "loss" else -row["stop_roc_auc"]
        if badness < self.best:
            self.best, self.best_epoch = badness, self.epoch
            self.best_weights = deepcopy(self.steps.best_model.state_dict())
        self.epoch, self.step, self.seen = self.epoch + 1, 0, []
        if self.steps.fabric.broadcast(time.monotonic() - self.saved >= self.save_seconds / SAVE_SHARE):
            self._save(self.steps.generator.get_state())

    def _report_recompiles(self) -> None:
        """Both graphs are made when they first run, and again when encoders thaw; more would be a fault."""
        surplus = compiled_graphs() - self.graphs - self.graphs_expected
        if surplus > 0:
            self.graphs_expected += surplus
            warnings.warn(f"torch.compile made {surplus} more graphs in epoch {self.epoch}", stacklevel=2)
        if self.epoch == self.training.freeze_encoder_epochs > 0:
            self.graphs_expected += 2

    def _save(self, order_state: Tensor) -> None:
        if self.save_point is None:
            return
        started = time.monotonic()
        loop = {name: getattr(self, name) for name in Loop.model_fields}
        state = self.steps.state() | {"order_state": order_state, "loop": loop}
        if self.steps.fabric.is_global_zero:
            self.save_point.save(state)
        self.saved = time.monotonic()
        self.save_seconds = self.saved - started

    def _resume(self) -> None:
        state = self.save_point.load(self.steps.panel.device) if self.save_point is not None else None
        if state is None:
            return
        try:
            self.steps.load_state(state)
        except Exception as error:  # each part of a state has errors of its own for what does not fit
            problem = f"{self.save_point.path}: its state does not fit this training ({first_line(error)})"
            raise CmatError(f"{problem}; delete it to start anew") from None
        vars(self).update(state["loop"])
