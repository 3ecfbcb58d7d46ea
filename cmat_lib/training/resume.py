"""``last.pt``: the whole state of a training in one file, so that a killed one goes on as if nothing had happened."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from pydantic import InstanceOf

from cmat_lib.base.errors import CmatError
from cmat_lib.training.checkpoint import Kind, read_tensors, write_tensors


class Loop(Kind):
    """Where `cmat_lib.training.trainer.train` is: its attributes of these names."""

    epoch: int
    step: int
    seen: list
    history: list
    best: float
    best_epoch: int
    best_weights: dict


class State(Kind):
    """What a save point holds beside its fingerprint."""

    fingerprint: str
    device: str
    model: dict
    average: dict
    loss: dict
    optimizer: dict
    scheduler: dict
    precision: dict
    random_states: InstanceOf[torch.Tensor]
    order_state: InstanceOf[torch.Tensor]
    loop: Loop


class SavePoint(NamedTuple):
    """Where the state of a training is kept."""

    path: Path  # replaced atomically at every save
    fingerprint: str  # of everything that the training depends on; a state with another one is an error
    resume: bool = False  # whether to go on from the state that is there

    def save(self, state: dict[str, Any]) -> None:
        """Write the state: tensors and plain types only."""
        write_tensors(self.path, {"fingerprint": self.fingerprint, **state})

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """State to go on from, on `device`; None, with a warning that says why, if there is none.

        A state of a training with other parameters, which would be lost, is a CmatError.
        """
        if not self.resume:
            return None
        if not self.path.is_file():
            return self._anew("there is no saved state yet")
        try:
            state = read_tensors(self.path, device)
        except CmatError as error:
            return self._anew(str(error))
        # By repr, as a tensor has no truth value.
        if not isinstance(state, dict) or repr(state.get("fingerprint")) != repr(self.fingerprint):
            raise CmatError(
                f"{self.path} was made with other parameters, input files or code: resume with those, or train without "
                "resume, which starts anew and replaces it"
            )
        if reason := State.misfit(state):
            return self._anew(f"{self.path}: damaged ({reason})")
        if state["device"] != device.type:
            return self._anew(f"{self.path} was made on a device of another kind ({state['device']})")
        return state

    def _anew(self, reason: str) -> None:
        warnings.warn(f"training starts anew: {reason}", stacklevel=4)


def random_states(fabric: Fabric) -> torch.Tensor:
    """State of torch's random numbers on every process's device, shape (processes, bytes)."""
    own = torch.cuda.get_rng_state(fabric.device) if fabric.device.type == "cuda" else torch.get_rng_state()
    states = torch.zeros(fabric.world_size, len(own), dtype=torch.uint8, device=fabric.device)
    states[fabric.global_rank] = own.to(fabric.device)
    return fabric.all_reduce(states, reduce_op="sum")


def restore_random_states(states: torch.Tensor, fabric: Fabric) -> None:
    """Inverse of `random_states`."""
    own = states[fabric.global_rank].cpu()
    if fabric.device.type == "cuda":
        torch.cuda.set_rng_state(own, fabric.device)
    else:
        torch.set_rng_state(own)
