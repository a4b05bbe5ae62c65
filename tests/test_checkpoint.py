"""Checkpoints: what is written comes back, everything else is refused by name, and no code runs."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from test_blocks import features, randomised
from tiny_model import save_tiny

from denoise_se.checkpoint import (
    CHECKPOINTS,
    MAX_METADATA_BYTES,
    load_checkpoint,
    open_checkpoint,
    resolve,
    save_checkpoint,
)
from denoise_se.errors import EXIT_REFUSED, CheckpointError
from denoise_se.model_card import render_card
from denoise_se.network import NetworkConfig, build_network

CONFIG = NetworkConfig("flat", unshuffle=1, widths=(2,), blocks=1, norm="batch")
TRAINING = {"data": "some|where", "steps": 12, "recipe": {"noise": "gaussian:5|jpeg:9", "batch": 2, "patch": 8}}
PSNR = {"set @ 25": 30.12}


def weights_of(config=CONFIG):
    return randomised(build_network(config)).state_dict()


def metadata(**changes):
    """The metadata of a good checkpoint with some entries changed; None takes one away."""
    good = {"schema_version": "1", "config": json.dumps(CONFIG.to_dict()), "training": "{}", "psnr": "{}"}
    return {key: value for key, value in (good | changes).items() if value is not None}


@pytest.fixture
def write(tmp_path):
    """Write a file of these weights and metadata, whatever they are, and return its path."""

    def write(weights=None, **changes):
        path = tmp_path / "model.safetensors"
        path.write_bytes(save(weights or weights_of(), metadata(**changes)))
        return path

    return write


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert caught.value.exit_code == EXIT_REFUSED
    message = str(caught.value)
    assert len(message) < 700
    return message


# --- there and back ---------------------------------------------------------------------------


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path):
    path, weights = tmp_path / "new" / "mine.safetensors", weights_of()
    save_checkpoint(path, weights, CONFIG, training=TRAINING, psnr=PSNR)
    found = load_checkpoint(path)
    assert (found.name, found.config, found.training, found.psnr) == ("mine", CONFIG, TRAINING, PSNR)
    assert found.weights.keys() == weights.keys()
    assert all(torch.equal(found.weights[key], weights[key]) for key in weights)
    noisy = features(1, 1, 6, 5)
    expected = build_network(CONFIG).eval()
    expected.load_state_dict(weights)
    network = found.network()
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert torch.equal(network(noisy, noisy.abs()), expected(noisy, noisy.abs()))
    assert [p.name for p in path.parent.iterdir()] == ["mine.safetensors"]


def test_half_precision_halves_the_file_and_is_read_as_float32(tmp_path):
    config = NetworkConfig("flat", unshuffle=1, widths=(32,), blocks=1)
    weights = weights_of(config)
    for name, half in (("full", False), ("half", True)):
        save_checkpoint(tmp_path / f"{name}.safetensors", weights, config, training={}, psnr={}, half=half)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    for key, tensor in load_checkpoint(tmp_path / "half.safetensors").weights.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, weights[key].half().float())


def test_the_best_checkpoint_of_a_run_is_called_by_its_folder(tmp_path, monkeypatch):
    folder = tmp_path / "run3"
    save_checkpoint(folder / "best.safetensors", weights_of(), CONFIG, training={}, psnr={})
    monkeypatch.chdir(folder)
    assert resolve(folder / "best.safetensors")[0] == resolve("best.safetensors")[0] == "run3"


def test_catalogue_names_and_aliases_mean_the_same_file():
    for name, entry in CHECKPOINTS.items():
        assert resolve(name)[0] == name and resolve(name)[1].name == entry.file
        assert resolve(entry.file.removesuffix(".safetensors")) == resolve(name)


# --- what is refused --------------------------------------------------------------------------


class Trap:
    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("suffix", [".ckpt", ".pth", ".pt", ".PKL", ".safetensors"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_is_refused_under_any_name_and_its_code_does_not_run(tmp_path, suffix, zipped):
    path, trap = tmp_path / f"model{suffix}", tmp_path / "trap"
    path.write_bytes(pickle.dumps(Trap(trap)))
    if zipped:
        content = path.read_bytes()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
    message = refusal(path)
    assert str(path) in message and "safetensors" in message
    assert not trap.exists()


@pytest.mark.parametrize("name", ["missing.safetensors", "grey", "", "a" * 300, "no\0name"])
def test_a_checkpoint_that_is_not_there_is_refused_with_the_names_that_are(name):
    assert "give one of gray, color, photo, gray-best, color-best" in refusal(name)


def test_a_file_that_was_replaced_since_it_was_opened_is_not_taken_for_what_it_was(tmp_path):
    path = save_tiny(tmp_path / "m.safetensors", channels=1)
    opened = open_checkpoint(path)
    assert opened.load().config == opened.config
    save_tiny(path, channels=3)
    with pytest.raises(CheckpointError, match=r"m\.safetensors: was replaced while it was in use"):
        opened.load()


def test_a_folder_or_another_suffix_is_refused(tmp_path):
    (tmp_path / "x.safetensors").mkdir()
    assert "no such checkpoint" in refusal(tmp_path / "x.safetensors")
    (tmp_path / "x.onnx").write_bytes(b"x")
    assert "not a .safetensors file" in refusal(tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "no 'schema_version'"),
        ("2", "'schema_version' 2 is newer than this program's 1; update denoise-se"),
        ("999999999", "is newer"),
        ("one", "'schema_version' is 'one', not a positive integer"),
        ("", "'schema_version' is ''"),
        ("0", "'schema_version' is '0'"),
        ("-1", "'schema_version' is '-1'"),
        ("1.0", "'schema_version' is '1.0'"),
        ("\u0661", "'schema_version' is"),
        ("9" * 5000, "not a positive integer"),
    ],
)
def test_a_schema_that_is_not_ours_is_refused(write, value, words):
    assert words in refusal(write(schema_version=value))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": None}, "no 'config'"),
        ({"config": "{"}, "'config' is not JSON"),
        ({"config": "[1]"}, "'config' is not a JSON object"),
        ({"config": '{"depth": 4}'}, "'config': unknown field 'depth'"),
        ({"config": '{"channels": "1"}'}, "'config': channels is '1'"),
        ({"config": '{"noise_map": 1.0}'}, "'config': noise_map is 1.0"),
        ({"config": '{"widths": null}'}, "'config': ill-typed"),
        ({"config": json.dumps({"block": "x" * 9000})}, "'config': block is"),
        ({"config": "[" * 100_000}, "'config' is not JSON"),
        ({"training": '{"a":' * 100_000}, "'training' is not JSON"),
        ({"training": "nonsense"}, "'training' is not JSON"),
        ({"psnr": "3"}, "'psnr' is not a JSON object"),
        ({"training": " " * MAX_METADATA_BYTES}, "metadata is over"),
    ],
)
def test_metadata_that_is_not_ours_is_refused_by_its_key(write, changes, words):
    assert words in refusal(write(**changes))


def test_an_absurd_config_is_refused_before_memory_is_taken(write):
    config = CONFIG.to_dict() | {"layout": "unet", "widths": [2048] * 6, "blocks": 4, "norm": "none"}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "'config' asks for over 200,000,000 parameters" in refusal(write(config=json.dumps(config)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB; the weights would take 13 GB


def change(key, function):
    return lambda weights: weights | {key: function(weights[key])}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda w: {k: v for k, v in w.items() if k != "head.bias"}, "weight 'head.bias' is missing"),
        (lambda w: w | {"extra.weight": torch.zeros(1)}, "unexpected weight 'extra.weight'"),
        (change("tail.weight", lambda t: t[:, :, :1].contiguous()), "weight 'tail.weight' has shape (1, 2, 1, 3)"),
        (change("tail.weight", lambda t: t * torch.nan), "weight 'tail.weight' holds a value that is not finite"),
        (change("tail.bias", lambda t: t + torch.inf), "weight 'tail.bias' holds a value that is not finite"),
        (change("head.bias", lambda t: t.double() + 1e300), "weight 'head.bias' holds a value that is not finite"),
        (change("head.bias", lambda t: t.int()), "weight 'head.bias' is torch.int32, not a float type"),
        (change("head.bias", lambda t: t.bool()), "weight 'head.bias' is torch.bool, not a float type"),
        (change("head.bias", lambda t: t.to(torch.float8_e4m3fn)), "weight 'head.bias' is torch.float8_e4m3fn"),
        (change("head.bias", lambda t: t.to(torch.complex64)), "weight 'head.bias'"),
        (
            change("blocks.0.se.excite.0.weight", lambda t: t.to(torch.int64)),
            "weight 'blocks.0.se.excite.0.weight' is torch.int64",
        ),
        (
            change("blocks.0.rb.body.0.norm.num_batches_tracked", lambda t: t.float()),
            "num_batches_tracked' is torch.float32, not an int64 counter",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(write, damage, words):
    assert words in refusal(write(damage(weights_of())))


def test_truncated_and_empty_files_are_refused(write):
    path = write()
    content = path.read_bytes()
    for length in (0, 4, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert f"{path}: not a readable safetensors file" in refusal(path)
    path.write_bytes(content + b"\0")
    assert "not a readable safetensors file" in refusal(path)


# --- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "half"), [(torch.nan, False), (-torch.inf, False), (1e6, True)])
def test_weights_that_are_not_finite_are_not_written(tmp_path, value, half):
    weights = weights_of() | {"tail.bias": torch.tensor([value])}
    with pytest.raises(CheckpointError, match=r"'tail\.bias' is not finite"):
        save_checkpoint(tmp_path / "m.safetensors", weights, CONFIG, training={}, psnr={}, half=half)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, weights_of(), CONFIG, training={}, psnr=PSNR)
    old = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"m\.safetensors: cannot be written \(No space left"):
        save_checkpoint(path, weights_of(), CONFIG, training={}, psnr={})
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(tmp_path / "file" / "m.safetensors", weights_of(), CONFIG, training={}, psnr={})


def test_a_checkpoint_is_plain_safetensors(tmp_path):
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, weights_of(), CONFIG, training={}, psnr={})
    assert load(path.read_bytes()).keys() == weights_of().keys()


def test_the_program_has_no_unpickling_outside_the_audited_place():
    """torch.load has a test of its own; these are the other ways in."""
    package = Path(__file__).parents[1]
    for path in [*(package / "denoise_se").rglob("*.py"), *(package / "app").rglob("*.py")]:
        source = path.read_text(encoding="utf-8")
        assert "weights_only=False" not in source, path
        for module in ("pickle", "dill", "joblib", "cloudpickle", "marshal", "shelve"):
            assert f"import {module}" not in source and f"from {module}" not in source, path


# --- the card ---------------------------------------------------------------------------------


def test_the_card_tells_what_the_record_holds():
    card = render_card("mine", CONFIG, TRAINING, PSNR)
    # by hand: head 2*2*9+2, block 2*(2*2*9+2) and its two norms 2*4, SE 2*2*1, tail 2*9+1
    assert card.startswith("# mine\n") and "145 parameters" in card
    assert "| noise | gaussian:5\\|jpeg:9 |" in card
    assert "| data | some\\|where |" in card
    assert "| steps | 12 of 2 patches of 8 pixels |" in card
    assert "- set @ 25: 30.12" in card
    assert "| noise | as in the noisy images |" in render_card("mine", CONFIG, {}, {})
