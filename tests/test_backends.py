"""Every backend gives what torch gives, on shipped weights and random ones; which is chosen, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_model import save_tiny

from denoise_se import backends
from denoise_se.backends import make_backend
from denoise_se.checkpoint import CHECKPOINTS, open_checkpoint, save_checkpoint
from denoise_se.denoiser import Denoiser
from denoise_se.errors import UsageError
from denoise_se.graph_cache import ENVIRONMENT
from denoise_se.network import build_network
from denoise_se.network_config import NetworkConfig

OTHERS = ["openvino", "onnxruntime"]
SIZES = [(1, 1), (3, 5), (1, 19), (31, 37)]


def picture(height, width, channels, seed=0):
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0.1, 0.9, height * width * channels).reshape(height, width, channels)
    return (ramp + rng.normal(0, 0.1, ramp.shape)).astype(np.float32)


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("model", CHECKPOINTS)
def test_the_shipped_networks_give_what_torch_gives(model, backend):
    pytest.importorskip(backend)
    reference, other = (Denoiser.load(model, backend=name, precision="fp32") for name in ("torch", backend))
    assert other.backend.description == f"{backend} cpu fp32" and other.backend.halo == reference.backend.halo
    for size in SIZES:
        noisy = picture(*size, reference.network.channels)
        np.testing.assert_allclose(other(noisy, 25.0), reference(noisy, 25.0), atol=1e-4, rtol=0)
    noisy = picture(101, 67, reference.network.channels)
    tiled = Denoiser(other.checkpoint, other.backend, tile=32)
    assert np.abs(tiled(noisy, 25.0) - noisy).mean() > 0.01
    np.testing.assert_allclose(tiled(noisy, 25.0), reference(noisy, 25.0), atol=1e-4, rtol=0)


CONFIGS = {
    "no gates": {"block": "residual"},
    "flat, blind": {"layout": "flat", "noise_map": False, "widths": (6,), "block": "mobile_se"},
    "batch norm": {"norm": "batch", "widths": (4, 6), "se_ratio": 0.5},
    "bottleneck, one gate a stage": {"block": "se_bottleneck", "se_every": "stage", "widths": (4, 8)},
    "three to fold": {"unshuffle": 3, "widths": (4, 6), "se_gate_scale": 3.0, "se_ratio": 0.5},
}


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("kind", CONFIGS)
def test_any_network_and_its_gates_are_those_of_torch(tmp_path, kind, backend):
    pytest.importorskip(backend)
    config = NetworkConfig(**{"channels": 1, "blocks": 1, "widths": (4, 6)} | CONFIGS[kind])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = build_network(config)
        with torch.no_grad():
            for key, value in network.named_parameters():
                value.add_((1.0 if ".excite." in key else 0.05) * torch.randn(value.shape))
    save_checkpoint(tmp_path / "a.safetensors", network.state_dict(), config, training={}, psnr={})
    file = open_checkpoint(tmp_path / "a.safetensors")
    reference, other = (make_backend(file, name, "cpu", "fp32") for name in ("torch", backend))
    windows = picture(3 * 20, 26, 1).reshape(3, 1, 20, 26)
    level = np.full_like(windows, 0.1)
    gates = reference.squeeze(windows, level)
    np.testing.assert_allclose(other.squeeze(windows, level), gates, atol=1e-5)
    for given in (None, gates, np.roll(gates, 1)):
        expected = reference.denoise(windows[:1, :, :17], level[:1, :, :17], given)
        np.testing.assert_allclose(other.denoise(windows[:1, :, :17], level[:1, :, :17], given), expected, atol=2e-5)


@pytest.mark.parametrize("backend", ["torch", *OTHERS])
def test_the_same_image_gives_the_same_bytes_whatever_ran_before(tmp_path, backend):
    pytest.importorskip(backend)
    denoiser = Denoiser.load(save_tiny(tmp_path / "a.safetensors"), device="cpu", backend=backend)
    first, other = picture(40, 52, 3), picture(57, 33, 3, seed=1)
    expected = denoiser(first, 20.0)
    kept = expected.copy()
    denoiser(other, 50.0)
    assert np.array_equal(expected, kept), "a result is not overwritten by the next one"
    assert np.array_equal(denoiser(first, 20.0), expected)


@pytest.mark.parametrize("backend", OTHERS)
def test_the_number_of_threads_does_not_change_the_result(tmp_path, monkeypatch, backend):
    module = pytest.importorskip(f"denoise_se.{backend}_backend")
    path = save_tiny(tmp_path / "a.safetensors")
    codes = (picture(61, 83, 3).clip(0, 1) * 255).astype(np.uint8)
    results = []
    for cores in (1, 2):
        monkeypatch.setattr(module, "granted_cores", lambda cores=cores: cores)
        results.append(Denoiser.load(path, device="cpu", backend=backend)(codes, 20.0).astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1


@pytest.mark.parametrize("backend", ["torch", *OTHERS])
def test_several_threads_may_use_one_denoiser(tmp_path, backend):
    pytest.importorskip(backend)
    denoiser = Denoiser.load(save_tiny(tmp_path / "a.safetensors"), device="cpu", backend=backend)
    images = [picture(20 + 3 * seed, 45, 3, seed) for seed in range(6)]
    expected = [denoiser(image, 20.0) for image in images]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda image: denoiser(image, 20.0), images))
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("self_ensemble", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize("model", CHECKPOINTS)
def test_lanes_give_the_bytes_that_all_cores_give(model, precision, self_ensemble):
    pytest.importorskip("openvino")
    options = {"device": "cpu", "backend": "openvino", "precision": precision, "self_ensemble": self_ensemble}
    denoiser = Denoiser.load(model, **options)
    if denoiser.backend.lanes == 1:
        pytest.skip("these cores cannot be shared out evenly")
    sizes = [(3, 5), (31, 37), (64, 64), (128, 77), (161, 200)]
    images = [picture(*size, denoiser.network.channels, seed) for seed, size in enumerate(sizes)]
    expected = [denoiser(image, 20.0) for image in images]
    lane = denoiser.in_lanes()
    engine = getattr(lane.backend, "quick", lane.backend)  # int8 is guarded
    engine = engine.backend if self_ensemble else engine
    assert engine.pooling.compiled.get_property("NUM_STREAMS") == denoiser.backend.lanes
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda image: lane(image, 20.0), images))
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(("cores", "lanes"), [(1, 1), (2, 2), (3, 3), (5, 1), (6, 3), (7, 1), (8, 4), (10, 2), (64, 4)])
def test_lanes_share_the_cores_out_evenly(tmp_path, monkeypatch, cores, lanes):
    module = pytest.importorskip("denoise_se.openvino_backend")
    monkeypatch.setattr(module, "granted_cores", lambda: cores)
    path = save_tiny(tmp_path / "a.safetensors")
    assert Denoiser.load(path, device="cpu", backend="openvino").backend.lanes == lanes


def test_an_image_fits_in_a_lane_while_the_memory_of_all_lanes_is_bounded(tmp_path, monkeypatch):
    module = pytest.importorskip("denoise_se.openvino_backend")
    path = save_tiny(tmp_path / "a.safetensors")
    monkeypatch.setattr(module, "granted_cores", lambda: 4)
    assert Denoiser.load("photo", device="cpu", backend="openvino").fits_in_lane(300, 400, 3)
    assert not Denoiser.load("photo", device="cpu", backend="openvino").fits_in_lane(400, 400, 3)
    assert Denoiser.load("gray", device="cpu", backend="openvino").fits_in_lane(300, 400, 1)
    assert not Denoiser.load("gray", device="cpu", backend="openvino").fits_in_lane(300, 400, 3)
    assert Denoiser.load(path, device="cpu", backend="openvino").fits_in_lane(300, 300, 3)
    assert not Denoiser.load(path, device="cpu", backend="openvino", tile=64).fits_in_lane(300, 300, 3)
    assert not Denoiser.load(path, device="cpu", backend="torch").fits_in_lane(300, 300, 3)
    monkeypatch.setattr(module, "granted_cores", lambda: 1)
    assert not Denoiser.load(path, device="cpu", backend="openvino").fits_in_lane(300, 300, 3)


def test_bfloat16_in_openvino_is_near_fp32_or_refused(tmp_path):
    pytest.importorskip("openvino")
    from denoise_se.openvino_core import core

    path = save_tiny(tmp_path / "a.safetensors")
    if "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(UsageError, match="OpenVINO on this CPU has fp32"):
            Denoiser.load(path, device="cpu", backend="openvino", precision="bf16")
        return
    noisy = picture(64, 48, 3)
    full, low = (
        Denoiser.load(path, device="cpu", backend="openvino", precision=precision)(noisy, 20.0)
        for precision in ("fp32", "bf16")
    )
    assert 0 < np.abs(full - low).max() < 0.03


# --- choosing ---------------------------------------------------------------------------------


def test_auto_is_openvino_on_a_cpu_and_torch_without_it_or_on_a_gpu(monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: object())
    monkeypatch.setattr(backends, "has_gpu", lambda: False)
    assert backends.fastest("auto", "auto") == backends.fastest("cpu", "fp32") == "openvino"
    assert backends.fastest("cpu", "fp16") == backends.fastest("cuda", "auto") == "torch"
    monkeypatch.setattr(backends, "has_gpu", lambda: True)
    assert backends.fastest("auto", "auto") == "torch" and backends.fastest("cpu", "auto") == "openvino"
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert backends.fastest("cpu", "auto") == "torch"


@pytest.mark.parametrize("backend", OTHERS)
def test_a_backend_that_is_not_installed_names_the_extra(tmp_path, monkeypatch, backend):
    file = open_checkpoint(save_tiny(tmp_path / "a.safetensors"))
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=rf'not installed; pip install "denoise-se\[{backend}\]"'):
        make_backend(file, backend, "auto", "auto")


def test_an_engine_that_cannot_be_loaded_is_named_and_auto_goes_on_with_torch(tmp_path, monkeypatch, caplog):
    def broken(*_):
        raise ImportError("libtbb.so is missing")

    file = open_checkpoint(save_tiny(tmp_path / "a.safetensors"))
    monkeypatch.setattr(backends, "find_spec", lambda name: object())
    monkeypatch.setitem(backends.BACKENDS, "openvino", broken)
    with pytest.raises(UsageError, match=r"--backend openvino: cannot be loaded \(libtbb"):
        make_backend(file, "openvino", "cpu", "auto")
    assert make_backend(file, "auto", "cpu", "auto").description == "torch cpu fp32"
    assert "libtbb.so is missing" in caplog.text


@pytest.mark.parametrize("backend", OTHERS)
def test_what_a_backend_cannot_do_is_refused(tmp_path, backend):
    pytest.importorskip(backend)
    file = open_checkpoint(save_tiny(tmp_path / "a.safetensors"))
    with pytest.raises(UsageError, match=f"{backend} runs on the CPU only; .* --backend torch for cuda"):
        make_backend(file, backend, "cuda", "auto")


def test_onnx_runtime_is_in_float32_only(tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(UsageError, match="--precision fp16"):
        make_backend(open_checkpoint(save_tiny(tmp_path / "a.safetensors")), "onnxruntime", "cpu", "fp16")


def test_a_precision_without_instructions_is_refused_with_those_there_are(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    from denoise_se import openvino_backend

    plain = SimpleNamespace(get_property=lambda device, name: ["FP32", "INT8"])  # a CPU of 2019
    monkeypatch.setattr(openvino_backend, "core", lambda: plain)
    file = open_checkpoint(save_tiny(tmp_path / "a.safetensors"))
    for precision in ("bf16", "fp16"):
        with pytest.raises(UsageError, match=f"--precision {precision}: OpenVINO on this CPU has fp32, int8; use one"):
            make_backend(file, "openvino", "cpu", precision)


def test_openvino_does_not_pool_again_for_each_tile(tmp_path):
    pytest.importorskip("openvino")
    denoiser = Denoiser.load(save_tiny(tmp_path / "a.safetensors"), device="cpu", backend="openvino", tile=32)
    denoiser(picture(40, 60, 3), 20.0)
    nodes = denoiser.backend.gates_given.compiled.get_runtime_model().get_ops()
    assert "Reduce" not in {node.get_rt_info()["layerType"].astype(str) for node in nodes}


def test_with_a_kept_network_denoising_loads_no_torch(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    import cv2

    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "graphs"))  # another test's network may be kept in the common cache
    path = save_tiny(tmp_path / "a.safetensors")
    cv2.imwrite(str(tmp_path / "in.png"), np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    code = (
        "import sys\n"
        "from denoise_se.app.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    print('EXIT', stop.code, 'torch' in sys.modules)"
    )
    options = [
        "--model",
        str(path),
        "--device",
        "cpu",
        "--backend",
        "openvino",
        "--reference",
        "in.png",
        "--tile",
        "32",
    ]
    for run, torch_is_there in enumerate(("True", "False")):
        command = [sys.executable, "-c", code, "denoise", "in.png", "-o", f"out{run}.png", *options]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.stdout.split()[-3:] == ["EXIT", "0", torch_is_there], result.stderr
    assert (tmp_path / "out0.png").read_bytes() == (tmp_path / "out1.png").read_bytes()


def test_a_signal_after_two_networks_are_gone_is_handled_and_does_not_crash(tmp_path):
    pytest.importorskip("openvino")
    code = (
        "import gc, os, signal, sys\n"
        "import numpy as np\n"
        "from denoise_se.denoiser import Denoiser\n"
        "first, second = [Denoiser.load(sys.argv[1], backend='openvino', device='cpu') for _ in range(2)]\n"
        "second(np.zeros((8, 8), np.float32), 25.0)\n"
        "del first\n"
        "gc.collect()\n"
        "del second\n"
        "gc.collect()\n"
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(7))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    path = save_tiny(tmp_path / "a.safetensors")
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 7


def test_two_threads_at_one_torch_network_get_what_each_would_get_alone(tmp_path):
    # a report is judged on one thread while the next image is denoised on another
    config = NetworkConfig(channels=1, layout="flat", widths=(8,), blocks=3, block="se_residual", unshuffle=2)
    network = build_network(config)
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():  # a fresh one is the identity, whatever its gates are
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    save_checkpoint(tmp_path / "net.safetensors", network.state_dict(), config, training={}, psnr={})
    backend = make_backend(open_checkpoint(tmp_path / "net.safetensors"), "torch", "cpu", "fp32")
    windows = [picture(32, 32, 1, seed).transpose(2, 0, 1)[None] for seed in range(4)]
    levels = np.full_like(windows[0], 0.1)

    def both(window):
        return backend.squeeze(window, levels), backend.denoise(window, levels, None)

    alone = [both(window) for window in windows]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(both, windows * 25))
    for number, results in enumerate(together):
        for found, expected in zip(results, alone[number % 4], strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)
