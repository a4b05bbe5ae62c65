"""Published peers against a plain numpy convolution, from weight files made here; classical methods; bad files."""

from __future__ import annotations

import ast
import math
import pickle
import sys
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from denoise_se import peers
from denoise_se.classical import wavelet_sigma
from denoise_se.errors import CheckpointError, UsageError
from denoise_se.known_methods import CLASSICAL
from denoise_se.metrics import psnr
from denoise_se.peers import load_dncnn, load_ffdnet

PACKAGE = Path(peers.__file__).parent


def random_layers(widths, seed=0):
    """[(kernel [out, in, 3, 3], bias [out])], small enough that values stay near 1."""
    rng = np.random.default_rng(seed)
    return [
        ((rng.normal(0, 0.3, (out, inp, 3, 3))).astype(np.float32), rng.normal(0, 0.1, out).astype(np.float32))
        for inp, out in pairwise(widths)
    ]


def numpy_stack(layers, planes):
    """The network by scipy's correlation on `[C, H, W]`, zero padded."""
    for number, (kernel, bias) in enumerate(layers):
        if number:
            planes = np.maximum(planes, 0)
        planes = np.stack(
            [
                sum(correlate2d(x, k, mode="same") for x, k in zip(planes, ks, strict=True)) + b
                for ks, b in zip(kernel.astype(np.float64), bias, strict=True)
            ]
        )
    return planes


def write_pth(path, layers):
    state = {}
    for number, (kernel, bias) in enumerate(layers):
        state[f"model.{2 * number}.weight"] = torch.from_numpy(kernel)
        state[f"model.{2 * number}.bias"] = torch.from_numpy(bias)
    torch.save(state, path)
    return path


def write_mat(path, layers):
    """As MATLAB v7.3 stores a MatConvNet network: axes (out, in, width, height), a last axis of one output dropped."""
    text = lambda name: np.array([[ord(letter)] for letter in name], np.uint16)  # noqa: E731
    with h5py.File(path, "w") as file:
        references = []
        for number, (kernel, bias) in enumerate(layers):
            stored = kernel.swapaxes(-1, -2)
            refs = file.create_group("#refs#") if "#refs#" not in file else file["#refs#"]
            refs[f"w{number}"] = stored[0] if len(stored) == 1 else stored
            refs[f"b{number}"] = bias[None]
            conv = refs.create_group(f"conv{number}")
            conv["type"] = text("conv")
            weights = conv.create_dataset("weights", (2, 1), dtype=h5py.ref_dtype)
            weights[0, 0], weights[1, 0] = refs[f"w{number}"].ref, refs[f"b{number}"].ref
            relu = refs.create_group(f"relu{number}")
            relu["type"] = text("relu")
            references += [conv.ref, relu.ref]
        layers_set = file.create_group("net").create_dataset("layers", (len(references), 1), dtype=h5py.ref_dtype)
        for number, reference in enumerate(references):
            layers_set[number, 0] = reference
    return path


def image(*shape, seed=1):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


@pytest.mark.parametrize("write", [write_pth, write_mat])
@pytest.mark.parametrize("channels", [1, 3])
def test_dncnn_takes_the_predicted_noise_away(tmp_path, write, channels):
    layers = random_layers([channels, 4, 5, channels])
    suffix = ".pth" if write is write_pth else ".mat"
    network = load_dncnn(write(tmp_path / f"tiny{suffix}", layers))
    assert network.channels == channels and network.name == "dncnn:tiny"
    noisy = image(9, 13) if channels == 1 else image(9, 13, 3)
    planes = noisy[None] if channels == 1 else np.moveaxis(noisy, -1, 0)
    expected = planes - numpy_stack(layers, planes.astype(np.float64))
    result = network(noisy, None)
    assert result.shape == noisy.shape and result.dtype == np.float32
    np.testing.assert_allclose(result, expected[0] if channels == 1 else np.moveaxis(expected, 0, -1), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 12), (7, 11), (1, 1)])
