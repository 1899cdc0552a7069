"""Full collections are put off within, and back as they were once the last one is out."""

from __future__ import annotations

import gc

import pytest

from rmkit.garbage import few_full_collections


def test_the_last_one_out_sets_the_thresholds_back() -> None:
    usual = gc.get_threshold()
    first, second = few_full_collections(), few_full_collections()
    first.__enter__()
    second.__enter__()
    assert gc.get_threshold() == (*usual[:2], 10_000)
    first.__exit__(None, None, None)  # not in the order of entering, as threads leave
    assert gc.get_threshold()[2] == 10_000
    second.__exit__(None, None, None)
    assert gc.get_threshold() == usual


def test_an_error_sets_them_back() -> None:
    usual = gc.get_threshold()
    with pytest.raises(ValueError, match="odd"), few_full_collections():
        raise ValueError("odd")
    assert gc.get_threshold() == usual
