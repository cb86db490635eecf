"""What several modules start from: the tiny backbone by name, and a finished run of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qpm_vision.pipeline import run
from qpm_vision.run_folder import RunFolder
from tests.vision.tiny import registered, tiny_config, tiny_data


@pytest.fixture(scope="module")
def tiny_registered() -> Iterator[None]:
    with registered():
        yield


@pytest.fixture(scope="module")
def finished(tiny_registered: None, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(tiny_config(), tmp_path_factory.mktemp("finished") / "run", data=tiny_data())