def test_ffdnet_denoises_four_sub_images_with_a_map_of_sigma(tmp_path, channels, size):
    layers = random_layers([4 * channels + 1, 6, 4 * channels])
    network = load_ffdnet(write_mat(tmp_path / "tiny.mat", layers))
    assert network.channels == channels
    noisy = image(*size) if channels == 1 else image(*size, 3)
    planes = noisy[None] if channels == 1 else np.moveaxis(noisy, -1, 0)
    even = np.pad(planes, ((0, 0), (0, size[0] % 2), (0, size[1] % 2)), mode="edge")
    subs = [plane[y::2, x::2] for plane in even for y, x in ((0, 0), (1, 0), (0, 1), (1, 1))]
    clean = numpy_stack(layers, np.stack([*subs, np.full_like(subs[0], 25 / 255)]).astype(np.float64))
    expected = np.zeros_like(even)
    for index, (y, x) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        expected[:, y::2, x::2] = clean[index::4]
    expected = expected[:, : size[0], : size[1]]
    result = network(noisy, 25.0)
    np.testing.assert_allclose(result, expected[0] if channels == 1 else np.moveaxis(expected, 0, -1), atol=1e-5)


def test_ffdnet_estimates_a_sigma_that_is_not_given(tmp_path):
    network = load_ffdnet(write_mat(tmp_path / "tiny.mat", random_layers([5, 6, 4])))
    noisy = image(32, 32)
    np.testing.assert_array_equal(network(noisy, None), network(noisy, wavelet_sigma(noisy)))
    assert np.abs(network(noisy, None) - network(noisy, 0.0)).max() > 1e-3


@pytest.mark.parametrize("size", [(61, 16), (64, 17)])
def test_strips_equal_the_whole(tmp_path, monkeypatch, size):
    dncnn = load_dncnn(write_pth(tmp_path / "d.pth", random_layers([1, 4, 4, 1])))
    ffdnet = load_ffdnet(write_mat(tmp_path / "f.mat", random_layers([5, 6, 6, 4])))
    noisy = image(*size)
    whole = dncnn(noisy, None), ffdnet(noisy, 30.0)
    monkeypatch.setattr(peers, "_STRIP_PIXELS", 20)
    for method, expected, sigma in zip((dncnn, ffdnet), whole, (None, 30.0), strict=True):
        np.testing.assert_allclose(method(noisy, sigma), expected, atol=1e-6)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "owned"), "w")

    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Evil(), protocol=2))
    torch.save({"model.0.weight": Evil()}, tmp_path / "zip.pth")
    for name in ("raw.pth", "zip.pth"):
        with pytest.raises(CheckpointError, match=name):
            load_dncnn(tmp_path / name)
    assert not (tmp_path / "owned").exists()


def test_torch_load_is_called_in_one_place_only():
    calls = []
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "app").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "load" and getattr(node.value, "id", "") == "torch":
                calls.append(path.name)
    assert calls == ["torch_file.py"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.update({"model.1.running_mean": torch.zeros(3)}), "running_mean"),
        (lambda s: s.pop("model.2.bias"), "model.2 lacks"),
        (lambda s: s.update({"model.2.weight": torch.zeros(1, 5, 3, 3)}), "convolution 1 has a kernel of shape"),
        (lambda s: s.update({"model.0.weight": torch.zeros(4, 1, 5, 5)}), "convolution 0 has a kernel of shape"),
        (lambda s: s["model.2.weight"].fill_(math.nan), "convolution 1 holds values that are not finite"),
        (lambda s: s.clear(), "holds no convolution"),
        (lambda s: s.update({"epoch": 3}), "not a state dict"),
    ],
)
def test_weights_that_are_no_dncnn_are_refused_by_key(tmp_path, change, words):
    path = write_pth(tmp_path / "w.pth", random_layers([1, 4, 1]))
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_dncnn(path)
    assert str(path) in str(caught.value)


