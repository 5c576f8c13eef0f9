"""Work that goes on under other versions says so."""

import warnings

import pytest

from unite_core.versions import note_versions, warn_of_versions


def test_a_difference_is_said_and_equality_is_not():
    now = note_versions()
    assert {"python", "torch", "transformers", "numpy"} <= set(now)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_versions(now, "runs/x")
        warn_of_versions(None, "runs/x")
    before = {**now, "torch": "1.0", "old": "2"}
    with pytest.warns(UserWarning, match=r"runs/x .*old 2 before, none now; torch 1.0 before, "):
        warn_of_versions(before, "runs/x")
