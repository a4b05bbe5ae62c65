"""Every run of the tests, and what they start, has a cache of networks of its own."""

from __future__ import annotations

import pytest

from denoise_se.graph_cache import ENVIRONMENT


@pytest.fixture(scope="session", autouse=True)
def graphs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, str(tmp_path_factory.mktemp("graphs")))
        yield
