"""How far a training has come, in one file, so that it can go on as if it had never been stopped.

The file holds the model, the momentum of the optimiser, the best weights so far where a validation set chooses them,
and the figures of the epochs that are done and of the one under way. Nothing random is kept: order, augmentation and
dropout follow from the seed and the number of the step.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from qpm_vision._forms import require_form
from qpm_vision._reading import shortened
from qpm_vision._safetensors import read_safetensors
from qpm_vision.run_folder import RunFolder, RunFolderError

__all__ = ["TrainingState", "TrainingStateFile", "weights_digest"]

_KEY = "training"
_MODEL, _MOMENTUM, _BEST = "model/", "momentum/", "best/"
_BUFFER = "momentum_buffer"
_SUMS = [0.0] * 5
_FORM = {
    "identity": {},
    "state": {"epoch": int, "batches": int, "sums": [float], "seconds": float, "history": [{"epoch": int}]},
}

_log = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """Where a training stands.

    Attributes:
        epoch: The epoch under way, from 1 on; one more than there are when all are done.
        batches: Batches of it that are done.
        sums: What its row of the history is made of, summed over the images so far.
        seconds: That it has taken so far.
        history: Rows of the epochs that are done.
        best: Weights of the best epoch so far, where a validation set chooses one.
    """

    epoch: int = 1
    batches: int = 0
    sums: list[float] = field(default_factory=lambda: list(_SUMS))
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] | None = None


class TrainingStateFile:
    """Keeps the state of one training; a file of another one is ignored.

    Args:
        path: The safetensors file.
        identity: What the training is, of values that JSON can hold: a state is only taken up where all of it is equal.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        # As JSON has it: a tuple comes back as a list.
        self._identity = json.loads(json.dumps(identity))

    def save(self, state: TrainingState, model: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
        """Keep the state in place of an earlier one; a disk that is full ends no training, but is logged.

        Returns:
            Whether it was kept.
        """
        tensors = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
        for name, parameter in model.named_parameters():
            momentum = optimizer.state.get(parameter, {}).get(_BUFFER)
            if momentum is not None:
                tensors[_MOMENTUM + name] = momentum
        tensors |= {_BEST + name: tensor for name, tensor in (state.best or {}).items()}
        copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        figures = {key: value for key, value in vars(state).items() if key != "best"}
        header = json.dumps({"identity": self._identity, "state": figures})
        try:
            RunFolder(self.path.parent).write_path(
                self.path.name, lambda path: save_file(copies, path, metadata={_KEY: header})
            )
        except (RunFolderError, SafetensorError) as error:
            _log.warning("The state of the training was not kept, so that it could not go on from here: %s", error)
            return False
        return True

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingState | None:
        """Put model and optimiser where they were; None, and nothing changed, where there is no state that fits."""
        if not self.path.exists():
            return None
        try:
            metadata, tensors = read_safetensors(self.path)
            header = json.loads(metadata[_KEY])  # with NaN, which a loss may be
            require_form(header, _FORM)
            if header["identity"] != self._identity:
                _log.warning("%s is of another training; this one begins anew", self.path)
                return None
            state = TrainingState(**header["state"])
            _require_fitting(state, tensors, model)
        except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            _log.warning("%s is damaged (%s); the training begins anew", self.path, shortened(error))
            return None
        model.load_state_dict(_part(tensors, _MODEL))
        momenta = _part(tensors, _MOMENTUM)
        for name, parameter in model.named_parameters():
            if name in momenta:
                # Laid out like the parameter, as the optimiser would have made it.
                optimizer.state[parameter][_BUFFER] = torch.empty_like(parameter).copy_(momenta[name])
        state.best = _part(tensors, _BEST) or None
        return state

    def forget(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def weights_digest(model: nn.Module) -> str:
    """A number that is equal for models with equal weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _require_fitting(state: TrainingState, tensors: dict[str, Tensor], model: nn.Module) -> None:
    """Raise where a state is none that such a model can have."""
    if not 1 <= state.epoch == len(state.history) + 1 or state.batches < 0 or len(state.sums) != len(_SUMS):
        raise ValueError(f"it is in epoch {state.epoch}, behind {len(state.history)} epochs")
    wanted, parameters = model.state_dict(), dict(model.named_parameters())
    for prefix, known in ((_MODEL, wanted), (_MOMENTUM, parameters), (_BEST, wanted)):
        found = _part(tensors, prefix)
        # There may be no best epoch yet, and no momentum of what is not trained.
        if found.keys() - known.keys() or (prefix != _MOMENTUM and found and known.keys() - found.keys()):
            raise ValueError("its tensors have other names than those of the model")
        for name, tensor in found.items():
            if tensor.shape != known[name].shape or tensor.dtype != known[name].dtype:
                raise ValueError(f"its tensor {prefix + name!r} is {tensor.dtype} {tuple(tensor.shape)}")
    if not _part(tensors, _MODEL):
        raise ValueError("it has no model")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
