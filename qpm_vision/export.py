"""A finished model as a file that other programs run: a program of `torch.export` (.pt2), or ONNX (.onnx)."""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import io
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qpm_opt import InvalidInputError, QPMError
from qpm_vision._torch_state import plain_torch
from qpm_vision.backbones.finite import not_finite
from qpm_vision.model import QPMClassifier
from qpm_vision.predict import Predictor, load_model
from qpm_vision.run_folder import RunFolder, RunFolderError

__all__ = ["ExportError", "Exported", "export_model"]

FORMAT = 1
_KIND = "qpm_vision.export"
_TOLERANCE = 1e-4
_BATCH_SIZES = (1, 3)
_OUTPUTS = ("logits", "features")
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

Run = Callable[[Tensor], tuple[Tensor, ...]]


class ExportError(QPMError):
    """A model cannot be exported, or what was exported computes something else; no file is left."""


@dataclass(frozen=True)
class Exported:
    """What `export_model` wrote.

    Attributes:
        path: The graph.
        sidecar: What is needed to use it, JSON: class names, preprocessing, also in words, which features were
            selected, their weights, means and deviations, input, outputs, versions, and how well the graph agrees with
            the model.
        difference: Largest absolute difference of logits and features between the file and the model.
        batch_sizes: Sizes of the random batches that were compared.
    """

    path: Path
    sidecar: Path
    difference: float
    batch_sizes: tuple[int, ...]


@plain_torch()
def export_model(
    run: Predictor | RunFolder | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    tolerance: float = _TOLERANCE,
) -> Exported:
    """Write the interpretable model of a run as a graph, with a JSON file of the same name beside it.

    The graph takes normalised images (B, 3, size, size) float32 for any B, and returns logits (B, n_classes) and pooled
    kept features (B, n_select), both float32. It is read again and compared with the model on random images before it
    takes the place of `out`.

    Args:
        run: The run folder, or a model that `load_model` gave.
        out: File to write, ending in .pt2 or .onnx.
        tolerance: Largest difference that is accepted, relative to the largest absolute value of logits or features.

    Raises:
        InvalidInputError: `out` has another ending, or a foreign file is in the place of the JSON file.
        ExportError: The packages for ONNX are missing (`pip install "qpm[export]"`), the backbone cannot be exported,
            or the graph differs from the model.
        RunFolderError: The run has no finished model, or a file cannot be written.
    """
    target = Path(out)
    formats: dict[str, Callable[[Any, Path], Run]] = {".pt2": _write_program, ".onnx": _write_onnx}
    write = formats.get(target.suffix.lower())
    if write is None:
        raise InvalidInputError(
            f"The 'out' parameter must end in .pt2 (torch.export) or .onnx. Got {str(target)!r}; choose one of the two."
        )
    if not tolerance >= 0:
        raise InvalidInputError(f"The 'tolerance' parameter must be a number of at least 0. Got {tolerance!r}.")
    folder, sidecar = RunFolder(target.parent), target.with_suffix(".json")
    _refuse_foreign(folder, sidecar)
    if write is _write_onnx:
        _require_onnx()
    predictor = run if isinstance(run, Predictor) else load_model(run, device="cpu")
    size = predictor.preprocessing.size
    amiss = not_finite(predictor.model.state_dict())
    if amiss is not None:
        raise ExportError(f"The model must have finite tensors. Got {amiss}; restore its file, or train it again.")
    model = _Graph(predictor.model)
    traced = _traced(model, size)
    with folder.replacing(target.name) as path:
        difference = _compared(model, write(traced, path), size, tolerance, target)
        # Inside: without its description the graph is of no use, so neither is left where one cannot be written.
        folder.write_json(sidecar.name, _described(predictor, target.name, difference))
    return Exported(target, sidecar, difference, _BATCH_SIZES)


class _Graph(nn.Module):
    """The model on the CPU as a function of one tensor to two, without gradients."""

    def __init__(self, model: QPMClassifier) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(images)
        return output.logits, output.features


# -- writing -------------------------------------------------------------------------------------------------------


def _traced(model: _Graph, size: int) -> Any:
    shapes = {"images": {0: torch.export.Dim("batch")}}
    try:
        # Two images: a dimension of one would be taken for a constant.
        program = torch.export.export(model, (torch.zeros(2, 3, size, size),), dynamic_shapes=shapes)
    # Whatever a module does that cannot be traced ends in an error of its own kind.
    except Exception as error:
        raise ExportError(
            f"The backbone {model.model.backbone.name!r} cannot be exported: {_first_line(error)}. Its forward pass "
            "must be traceable by torch.export, which hooks and control flow that depends on values are not."
        ) from error
    program.example_inputs = None  # they would be pickled, and nobody needs them
    return program


