"""From a finished run to what can be said about its heat maps: looks at test images, and keeps what it found."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpm_opt import InvalidInputError
from qpm_vision._progress import Reporter, SilentReporter
from qpm_vision._torch_state import plain_torch
from qpm_vision._work import Work
from qpm_vision.config import RunConfig
from qpm_vision.data import ImageData, ImageSet, load_data
from qpm_vision.explain import Explainer, load_explainer
from qpm_vision.explain.saving import save_picture
from qpm_vision.faithfulness.locate import locate_features
from qpm_vision.faithfulness.perturbation import perturb
from qpm_vision.faithfulness.picture import draw_faithfulness
from qpm_vision.faithfulness.result import RESULT, Faithfulness
from qpm_vision.faithfulness.saliency import PEERS, available_methods
from qpm_vision.run_folder import RunFolder
from qpm_vision.training_state import weights_digest

__all__ = ["FIGURE", "measure_faithfulness"]

FIGURE = "figures/faithfulness.png"
"""The picture of it."""

_STATE = "faithfulness-part.npz"
_MOST_FOR_BLANK = 256
"""Training images whose mean is the blank image."""


@plain_torch()
def measure_faithfulness(
    run: RunFolder | str | os.PathLike[str],
    *,
    images: int = 100,
    seed: int = 0,
    data: ImageData | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Faithfulness:
    """Measure how far the heat maps of a run can be trusted; writes `faithfulness.json` and a picture into its folder.

    A measurement that is stopped goes on where it was when it is begun again in the same way.

    Args:
        run: The folder of a finished run.
        images: Test images to perturb, at least 2; all if there are not so many. Places of parts are looked up in all
            test images in which they are known.
        seed: Of the choice of images and of all that is random.
        data: The data of the run; loaded again by default, which needs them at the same place.
        device: Where to compute.
        reporter: Told about progress; nobody by default.

    Raises:
        InvalidInputError: An argument is out of range, or the data have changed since.
        RunFolderError: The run is not finished, its files are damaged, or nothing can be written.
    """
    for name, value, least in (("images", images, 2), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidInputError(f"The '{name}' parameter must be an integer of at least {least}. Got {value!r}.")
    folder = RunFolder.open(run)
    folder.require("explanation", "is not finished")
    config = dataclasses.replace(RunConfig.of(folder), device=device)
    known = load_data(config.data, **config.division) if data is None else data
    work = Work(config, folder, SilentReporter() if reporter is None else reporter, known)
    explainer = load_explainer(folder, data=known, device=work.device)
    with folder.lock(), work.report:
        result = _measured(work, explainer, images, seed)
        folder.write_json(RESULT, result.to_dict())
        again = "The same command draws it again."
        save_picture(folder, FIGURE, lambda: draw_faithfulness(result)[0], work.report, again)
    return result


def _measured(work: Work, explainer: Explainer, number: int, seed: int) -> Faithfulness:
    model, test = explainer.model, work.data.test
    methods = available_methods()
    missing = [name for name in PEERS if name not in methods]
    if missing:
        work.report.message(f'note: without {" and ".join(missing)}, which need Captum: pip install "qpm[peers]"')
    rng = np.random.default_rng(seed)
    positions = np.sort(rng.choice(len(test), min(number, len(test)), replace=False))
    sample = rng.choice(len(explainer.images), min(_MOST_FOR_BLANK, len(explainer.images)), replace=False)
    blank = _stacked(explainer, explainer.images, np.sort(sample)).mean(dim=0).to(work.device)
    found = perturb(
        model,
        lambda chosen: _stacked(explainer, test, np.asarray(chosen)).to(work.device),
        positions.tolist(),
        blank,
        explainer.gallery.scale,
        seed=seed,
        state=work.folder.path / _STATE,
        on_images=work.counter("deleting, inserting, shifting", len(positions)),
    )
    parts = work.data.parts
    pointing = None
    if parts is not None:
        pointing = locate_features(
            model,
            test,
            work.batches(test, explainer.preprocessing),
            explainer.preprocessing,
            parts,
            seed=seed,
            on_images=work.counter("looking where features are", len(test)),
        )
    with torch.no_grad():
        height, width = model(blank[None]).maps.shape[2:]
    deletion, insertion, feature_deletion = found.curves()
    return Faithfulness(
        model=weights_digest(model),
        images=len(positions),
        seed=seed,
        input_size=explainer.preprocessing.size,
        map_size=(height, width),
        reach=found.reaches((height, width), seed),
        deletion=deletion,
        insertion=insertion,
        feature_deletion=feature_deletion,
        agreement=found.agreements(),
        stability=found.stabilities(),
        pointing=pointing,
    )


def _stacked(explainer: Explainer, images: ImageSet, positions: npt.NDArray[np.int64]) -> Tensor:
    transform = explainer.preprocessing.transform()
    return torch.stack([transform(images.image(int(position))) for position in positions])
