"""The fakes of all families, written once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.rmkit.models.adopted.fakes import Fake


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fake]:
    """Every fake by name; folders are not to be changed."""
    pytest.importorskip("torch").set_num_threads(1)
    from tests.rmkit.models.adopted import fakes as made

    root = tmp_path_factory.mktemp("fakes")
    makers = (made.scalars, made.mixtures, made.steps, made.others, made.pairs)
    return {fake.name: fake for make in makers for fake in make(root)}
