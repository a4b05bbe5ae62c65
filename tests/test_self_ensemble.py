"""The self-ensemble against its definition, and in tiles."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_model import save_tiny

from denoise_se.denoiser import Denoiser
from denoise_se.self_ensemble import SYMMETRIES, SelfEnsemble, turned, turned_back, turned_sides


def picture(height: int, width: int, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    return (np.linspace(0.2, 0.8, width)[None, :, None] + rng.normal(0, 0.1, (height, width, channels))).astype(
        np.float32
    )


def test_all_eight_symmetries_are_different_and_undone() -> None:
    planes = np.arange(2 * 3 * 4 * 6, dtype=np.float32).reshape(2, 3, 4, 6)
    images = {turned(planes, *how).tobytes() + bytes(turned(planes, *how).shape) for how in SYMMETRIES}
    assert len(images) == 8
    for how in SYMMETRIES:
        np.testing.assert_array_equal(turned_back(turned(planes, *how), *how), planes)


def test_sides_turn_with_their_picture() -> None:
    for side, where in enumerate([(0, slice(None)), (-1, slice(None)), (slice(None), 0), (slice(None), -1)]):
        planes = np.zeros((1, 1, 3, 5), np.float32)
        planes[0, 0][where] = 1
        for how in SYMMETRIES:
            picture = turned(planes, *how)[0, 0]
            full = [picture[0].all(), picture[-1].all(), picture[:, 0].all(), picture[:, -1].all()]
            assert list(turned_sides(tuple(side == other for other in range(4)), *how)) == full


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_it_is_the_mean_of_the_results_on_the_turned_pictures(tmp_path, backend) -> None:
    pytest.importorskip(backend)
    model = save_tiny(tmp_path / "tiny.safetensors", channels=1)
    plain = Denoiser.load(model, backend=backend, precision="fp32")
    eightfold = Denoiser.load(model, backend=backend, precision="fp32", self_ensemble=True)
    noisy = picture(24, 32)[..., 0]
    expected = np.zeros_like(noisy)
    for image, undo in ((noisy, lambda x: x), (noisy.T, lambda x: x.T)):
        for k in range(4):
            expected += undo(np.rot90(plain(np.ascontiguousarray(np.rot90(image, k)), 25.0), -k)) / 8
    np.testing.assert_allclose(eightfold(noisy, 25.0), expected, atol=1e-6)
    assert np.abs(eightfold(noisy, 25.0) - plain(noisy, 25.0)).max() > 1e-5
    assert "self-ensemble" in eightfold.backend.description


@pytest.mark.parametrize("size", [(70, 101), (64, 96), (33, 130), (1, 3)])
def test_tiles_do_not_change_the_result(tmp_path, size) -> None:
    whole = Denoiser.load(
        save_tiny(tmp_path / "tiny.safetensors", channels=1), tile=0, self_ensemble=True, backend="torch"
    )
    assert isinstance(whole.backend, SelfEnsemble)
    tiled = Denoiser(whole.checkpoint, whole.backend, tile=32)
    noisy = picture(*size)[..., 0]
    np.testing.assert_allclose(tiled(noisy, 25.0), whole(noisy, 25.0), atol=1e-5)
