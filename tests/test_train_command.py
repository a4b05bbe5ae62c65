"""`denoise-se train` in this process: what is refused before the first step, and short runs on each kind of folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import Run, plain
from tiny_model import save_tiny

from denoise_se.checkpoint import load_checkpoint


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        ([], "give one of: a folder, --pairs"),
        (["--pairs", "n", "c", "--clean", "c"], "give one of: a folder, --pairs"),
        (["c", "--noisy", "n"], "give one of: a folder, --pairs"),
        (["--clean", "c"], "--noise gaussian"),
        (["--noisy", "n", "--init", "none"], "n: no such folder"),
        (["--burst", "n", "--init", "none"], "n: no such folder"),
        (["gone"], "gone: no such folder"),
        (["--pairs", "c", "--quiet"], "--quiet: is an option, where a folder is wanted"),
        (["--pairs", "c", "c", "--rehearse", "gone"], "gone: no such folder"),
        (["--noisy", "n", "--noise", "gaussian:5"], "--noise goes with --clean"),
        (["--pairs", "n", "c", "--noise", "gaussian:5"], "--noise goes with --clean"),
        (["--clean", "c", "--noise", "gauss:5"], "one of gaussian"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "nothing"], "no such checkpoint"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "x.ckpt"], "best.safetensors"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "none", "--config", "gone.yaml"], "gone.yaml"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "none", "--config", "list.yaml"], "no mapping"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "none", "--config", "broken.yaml"], "YAML"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "none", "--config", "rate.yaml"], "0.001"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "none", "--config", "field.yaml"], "wdths"),
        (["--clean", "c", "--init", "none", "--config", "noise.yaml"], "noise is [5], not a text"),
        (["--clean", "gone", "--noise", "gaussian:5", "--init", "none"], "gone: no such folder"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "none"], "holds no image"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "none", "--minutes", "0"], "--steps or --minutes"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "none", "--patch", "2"], "--patch"),
        (["--clean", "c", "--noise", "gaussian:5", "--steps", "many"], "--steps"),
        (["c", "--noise", "gaussian:5", "-o", "c/run"], "lies inside c"),
    ],
)
def test_training_that_cannot_start_exits_2_and_makes_no_folder(run: Run, arguments: list[str], mend: str) -> None:
    Path("c").mkdir()
    for name, text in (
        ("list", "[1, 2]"),
        ("broken", "a: [1"),
        ("rate", "learning_rate: 1e-3"),
        ("field", "network: {wdths: [4]}"),
        ("noise", "noise: [5]"),
    ):
        Path(f"{name}.yaml").write_text(text)
    result = run("train", *([] if "-o" in arguments else ["-o", "run"]), *arguments)
    assert result.code == 2 and mend in " ".join(plain(result.err).replace("│", " ").split()), result
    assert not Path("run").exists() and not Path("c/run").exists()


SHORT = ("--steps", 2, "--patch", 16, "--batch", 2)


def deep_pairs(noisy: str, clean: str, seeds: range) -> None:
    """16-bit grey pictures with noise, as PNG."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        picture = cv2.resize(rng.uniform(1e4, 5e4, (4, 4)), (32, 32))
        for folder, values in ((clean, picture), (noisy, picture + rng.normal(0, 4000, picture.shape))):
            Path(folder).mkdir(exist_ok=True)
            cv2.imwrite(f"{folder}/{seed}.png", np.clip(values, 0, 65535).astype(np.uint16))


def test_pairs_of_16_bit_grey_files_train_a_colour_network_that_denoise_takes(run: Run, tiny: Path) -> None:
    deep_pairs("n", "c", range(3))
    deep_pairs("vn", "vc", range(3, 5))
    Path("recipe.yaml").write_text("{validations: 1, warmup_steps: 1, steps: 99, batch: 2}")
    arguments = ["--pairs", "n", "c", "--val-pairs", "vn", "vc", "--init", tiny, "--config", "recipe.yaml"]
    result = run("train", "-o", "[red]run", *arguments, "--steps", 3, "--patch", 16, "--seed", 5)
    assert result.code == 0, result.err
    best = Path("[red]run/best.safetensors")
    assert f"wrote {best}" in result.err and "3 images for training, 2 for validation" in result.err
    recipe = load_checkpoint(best).training["recipe"]
    assert (recipe["steps"], recipe["minutes"], recipe["patch"], recipe["batch"], recipe["seed"]) == (3, 0, 16, 2, 5)
    assert recipe["learning_rate"] == 5e-4 and recipe["noise"] is None
    again = run("train", "-o", "[red]run", *arguments, "--patch", 16)
    assert again.code == 2 and "--resume" in again.err
    result = run("denoise", "vn", "-o", "out", "--model", best, "--reference", "vc", "--report", "r.csv")
    assert result.code == 0, result.err
    assert cv2.imread("out/3.png", cv2.IMREAD_UNCHANGED).dtype == np.uint16


