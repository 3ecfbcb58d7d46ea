"""One optimiser step and one look at the stop part: model, loss, optimiser and schedule on their device(s)."""

import math
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from sklearn.metrics import roc_auc_score
from torch import Tensor

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config
from cmat_lib.models import build_model
from cmat_lib.training.devices import is_on
from cmat_lib.training.memory import check_memory
from cmat_lib.training.objective import Objective
from cmat_lib.training.optimisation import WeightAverage, adamw, build_loss, count_steps, micro_batch, prior, schedule
from cmat_lib.training.resume import random_states, restore_random_states
from cmat_lib.views.panel import Panel


class Steps:
    """What one training computes with.

    Every batch has the same shape, so that a compiled graph fits all: a short one is filled up with samples of
    weight 0, which count in BatchNorm's statistics and nowhere else. A batch of ``training.batch_size`` samples is
    shared among the processes, so their number does not change what is learned, but for BatchNorm, whose statistics are
    those of each process's share, and for dropout. `fabric` must be launched, if it has several processes; `raw` is the
    model without wrappers, `per_epoch` the optimiser steps of an epoch. A CmatError if the memory does not hold a
    batch, or ``training.batch_size`` cannot be shared among the processes.
    """

    def __init__(self, fabric: Fabric, panel: Panel, config: Config) -> None:
        self.fabric, self.panel, self.training = fabric, panel, config.training
        self.train_index, self.stop_index = panel.index("train"), panel.index("stop")
        self.size = micro_batch(len(self.train_index), self.training, fabric.world_size)
        self.per_epoch = count_steps(len(self.train_index), self.training, fabric.world_size)
        check_memory(config, panel.device, self.size, fabric.world_size)
        torch.manual_seed(config.seed)
        self.generator = torch.Generator(device=panel.device).manual_seed(config.seed)
        self.raw = build_model(config).to(panel.device)
        self.loss = build_loss(config, panel).to(panel.device)
        self.raw.start_from(prior(self.loss, panel), self.loss.max_pct_std)
        self.average = WeightAverage(self.raw, self.training.ema_decay) if self.training.ema_decay else None
        if fabric.global_rank:
            torch.manual_seed(config.seed + fabric.global_rank)  # other dropout masks than the first process has
        self._plain_optimizer = adamw(self.raw, self.loss, self.training, panel.device)
        self.is_compiled = is_on(self.training.compile, panel.device)
        if self.is_compiled:
            torch.compiler.reset()  # a process keeps few graphs; those of an earlier training would use them up
        self.objective, self.optimizer = fabric.setup(self._objective(self.raw), self._plain_optimizer)
        self._judge = self._objective(self.best_model)
        factor = partial(schedule, total=self.per_epoch * self.training.epochs, warmup_share=self.training.warmup_share)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self._plain_optimizer, factor)

    def _objective(self, model: torch.nn.Module) -> torch.nn.Module:
        objective = Objective(model, self.loss)
        if not self.is_compiled:
            return objective
        # A GPU replays its kernels as CUDA graphs, but not where gradients accumulate over several passes: they would
        # live in the graph's own memory, which the next replay overwrites.
        replay = self.panel.device.type == "cuda" and self.training.gradient_accumulation_steps == 1
        return torch.compile(objective, dynamic=False, mode="reduce-overhead" if replay else None)

    @property
    def best_model(self) -> torch.nn.Module:
        """The model that is judged and kept: the average over the steps where there is one, else the model itself."""
        return self.raw if self.average is None else self.average.module

    def freeze_encoders(self, frozen: bool) -> None:
        """Frozen encoders get no gradient, and their BatchNorm and dropout stand still; all else is in train mode."""
        self.objective.train()
        self.raw.encoders.requires_grad_(not frozen).train(not frozen)

    def new_order(self) -> Tensor:
        """Samples of the train part in a new random order, shape (n,)."""
        order = torch.randperm(len(self.train_index), generator=self.generator, device=self.panel.device)
        return self.train_index[order]

    def step(self, order: Tensor, number: int) -> Tensor:
        """Optimiser step `number` from 0 of an epoch's `order` (n,): this process's share of the losses, (terms,)."""
        length = self.size * self.training.gradient_accumulation_steps
        chunk = order[number * length : (number + 1) * length]
        weights = self.panel.weight[chunk]
        weights = weights / weights.sum()
        sums, starts = torch.zeros(len(self.loss.terms), device=self.panel.device), range(0, len(chunk), self.size)
        for start in starts:
            with self.fabric.no_backward_sync(self.objective, enabled=start != starts[-1]):
                sums += self._forward_backward(*self.own_share(chunk, weights, start, order))
        clip = {"max_norm": self.training.gradient_clip, "error_if_nonfinite": False}
        self.fabric.clip_gradients(self.objective, self.optimizer, **clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        if self.average is not None:
            self.average.update(self.raw)
        return sums

    def own_share(self, chunk: Tensor, weights: Tensor, start: int, order: Tensor) -> tuple[Tensor, Tensor]:
        """Samples and weights of one batch for this process."""
        index, weight = chunk[start : start + self.size], weights[start : start + self.size]
        if missing := self.size - len(index):
            index, weight = torch.cat([index, order[:missing]]), torch.cat([weight, weight.new_zeros(missing)])
        rank, world = self.fabric.global_rank, self.fabric.world_size
        return index[rank::world], weight[rank::world]

    def _forward_backward(self, index: Tensor, weight: Tensor) -> Tensor:
        batch = self.panel.gather(index)
        if self.is_compiled:
            torch.compiler.cudagraph_mark_step_begin()
        losses = self.objective(batch.inputs, batch.targets, weight).losses  # (terms,)
        self.fabric.backward(losses[0] * self.fabric.world_size)  # the reducer takes the mean over processes
        return losses.detach()

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Mean loss terms on the stop part and its ROC-AUC; a CmatError for answers that are not finite."""
        if self.fabric.world_size > 1:  # BatchNorm's statistics that are kept are the first process's
            for buffer in self.best_model.buffers():
                torch.distributed.broadcast(buffer, 0)
        self._judge.eval()
        said, targets = self._answers(self.stop_index), self.panel.targets(self.stop_index)
        terms = {name: float(loss) for name, loss in self._judge.losses(said, targets).items()}
        if not all(map(math.isfinite, terms.values())):
            raise diverged("the model's answers on the stop part are not finite")
        auc = roc_auc_score(targets[0].cpu().numpy(), said[:, 0].cpu().numpy())
        return {loss_name(term): value for term, value in terms.items()} | {"roc_auc": float(auc)}

    def _answers(self, index: Tensor) -> Tensor:
        """Answers for the samples of `index`, (n, 2 or 6); the processes share the work."""
        world, padded = self.fabric.world_size, math.ceil(len(index) / self.size) * self.size
        places = torch.arange(padded, device=index.device).view(-1, self.size // world, world)
        answers = torch.zeros(padded, 2 + len(self.loss.auxiliary_scales), device=index.device)
        for place in places[:, :, self.fabric.global_rank]:  # (size / world,)
            batch = self.panel.gather(index[place % len(index)])
            with self.fabric.autocast():
                answers[place] = self._judge(batch.inputs, batch.targets, batch.weight).said
        return self.fabric.all_reduce(answers, reduce_op="sum")[: len(index)]

    def _parts(self) -> dict[str, Any]:
        """What has a state of its own; that of the precision is the scale of fp16 gradients."""
        learned = {"model": self.raw, "loss": self.loss, "optimizer": self._plain_optimizer}
        paced = {"scheduler": self.scheduler, "precision": self.fabric.strategy.precision}
        return learned | paced | ({} if self.average is None else {"average": self.average})

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, but the order of samples; all processes must call it together."""
        states = {name: part.state_dict() for name, part in self._parts().items()}
        shared = {"random_states": random_states(self.fabric), "device": self.panel.device.type}
        return {"average": {}} | states | shared

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`; ``order_state`` is that of `generator`."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.generator.set_state(state["order_state"].cpu())
        restore_random_states(state["random_states"], self.fabric)


def diverged(problem: str) -> CmatError:
    """Error for a training whose numbers are no numbers any more."""
    advice = "lower training.learning_rate, or look for extreme values in the inputs (notebook 01)"
    return CmatError(f"training stopped: {problem}; {advice}")


def loss_name(term: str) -> str:
    """Name of a loss term in the history."""
    return "loss" if term == "total" else f"{term}_loss"
