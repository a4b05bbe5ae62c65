"""int8: what a calibration holds, the rounding it stands for, and when it is used."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from tiny_model import save_tiny

from denoise_se import calibration, openvino_backend
from denoise_se.app.quantize_command import run_quantize
from denoise_se.calibration import (
    Calibration,
    calibrate,
    calibrate_run,
    calibration_path,
    read_calibration,
    write_calibration,
)
from denoise_se.checkpoint import load_checkpoint, open_checkpoint, save_checkpoint
from denoise_se.denoiser import Denoiser
from denoise_se.errors import CheckpointError, UsageError
from denoise_se.model_card import with_int8
from denoise_se.noise import parse_noise_spec
from denoise_se.quantisation import find_ranges, rounded
from denoise_se.training_images import Pair
from denoise_se.training_outcome import OutcomeReport


@pytest.fixture
def model(tmp_path):
    """A tiny grey model that says which noise it was trained on."""
    path = save_tiny(tmp_path / "tiny.safetensors", channels=1)
    found = load_checkpoint(path)
    training = {"recipe": {"noise": "gaussian:0-50"}}
    save_checkpoint(path, found.weights, found.config, training=training, psnr={})
    return path


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Six grey ramps, and room for as few."""
    monkeypatch.setattr(calibration, "IMAGES", 6)
    monkeypatch.setattr(calibration, "SIDE", 40)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        ramp = np.add.outer(np.arange(48), np.arange(56) * (number + 1)) % 256
        cv2.imwrite(str(folder / f"{number}.png"), ramp.astype(np.uint8))
    return folder