def test_a_grey_start_trains_a_colour_network_and_is_measured_as_one(run: Run, tmp_path: Path) -> None:
    start = save_tiny(tmp_path / "grey.safetensors", channels=1)
    for seed in range(4):
        coloured(f"c/{seed}.png", seed)
    network = "{channels: 3, widths: [4, 8], blocks: 1}"
    Path("recipe.yaml").write_text(f"{{network: {network}, noise: 'gaussian:10', warmup_steps: 1}}")
    result = run("train", "-o", "run", "--clean", "c", "--init", start, "--config", "recipe.yaml", *SHORT)
    assert result.code == 0, result.err
    assert load_checkpoint("run/best.safetensors").config.channels == 3
    assert "start (PSNR, SSIM)" in result.err


def test_noise_that_does_not_go_on_the_patches_is_refused_before_the_run_folder_is_made(run: Run, tiny: Path) -> None:
    for seed in range(4):
        coloured(f"c/{seed}.png", seed)
    arguments = ["--clean", "c", "--init", tiny, "--steps", 1, "--patch", 12]
    result = run(
        "train", "-o", "run", *arguments, "--noise", "gaussian:5|camera:gain=0.004,read=0.01,luma=0.5,chroma=4"
    )
    assert result.code == 2 and "more than 12 pixels a side" in result.err and not Path("run").exists()


def test_the_noise_of_a_recipe_makes_a_folder_of_pictures_clean_ones(run: Run, tiny: Path) -> None:
    for seed in range(4):
        coloured(f"c/{seed}.png", seed)
    Path("recipe.yaml").write_text("noise: gaussian:10")
    result = run("train", "-o", "run", "c", "--init", tiny, "--config", "recipe.yaml", *SHORT)
    assert result.code == 0 and "c: taken as clean images" in result.err, result.err
    assert load_checkpoint("run/best.safetensors").training["recipe"]["noise"] == "gaussian:10"


def test_files_of_the_same_name_in_several_folders_are_told_apart(run: Run, tiny: Path) -> None:
    for scene in range(3):
        coloured(f"n/scene{scene}/010.png", scene, 0)
        coloured(f"c/scene{scene}/010.png", scene)
    shutil.copytree("c/scene1", "vc/other")
    shutil.copytree("n/scene1", "vn/other")
    result = run("train", "-o", "run", "--pairs", "n", "c", "--val-pairs", "vn", "vc", "--init", tiny, "--patch", 16)
    assert result.code == 2 and "the same picture as scene1/010 of training" in result.err


def test_a_picture_is_known_again_when_only_its_side_holds_16_bit_files(run: Run, tiny: Path) -> None:
    for seed in range(3):
        coloured(f"n/{seed}.png", seed, 0)
        coloured(f"c/{seed}.png", seed)
    for folder in ("n", "c"):
        Path(f"v{folder}").mkdir()
        shutil.copy(f"{folder}/1.png", f"v{folder}/same.png")
        cv2.imwrite(f"v{folder}/deep.png", np.full((40, 40, 3), 4000, np.uint16))
    result = run("train", "-o", "run", "--pairs", "n", "c", "--val-pairs", "vn", "vc", "--init", tiny, "--patch", 16)
    assert result.code == 2 and "same: the same picture as 1 of training" in result.err


