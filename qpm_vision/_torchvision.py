"""Makes torchvision importable beside a PyTorch without CUDA; import this module before torchvision or timm.

The torchvision of PyPI is built for CUDA. Beside a CPU build of PyTorch its compiled part cannot be loaded, and its
Python part then fails at import because the operator `torchvision::nms` is unknown. Declaring the two operators that
it looks for is enough for models, feature extraction and `transforms.v2`; `torchvision.io` and `torchvision.ops` stay
out of order and are not used here. Nothing happens where torchvision imports as it is, or is not installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys

import torch

__all__: list[str] = []

_SYMPTOM = "operator torchvision::nms does not exist"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_log = logging.getLogger(__name__)


def _repair() -> torch.library.Library | None:
    """Import torchvision; returns what keeps the declared operators alive, None where none had to be declared."""
    if importlib.util.find_spec("torchvision") is None:
        return None
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if _SYMPTOM not in str(error):
            raise
    else:
        return None
    # What the failed import left behind would be taken for complete modules by the next one.
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    importlib.import_module("torchvision")
    _log.debug("torchvision has no compiled part for this PyTorch: declared nms and qnms")
    return library


_library = _repair()  # the declarations end with this handle
