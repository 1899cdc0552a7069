"""The fakes of all families, written once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.rmkit.models.adopted.fakes import Fake


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fake]:
    """The fakes on Llama trunks by name; folders are not to be changed."""
    pytest.importorskip("torch").set_num_threads(1)
    from tests.rmkit.models.adopted import fakes as made

    root = tmp_path_factory.mktemp("fakes")
    makers = (made.scalars, made.mixtures, made.steps)
    return {fake.name: fake for make in makers for fake in make(root)}


@pytest.fixture(scope="session")
def all_fakes(fakes: dict[str, Fake], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fake]:
    """Encoders, GPT-NeoX, T5 and models of pairs too, whose classes take seconds to import."""
    from tests.rmkit.models.adopted import fakes as made

    root = tmp_path_factory.mktemp("fakes")
    return fakes | {fake.name: fake for make in (made.others, made.pairs) for fake in make(root)}