def test_broken_pairs_and_shared_pictures_are_listed_before_the_first_step(run: Run, tiny: Path) -> None:
    deep_pairs("n", "c", range(3))
    Path("n/1.png").write_bytes(b"x")
    Path("c/2.png").unlink()
    result = run("train", "-o", "run", "--pairs", "n", "c", "--init", tiny, "--steps", 1, "--patch", 16)
    assert result.code == 2 and "2 problem(s)" in result.err and "n/1.png" in result.err and "n/2.png" in result.err
    deep_pairs("n", "c", range(3))
    result = run("train", "-o", "run", "--pairs", "n", "c", "--val-pairs", "n", "c", "--init", tiny, "--patch", 16)
    assert result.code == 2 and all(f"{i}: the same picture as {i}" in result.err for i in range(3))
    assert not Path("run").exists()


def coloured(path: str, seed: int, noise_seed: int | None = None, rows: float = 0) -> None:
    """An 8-bit colour picture of 72x64, drawn from `seed`, with noise."""
    picture = cv2.resize(np.random.default_rng(seed).uniform(60, 190, (5, 5, 3)), (72, 64))
    if noise_seed is not None:
        rng = np.random.default_rng((seed, noise_seed))
        picture = picture + rng.normal(0, 12, picture.shape) + rng.normal(0, rows, (64, 1, 1))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(path, np.clip(np.rint(picture), 0, 255).astype(np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "way"), [(0, "so Neighbor2Neighbor"), (15, "so Recorrupted-to-Recorrupted")])
def test_noisy_pictures_alone_train_and_the_way_is_chosen_by_their_noise(
    run: Run, tiny: Path, rows: float, way: str
) -> None:
    for seed in range(8):
        coloured(f"d/{seed}.png", seed, 0, rows)
    result = run("train", "-o", "run", "d", "--init", "none", *SHORT)
    assert result.code == 0, result.err
    assert "d: taken as noisy pictures only" in result.err and way in result.err
    assert "7 images for training, 1 for validation" in result.err
    card = Path("run/card.md").read_text()
    assert "PSNR estimated without clean images" in card and "what tuned removes: sigma" in card and way in card
    assert cv2.imread("run/samples.png") is not None
    load_checkpoint(Path("run/best.safetensors"))


@pytest.mark.slow
def test_a_folder_of_bursts_trains_on_the_mean_of_the_other_shots(run: Run, tiny: Path) -> None:
    for seed in range(3):
        for shot in range(3):
            coloured(f"d/s{seed}/{shot}.png", seed, shot)
    result = run("train", "-o", "run", "d", "--init", tiny, *SHORT)
    assert result.code == 0, result.err
    assert "taken as bursts: 3 sub-folders" in result.err and "the mean of the other shots as the target" in result.err
    assert "6 images for training, 2 for validation" in result.err and "itself 2" in Path("run/card.md").read_text()


@pytest.mark.slow
def test_a_folder_of_pairs_says_what_is_wrong_and_what_was_gained(run: Run, tiny: Path) -> None:
    for seed in range(4):
        coloured(f"d/noisy/{seed}.png", seed, 0, rows=20)
        coloured(f"d/gt/{seed}.png", seed)
    result = run("train", "-o", "run", "d", "--init", tiny, *SHORT)
    assert result.code == 0, result.err
    assert "taken as pairs: noisy/ and gt/" in result.err and "flipped, but not turned" in result.err
    card = Path("run/card.md").read_text()
    assert all(line in card for line in ("- noisy (PSNR, SSIM): ", "- start (PSNR, SSIM): ", "- tuned (PSNR, SSIM): "))
    assert "BM3D" in card and load_checkpoint(Path("run/best.safetensors")).training["recipe"]["turns"] is False
    refused = run("train", "-o", "other", "d", "--noise", "gaussian:5", "--init", tiny)
    assert refused.code == 2 and "taken as pairs" in refused.err and not Path("other").exists()


@pytest.mark.parametrize(
    "text",
    ["seed: 2020-99-99", "seed: 0b_", "[" * 20_000, "seed: " + "9" * 5000, "minutes: " + "9" * 400, "stepz: 3"],
)
def test_a_recipe_that_yaml_stumbles_over_is_refused_by_name(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    (tmp_path / "clean").mkdir()
    cv2.imwrite("clean/a.png", np.full((80, 80, 3), 99, np.uint8))
    words = ["train", "-o", "run", "--clean", "clean", "--noise", "gaussian:5", "--config", "recipe.yaml"]
    result = run(*words)
    assert result.code == 2 and "--config recipe.yaml: " in result.err, result.err
