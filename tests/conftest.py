"""Every run of the tests, and what they start, has a cache of networks of its own; fixtures of several files."""

from __future__ import annotations

import pytest

from denoise_se import control_group
from denoise_se.graph_cache import ENVIRONMENT


@pytest.fixture(scope="session", autouse=True)
def graphs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, str(tmp_path_factory.mktemp("graphs")))
        yield


@pytest.fixture
def control_groups(tmp_path, monkeypatch):
    """A machine without control groups; gives a function that writes their files, and which ones are this process's."""
    monkeypatch.setattr(control_group, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(control_group, "OWN_GROUPS", tmp_path / "own")

    def write(own="", **files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write
