"""Exported files run without this package, at any size, and give what it gives."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_model import save_tiny

from denoise_se import export as export_module
from denoise_se.app.cli import app
from denoise_se.checkpoint import load_checkpoint, open_checkpoint
from denoise_se.denoiser import Denoiser
from denoise_se.errors import DenoiseError, UsageError
from denoise_se.export import export
from denoise_se.output_file import check_output
from denoise_se.resumption import check_run

README = Path(__file__).parents[1] / "README.md"


def expected(path, image, sigma):
    level = torch.full_like(torch.from_numpy(image[:, :1]), sigma / 255)
    with torch.inference_mode():
        return load_checkpoint(path).network()(torch.from_numpy(image), level).numpy()


@pytest.mark.parametrize("noise_map", [True, False])
@pytest.mark.parametrize("kind", ["onnx", "ir"])
def test_the_file_takes_any_size_and_sigma_in_8_bit_units(tmp_path, kind, noise_map):
    path = save_tiny(tmp_path / "a.safetensors", noise_map=noise_map)
    out = tmp_path / "deep" / ("a.onnx" if kind == "onnx" else "ir")
    written, difference = export(open_checkpoint(path), out)
    assert difference < 1e-5
    for size in [(1, 1), (5, 3), (1, 17), (45, 31)]:
        image = np.random.default_rng(0).random((1, 3, *size), np.float32)
        inputs = {"image": image} | ({"sigma": np.array([40], np.float32)} if noise_map else {})
        if kind == "onnx":
            ort = pytest.importorskip("onnxruntime")
            (restored,) = ort.InferenceSession(written[0]).run(["restored"], inputs)
        else:
            pytest.importorskip("openvino")
            from denoise_se.openvino_core import core

            assert [file.name for file in written] == ["a.xml", "a.bin"]
            compiled = core().compile_model(written[0], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            restored = compiled(inputs)["restored"]
        assert np.abs(restored - image).mean() > 1e-3
        np.testing.assert_allclose(restored, expected(path, image, 40), atol=1e-5, rtol=0)
    assert sorted(file.name for file in out.parent.iterdir()) == [out.name], "nothing else is left"


def test_the_command_prints_the_parity_and_replaces_only_when_told(tmp_path, capsys):
    path = save_tiny(tmp_path / "a.safetensors")
    out = tmp_path / "a.onnx"
    app(["export", str(path), "-o", str(out)], standalone_mode=False)
    printed = capsys.readouterr().out
    assert f"wrote {out}" in printed and "sigma [1] in 8-bit units" in printed
    assert float(re.search(r"largest difference from torch: (\S+) \(allowed: 0.0001\)", printed)[1]) < 1e-5
    first = out.read_bytes()
    save_tiny(path, seed=1)
    with pytest.raises(UsageError, match=r"a\.onnx: exists; .* --overwrite"):
        app(["export", str(path), "-o", str(out)], standalone_mode=False)
    assert out.read_bytes() == first
    app(["export", str(path), "-o", str(out), "--overwrite"], standalone_mode=False)
    assert out.read_bytes() != first


def test_a_file_that_differs_from_torch_is_not_written_and_the_former_one_stays(tmp_path, monkeypatch):
    path = save_tiny(tmp_path / "a.safetensors")
    monkeypatch.setattr(export_module, "_runner", lambda *_: lambda inputs: inputs["image"])
    for out in (tmp_path / "a.onnx", tmp_path / "ir"):
        with pytest.raises(DenoiseError, match=r"differs from torch by .* no file was written"):
            export(open_checkpoint(path), out)
        assert not list(tmp_path.rglob("*.xml")) and not list(tmp_path.rglob("*.onnx"))
    (tmp_path / "a.onnx").write_bytes(b"former")
    with pytest.raises(DenoiseError, match="no file was written"):
        export(open_checkpoint(path), tmp_path / "a.onnx", overwrite=True)
    assert (tmp_path / "a.onnx").read_bytes() == b"former"


def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch):
    file = open_checkpoint(save_tiny(tmp_path / "a.safetensors"))
    with pytest.raises(UsageError, match=r"\.onnx, or a folder"):
        export(file, tmp_path / "a.pt")
    (tmp_path / "blocked").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be written"):
        export(file, tmp_path / "blocked" / "a.onnx")
    monkeypatch.setattr(export_module, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'pip install "denoise-se\[openvino\]"'):
        export(file, tmp_path / "a.onnx")


def test_names_that_are_too_long_are_refused_before_any_work(tmp_path):
    file = open_checkpoint(save_tiny(tmp_path / "a.safetensors"))
    for name in ("a" * 300 + ".onnx", "a" * 300):
        with pytest.raises(UsageError, match="cannot be written"):
            export(file, tmp_path / name)
    with pytest.raises(UsageError, match=r"--report .*cannot be written \(File name too long\)"):
        check_output("--report", tmp_path / ("a" * 300 + ".json"), (".json",))
    with pytest.raises(UsageError, match="cannot be written"):
        check_run(tmp_path / ("a" * 300), resume=False)


def test_the_ten_lines_of_the_readme_do_what_the_model_does(tmp_path):
    pytest.importorskip("onnxruntime")
    script = re.search(r"```python\n# denoise\.py\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert len(script.strip().splitlines()) <= 10 and "denoise_se" not in script
    noisy = np.random.default_rng(0).integers(0, 256, (29, 43, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "noisy.png"), noisy[..., ::-1])
    path = save_tiny(tmp_path / "color.safetensors")
    export(open_checkpoint(path), tmp_path / "color.onnx")
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    clean = cv2.imread(str(tmp_path / "clean.png"))[..., ::-1]
    assert np.abs(clean.astype(int) - Denoiser.load(path, backend="torch")(noisy, 25)).max() <= 1
    assert not np.array_equal(clean, noisy)