def _write_program(program: Any, path: Path) -> Run:
    with warnings.catch_warnings():
        # Weights that are laid out channels last are not "complete" in the sense of PyTorch; on the CPU, where these
        # are, they are written well, as the comparison shows.
        warnings.filterwarnings("ignore", "No complete tensor found", UserWarning)
        # In memory first: the library that writes to files ends the process where a disk is full.
        content = io.BytesIO()
        torch.export.save(program, content)
    path.write_bytes(content.getbuffer())
    loaded: Run = torch.export.load(path).module()
    return loaded


def _write_onnx(program: Any, path: Path) -> Run:
    import onnxruntime

    with warnings.catch_warnings():
        # Of PyTorch's own code about PyTorch's own classes, when it copies a program.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        graph = torch.onnx.export(
            program, input_names=["images"], output_names=list(_OUTPUTS), dynamo=True, verbose=False
        )
    if graph is None:
        raise ExportError("The installed PyTorch made no ONNX graph; install a newer one: pip install -U torch")
    content = graph.model_proto.SerializeToString()
    path.write_bytes(content)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return partial(_run_onnx, session)


def _run_onnx(session: Any, images: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in session.run(list(_OUTPUTS), {"images": images.numpy()}))


def _compared(model: nn.Module, run: Run, size: int, tolerance: float, target: Path) -> float:
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for number in _BATCH_SIZES:
        images = torch.randn(number, 3, size, size, generator=generator)
        with torch.no_grad():
            pairs = zip(_OUTPUTS, model(images), run(images), strict=True)
        for name, expected, got in pairs:
            difference = float((expected - got).abs().max()) if expected.shape == got.shape else float("nan")
            if not difference <= tolerance * float(expected.abs().max()):
                raise ExportError(
                    f"The exported graph must agree with the model up to {tolerance:g} of its largest value. Got a "
                    f"difference of {difference:.3g} in the {name} of {number} image{'s'[: number - 1]}, whose largest "
                    f"value is {float(expected.abs().max()):.3g}; {str(target)!r} was not written. Use the other "
                    "format, or other versions of the packages."
                )
            largest = max(largest, difference)
    return largest


def _described(predictor: Predictor, graph: str, difference: float) -> dict[str, Any]:
    model, size = predictor.model, predictor.preprocessing.size
    n_classes, n_select = model.weight.shape
    gallery = predictor.gallery
    return {
        "kind": _KIND,
        "format": FORMAT,
        "version": {"qpm": importlib.metadata.version("qpm"), "torch": torch.__version__},
        "graph": graph,
        "input": {"name": "images", "shape": ["batch", 3, size, size], "dtype": "float32", "normalised": True},
        "outputs": [
            {"name": "logits", "shape": ["batch", n_classes], "dtype": "float32"},
            {"name": "features", "shape": ["batch", n_select], "dtype": "float32"},
        ],
        "logits": "((features - mean) / max(std, 1e-6)) @ transpose(weights)",
        "backbone": model.backbone.name,
        "class_names": list(predictor.class_names),
        "preprocessing": predictor.preprocessing.to_dict(),
        "preparation": predictor.preprocessing.steps(),
        "selected": model.selected.tolist(),
        "feature_names": {str(number): name for number, name in predictor.feature_names.items()},
        "weights": model.weight.int().tolist(),
        "mean": model.mean.tolist(),
        "std": model.std.tolist(),
        "full_strength": None if gallery is None else gallery.scale.tolist(),
        "largest_absolute_difference": difference,
        "compared_batch_sizes": list(_BATCH_SIZES),
    }


# -- refusing ------------------------------------------------------------------------------------------------------


def _refuse_foreign(folder: RunFolder, sidecar: Path) -> None:
    """`metrics.onnx` in a run folder would cost the run its `metrics.json`."""
    if not sidecar.exists():
        return
    try:
        kind = folder.read_json(sidecar.name).get("kind")
    except RunFolderError:
        kind = None
    if kind != _KIND:
        raise InvalidInputError(
            f"The 'out' parameter must have a name of its own, for {str(sidecar)!r} is written as well. Got one where "
            "this is another file; choose another name or folder."
        )


def _require_onnx() -> None:
    for name in _ONNX_PACKAGES:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ExportError(
                f"Exporting ONNX needs the packages {', '.join(_ONNX_PACKAGES)}; {error.name!r} is not installed: "
                'pip install "qpm[export]", or export to a file that ends in .pt2, which needs none of them.'
            ) from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")
