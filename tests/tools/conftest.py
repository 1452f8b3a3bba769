"""A small finished run that tests copy and tamper with."""

import shutil

import pytest
import small_run


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """The results folder of a small run, which nobody changes."""
    folder = tmp_path_factory.mktemp("small") / "results"
    small_run.make(folder)
    return folder


@pytest.fixture
def results(made_once, tmp_path):
    """A copy of it, for a test to change."""
    return shutil.copytree(made_once, tmp_path / "results")