@pytest.mark.parametrize(("bits", "most"), [(8, 127), (7, 63)])
def test_weights_and_inputs_are_rounded_to_steps_of_their_ranges(model, bits, most):
    network = load_checkpoint(model).network()
    name = "bottom.0.rb.body.0.conv"
    conv = network.get_submodule(name)
    x = torch.linspace(-3, 3, 8 * 9).reshape(1, 8, 3, 3)
    # by hand: codes from -128 to 127 of steps of 2/127, weights of steps of the channel's largest over `most`
    codes = np.clip(np.rint(x.numpy() / np.float32(2 / 127)), -128, 127) * np.float32(2 / 127)
    steps = np.abs(conv.weight.numpy()).max((1, 2, 3), keepdims=True) / most
    weight = torch.from_numpy(np.rint(conv.weight.numpy() / steps) * steps)
    expected = torch.nn.functional.conv2d(torch.from_numpy(codes), weight, conv.bias, padding=1)
    found = rounded(network, {name: (-1.5, 2.0)}, bits).get_submodule(name)(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_openvino_rounds_without_passes_of_its_own_over_memory():
    pytest.importorskip("openvino")
    backend = Denoiser.load("gray", backend="openvino", device="cpu", precision="int8").backend.quick
    kinds = [
        node.get_rt_info()["layerType"].astype(str) for node in backend.pooling.compiled.get_runtime_model().get_ops()
    ]
    assert kinds.count("Convolution") == 22 and "FakeQuantize" not in kinds  # merged into what computes the values


def test_ranges_cover_what_was_seen_and_leave_the_first_and_last_convolution_out(model):
    network = load_checkpoint(model).network()
    noisy = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    ranges = find_ranges(network, [(noisy, torch.full_like(noisy, 0.1), noisy)])
    assert "head" not in ranges and "tail" not in ranges and "downs.0" in ranges
    seen = {}
    conv = network.get_submodule("bottom.0.rb.body.2.conv")
    conv.register_forward_pre_hook(lambda _, given: seen.update(high=given[0].max().item()))
    network(noisy, torch.full_like(noisy, 0.1))
    low, high = ranges["bottom.0.rb.body.2.conv"]
    assert low == 0 and 0.5 * seen["high"] <= high <= seen["high"] * 1.001, "it comes after a ReLU"
    assert ranges["downs.0"][0] < 0 < ranges["downs.0"][1]


def test_a_calibration_is_kept_beside_the_weights_and_belongs_to_them_alone(model):
    file = open_checkpoint(model)
    found = Calibration(file.digest, {"downs.0": (-1.0, 2.5)}, "6 images of x", {"gaussian:25": 0.01})
    assert read_calibration(file) is None
    write_calibration(file, found)
    assert read_calibration(file) == found and found.worst_loss == 0.01
    assert read_calibration(replace(file, digest="another")) is None


@pytest.mark.parametrize(
    "damage",
    ["", "[]", "{}", '{"ranges": 3}', '{"ranges": {"a": [1]}}', '{"ranges": {"a": [1, 2]}}', "[" * 100_000, "nan"],
)
def test_a_damaged_calibration_is_refused_by_name(model, damage):
    file = open_checkpoint(model)
    if damage == '{"ranges": {"a": [1, 2]}}':
        damage = json.dumps({"weights": file.digest, "ranges": {"a": [1, 2]}, "data": "", "loss": {}})
    if damage == "nan":
        damage = json.dumps({"weights": file.digest, "ranges": {}, "data": "", "loss": {"a": 0.01, "b": float("nan")}})
    calibration_path(model).write_text(damage)
    with pytest.raises(CheckpointError, match=r"tiny\.int8\.json: .*remove it or make it again"):
        read_calibration(file)


def test_a_name_that_is_no_convolution_is_refused(model):
    for name in ("nothing", "bottom", "bottom.0.rb.body.9"):
        with pytest.raises(CheckpointError, match=f"{name!r}, which is no convolution"):
            rounded(load_checkpoint(model).network(), {name: (0.0, 1.0)})


def test_convolutions_go_back_to_float_until_the_loss_is_small(model, images, monkeypatch):
    told = []
    few = calibrate(open_checkpoint(model), images, told.append)
    monkeypatch.setattr(calibration, "MOST_LOSS", -1.0)  # never enough
    all_floats = calibrate(open_checkpoint(model), images, told.append)
    assert set(few.loss) == {"gaussian:15", "gaussian:25", "gaussian:50"} and few.worst_loss < 0.5
    assert len(all_floats.ranges) == len(few.ranges) - calibration.MOST_FLOATS
    assert sum("in float too" in line for line in told) == calibration.MOST_FLOATS


def test_what_cannot_be_measured_under_one_noise_is_no_small_loss(model, images, monkeypatch):
    psnrs = iter([30.0, 30.0, 30.0, 29.99, 29.99, float("nan")] + [29.99] * 1000)
    monkeypatch.setattr(calibration, "mean_psnr", lambda *_: next(psnrs))
    monkeypatch.setattr(calibration, "MOST_FLOATS", 0)
    assert calibrate(open_checkpoint(model), images, [].append).worst_loss == float("inf")


def test_ranges_hold_more_contrast_than_the_photographs_have(model, images, monkeypatch):
    for file in images.iterdir():
        cv2.imwrite(str(file), np.full((48, 56), 120, np.uint8))
    loaded = load_checkpoint(model)
    training = {"recipe": {"noise": "gaussian:0-5"}}  # more would fill the range
    save_checkpoint(model, loaded.weights, loaded.config, training=training, psnr={})
    found = calibrate(open_checkpoint(model), images, [].append)
    monkeypatch.setattr(calibration, "_drawings", lambda photographs: [])
    alone = calibrate(open_checkpoint(model), images, [].append)
    wider = [found.ranges[name][1] / alone.ranges[name][1] for name in found.ranges]
    assert min(wider) > 0.99 and max(wider) > 1.3


def test_too_few_images_and_a_checkpoint_without_its_noise_are_refused(model, images, tmp_path):
    (images / "0.png").unlink()
    with pytest.raises(UsageError, match="has 5 images of 40 pixels"):
        calibrate(open_checkpoint(model), images)
    silent = save_tiny(tmp_path / "silent.safetensors", channels=1)
    cv2.imwrite(str(images / "0.png"), np.zeros((50, 50), np.uint8))
    with pytest.raises(UsageError, match="does not say which noise"):
        calibrate(open_checkpoint(silent), images)


def test_a_training_run_is_calibrated_on_its_own_images(model, monkeypatch):
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 1, 40, 44), dtype=torch.uint8, generator=random)
    pairs = [Pair(str(number), None, image) for number, image in enumerate(images)]
    report = OutcomeReport(pairs[:2], None, parse_noise_spec("gaussian:25"), None)
    train, validation = report.batches(pairs[2:], 2, 32), report.batches(pairs[:2], 8, 32)
    assert [batch[0].shape for batch in train] == 2 * [(1, 1, 32, 32)] and len(validation) == 2
    clean = pairs[1].clean[:, 4:36, 6:38] / 255
    torch.testing.assert_close(validation[1][2][0], clean)
    assert 20 < 255 * (validation[1][0][0] - clean).std() < 30 and float(validation[1][1].mean()) == pytest.approx(
        25 / 255
    )
    checkpoint = open_checkpoint(model)
    found = calibrate_run(checkpoint, train, validation)
    whole, *rounding = (load_checkpoint(model).network() for _ in range(3))
    before, *after = (
        np.mean([10 * np.log10(1 / float(((net(x, y).clamp(0, 1) - z) ** 2).mean())) for x, y, z in validation])
        for net in (whole, rounded(rounding[0], found.ranges, 8), rounded(rounding[1], found.ranges, 7))
    )
    assert found.worst_loss == pytest.approx(before - min(after), abs=2e-4) and found.weights == checkpoint.digest
    monkeypatch.setattr(calibration, "MOST_LOSS", -100.0)
    few = calibrate_run(checkpoint, train, validation)
    assert list(few.ranges) == list(find_ranges(whole, train))[: -calibration.MOST_FLOATS]


