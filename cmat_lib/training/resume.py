"""``last.pt``: the whole state of a training, so that a killed or stopped one goes on as if nothing had happened."""

import signal
import threading
import warnings
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Self

import torch
from lightning_fabric import Fabric

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
    random_states: torch.Tensor
    order_state: torch.Tensor
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
        """State to go on from; None, with a warning, if there is none; a CmatError if it is of other parameters."""
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
            advice = "resume with those, or train without resume, which starts anew and replaces it"
            raise CmatError(f"{self.path} was made with other parameters, input files or code: {advice}")
        if reason := State.misfit(state):
            return self._anew(f"{self.path}: damaged ({reason})")
        if state["device"] != device.type:
            return self._anew(f"{self.path} was made on a device of another kind ({state['device']})")
        return state

    def _anew(self, reason: str) -> None:
        warnings.warn(f"training starts anew: {reason}", stacklevel=4)


class StopRequest:
    """Inside ``with`` the first Ctrl-C (or SIGTERM) sets `asked`, a second one interrupts; in the main thread only."""

    def __init__(self, enabled: bool = True) -> None:
        self.asked, self._enabled = False, enabled
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if self._enabled and threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.__exit__()


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
