"""What several modules start from: the tiny backbone by name, and a finished run of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from qpm_vision.data import ImageData
from qpm_vision.pipeline import run
from qpm_vision.report import Report, gather_report
from qpm_vision.run_folder import RunFolder
from tests.vision.tiny import registered, tiny_config, tiny_data


@pytest.fixture(scope="module")
def tiny_registered() -> Iterator[None]:
    with registered():
        yield


@pytest.fixture(scope="module")
def without_pictures() -> Iterator[None]:
    """Runs leave out their pictures, which take longer than all else in tiny ones; for modules that look at none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qpm_vision.pipeline.save_picture", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def finished(tiny_registered: None, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(tiny_config(), tmp_path_factory.mktemp("finished") / "run", data=tiny_data())


HOSTILE = ("<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>&amp;</template>", "Ba$$in,b=c#%41 \\")
"""Names of classes that would change a page, an address or a picture if they were taken for parts of it."""


class Reported(NamedTuple):
    """What a page shows, and the run that it is about."""

    report: Report
    folder: RunFolder
    data: ImageData


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """A report whose classes have hostile names, and which has mistakes to show: the model is hardly trained."""
    data = tiny_data(names=(*HOSTILE, "\uac00 west"))
    with registered():
        folder = run(tiny_config(), tmp_path_factory.mktemp("reported") / "run", data=data)
    return Reported(gather_report(folder, data=data, device="cpu"), folder, data)