def test_ranges_of_a_run_hold_what_its_images_lack(model):
    # the few pictures of a camera are alike, and the network is given others later: int8 cut off what these need
    random = torch.Generator().manual_seed(0)
    soft = torch.randint(110, 130, (3, 1, 40, 44), dtype=torch.uint8, generator=random)
    batches = OutcomeReport([], None, parse_noise_spec("gaussian:1"), None).batches(
        [Pair(str(seed), None, image) for seed, image in enumerate(soft)], 3, 32
    )
    found = calibrate_run(open_checkpoint(model), batches, batches).ranges
    own = find_ranges(load_checkpoint(model).network(), batches)
    wider = [found[name][1] / own[name][1] for name in found]
    assert min(wider) > 0.99 and max(wider) > 1.3


def test_int8_runs_after_quantize_and_auto_takes_it_on_x86_where_it_is_harmless(model, images, monkeypatch, capsys):
    pytest.importorskip("openvino")

    def load(precision):
        return Denoiser.load(model, device="cpu", backend="openvino", precision=precision)

    with pytest.raises(UsageError, match="no calibration"):
        load("int8")
    model.with_suffix(".md").write_text("# tiny\n\n## Limits\n\nnone\n")
    run_quantize(str(model), images)
    assert "tiny.int8.json: costs at most" in capsys.readouterr().out
    assert "## int8" in model.with_suffix(".md").read_text()
    noisy = np.random.default_rng(0).random((45, 61), np.float32)
    floats, integers = load("fp32")(noisy, 25), load("int8")(noisy, 25)
    assert 0 < np.abs(floats - integers).max() < 0.1
    file = open_checkpoint(model)
    found = read_calibration(file)
    for loss, machine, expected in [(0.01, "AMD64", "int8"), (0.01, "arm64", "fp32"), (0.04, "x86_64", "fp32")]:
        write_calibration(file, replace(found, loss={"gaussian:25": loss}))
        monkeypatch.setattr(openvino_backend.platform, "machine", lambda machine=machine: machine)
        assert load("auto").backend.description == f"openvino cpu {expected}"


@pytest.mark.parametrize(("vnni", "bits"), [(True, 8), (False, 7)])
def test_the_engine_computes_in_integers_what_the_rounded_network_does_in_floats(monkeypatch, vnni, bits):
    # on a CPU without VNNI, sums of 16 bits overflowed with weights of 8 bits, on a pattern of the largest codes
    pytest.importorskip("openvino")
    if vnni and not openvino_backend.has_vnni():
        pytest.skip("this CPU has no VNNI")
    monkeypatch.setattr(openvino_backend, "has_vnni", lambda: vnni)
    checkpoint = open_checkpoint("gray")
    denoiser = Denoiser.load("gray", device="cpu", backend="openvino", precision="int8")
    lines = np.repeat(np.arange(96)[:, None] // 4 % 2, 96, axis=1)
    noisy = (lines + np.random.default_rng(0).normal(0, 0.1, lines.shape)).astype(np.float32)
    network = rounded(checkpoint.load().network(), read_calibration(checkpoint).ranges, bits)
    with torch.inference_mode():
        expected = network(torch.from_numpy(noisy)[None, None], torch.full((1, 1, 96, 96), 0.1))[0, 0].numpy()
    difference = 255 * np.abs(denoiser(noisy, 25.5) - expected)
    assert np.sqrt((difference**2).mean()) < 1  # the overflow made 2.4; bf16, where the CPU has it, up to 0.6


def test_vnni_is_read_from_what_linux_says_of_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(openvino_backend, "CPU_INFO", tmp_path / "cpuinfo")
    assert not openvino_backend.has_vnni()
    for flags, expected in [("fpu avx2", False), ("fpu avx512_vnni avx2", True), ("avx_vnni", True), ("", False)]:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
        assert openvino_backend.has_vnni() is expected


def test_the_section_on_int8_is_put_into_a_card_once():
    found = Calibration("", {}, "6 images of x", {"gaussian:25": 0.012})
    once = with_int8("# a\n\n## Measured\n\n- x\n\n## Limits\n\nnone\n", found)
    assert once.index("## int8") < once.index("- gaussian:25: 0.012 dB") < once.index("## Limits")
    assert with_int8(once, found) == once