def test_files_of_another_kind_are_refused_with_their_name(tmp_path):
    (tmp_path / "text.mat").write_text("not HDF5")
    (tmp_path / "text.pth").write_text("not a zip")
    with h5py.File(tmp_path / "other.mat", "w") as file:
        file["x"] = 1
    write_mat(tmp_path / "dncnn.mat", random_layers([1, 4, 1]))
    write_mat(tmp_path / "ffdnet.mat", random_layers([5, 4, 4]))
    for load, name in (
        (load_dncnn, "text.mat"), (load_dncnn, "text.pth"), (load_dncnn, "other.mat"), (load_dncnn, "ffdnet.mat"),
        (load_ffdnet, "dncnn.mat"), (load_ffdnet, "text.pth"), (load_ffdnet, "missing.mat"),
    ):  # fmt: skip
        with pytest.raises(CheckpointError, match=name):
            load(tmp_path / name)


def test_without_h5py_the_mend_is_named(tmp_path, monkeypatch):
    path = write_mat(tmp_path / "w.mat", random_layers([1, 4, 1]))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match="pip install h5py"):
        load_dncnn(path)


def scene(color):
    y, x = np.mgrid[0:48, 0:56] / 56
    plane = 0.5 + 0.3 * np.sin(5 * x + 2 * y) * (x > 0.4)
    return (np.stack([plane, 0.8 * plane, 1 - plane], axis=-1) if color else plane).astype(np.float32)


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("color", [False, True])
def test_classical_methods_gain_over_the_noisy_image(name, color):
    sigmas = [20.0, None]
    if name == "bm3d":
        pytest.importorskip("bm3d")
        sigmas = [20.0] if color else [None]  # seconds a call
    clean = scene(color)
    noisy = clean + np.random.default_rng(0).normal(0, 20 / 255, clean.shape).astype(np.float32)
    method = CLASSICAL[name]()
    before = psnr(clean, noisy, data_range=1.0)
    for sigma in sigmas:
        result = method(noisy, sigma)
        assert result.shape == clean.shape and result.dtype == np.float32
        assert psnr(clean, result, data_range=1.0) > before + 4
    np.testing.assert_array_equal(method(noisy, 0.0), noisy)


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 5, 3), (9, 7), (20, 18, 3)])
@pytest.mark.parametrize("sigma", [None, 25.0])
def test_classical_methods_take_any_size_and_flat_images(name, shape, sigma):
    if name == "bm3d":
        pytest.importorskip("bm3d")
        if (shape, sigma) not in [((3, 5, 3), 25.0), ((1, 1), 25.0), ((9, 7), None)]:
            pytest.skip("seconds a call: a few cases will do")
    gray = image(*shape)
    gray[...] = gray[..., :1] if len(shape) == 3 else gray  # a colour image without colour
    for noisy in (image(*shape), np.full(shape, 0.25, np.float32), gray):
        result = CLASSICAL[name]()(noisy, sigma)
        assert result.shape == shape and np.isfinite(result).all()


def test_the_cost_of_a_pixel_counts_the_layers_weights_where_ffdnet_has_a_quarter_of_the_pixels(tmp_path):
    dncnn = load_dncnn(write_pth(tmp_path / "d.pth", random_layers([1, 4, 4, 1])))
    ffdnet = load_ffdnet(write_mat(tmp_path / "f.mat", random_layers([5, 6, 6, 4])))
    assert dncnn.macs_per_pixel == 9 * (1 * 4 + 4 * 4 + 4 * 1)
    assert ffdnet.macs_per_pixel == 9 * (5 * 6 + 6 * 6 + 6 * 4) / 4


def test_wavelet_sigma_finds_the_noise_of_a_flat_image():
    noisy = 0.5 + np.random.default_rng(4).normal(0, 30 / 255, (128, 128)).astype(np.float32)
    assert wavelet_sigma(noisy) == pytest.approx(30, rel=0.05)


def test_without_bm3d_the_mend_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(UsageError, match="pip install bm3d"):
        CLASSICAL["bm3d"]()
