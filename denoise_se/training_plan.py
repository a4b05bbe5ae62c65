"""From what someone has to what is trained: the images of both sides, the objective, and what to say about it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from denoise_se.bursts import Scene, load_bursts, refuse_shared_scenes, split_scenes
from denoise_se.checkpoint import Checkpoint
from denoise_se.datasets import Patches
from denoise_se.file_pairs import PairedFiles
from denoise_se.held_out_risk import HeldOutRisk, Risk
from denoise_se.image_folder import image_files
from denoise_se.image_io import probe
from denoise_se.loaded import Reading
from denoise_se.noise import parse_noise_spec, refuse_unfit
from denoise_se.noise_model import NoiseModel
from denoise_se.noisy_only import has_banding, plan_noisy_only
from denoise_se.objectives import Objective, Supervised
from denoise_se.pair_check import checked
from denoise_se.rehearsal import rehearsed
from denoise_se.resynthesis import ResynthesisRisk, Scaled, resynthesised
from denoise_se.told_level import to_judge, to_learn, with_told
from denoise_se.training_config import TrainingConfig
from denoise_se.training_images import SMALLEST_SIDE, Pair, load_pairs, refuse_shared_images, split_validation
from denoise_se.training_layout import Layout
from denoise_se.training_outcome import OutcomeReport

MOST_HELD_OUT = 100  # of pairs that were given to validate on


@dataclass(frozen=True)
class TrainingPlan:
    """Arguments of `fit`, and lines for the terminal: `notes`, and `warnings` about the images. `clean` says that both
    sides have clean images, so that what int8 costs can be measured: the noise of a target would hide it."""

    config: TrainingConfig
    train: list[Pair]
    validation: list[Pair]
    data: str
    objective: Objective
    report: OutcomeReport
    clean: bool
    risk: Risk | None = None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    rehearsal: list[Pair] = field(default_factory=list)


def plan_training(
    layout: Layout,
    config: TrainingConfig,
    start: Checkpoint | None,
    validation: PairedFiles | None = None,
    rehearse: Path | None = None,
    reading: Reading | None = None,
) -> TrainingPlan:
    """Load and check everything.

    Args:
        layout: what the images are and where.
        config: the recipe; its `turns` are switched off where rows or columns are noisy.
        start: the weights to start from.
        validation: pairs to validate on instead of a part of the images.
        rehearse: folder of clean pictures to practise the start's own noise on.
        reading: how the images are read; by default all pixels are in memory.

    Raises:
        DatasetError: listing all that is wrong with the images.
        NoiseSpecError: noise that does not go on such patches.
        UsageError: noisy pictures whose noise cannot be measured, or nothing to rehearse.
    """
    makers = {"pairs": _with_clean, "clean": _with_clean, "burst": _burst, "noisy": _noisy}
    reading = reading or Reading()
    plan = makers[layout.kind](layout, config, start, validation or layout.validation, reading)
    if rehearse is None and layout.kind in ("burst", "noisy"):  # no clean sides
        return replace(plan, warnings=[*plan.warnings, *reading.lines()])
    others: list[Pair] = []
    pictures, where = None, ""
    if rehearse is not None:
        others = load_pairs(PairedFiles(None, rehearse), config.network.channels, config.patch, reading=reading)
        refuse_shared_images(others, plan.validation)
        pictures = Patches(others, config.patch, config.seed, config.drawings)
        where = f", on {len(others)} pictures of {rehearse.name}"
    clean = [pair.clean for pair in (others or plan.train)]
    plan = replace(plan, warnings=[*plan.warnings, *reading.lines()])
    objective = rehearsed(plan.objective, start, config.rehearsal, config.patch, config.network, clean, pictures)
    if objective is plan.objective:
        return plan
    notes = [*plan.notes, f"{config.rehearsal:.0%} of the steps rehearse the start's own noise{where}"]
    data = plan.data + (where and f"; rehearsed{where}")
    return replace(plan, objective=objective, notes=notes, data=data, rehearsal=others)


def _with_clean(
    layout: Layout, config: TrainingConfig, start: Checkpoint | None, held_out: PairedFiles | None, reading: Reading
) -> TrainingPlan:
    channels = config.network.channels
    assert layout.files is not None
    images = load_pairs(layout.files, channels, max(config.patch, SMALLEST_SIDE), reading=reading)
    train, validation = (with_told(side, config.network, start) for side in _sides(images, held_out, channels, reading))
    notes = []
    if has_banding(train):
        config = replace(config, turns=False)
        notes.append("the noise shifts whole rows or columns: patches are flipped, but not turned")
    noise = parse_noise_spec(config.noise) if config.noise else None
    if noise is not None:
        refuse_unfit(noise, channels, config.patch)
    learnt = noise and to_learn(noise, config.network, [pair.clean for pair in train])
    data = f"{layout.files.clean.name} (clean)"
    if layout.files.noisy is not None:
        data = " and ".join(dict.fromkeys((layout.files.noisy.name, layout.files.clean.name))) + " (pairs)"
    return TrainingPlan(
        config,
        train,
        validation,
        f"{data}, {len(train)} images",
        Supervised(learnt),
        OutcomeReport(validation, start, noise and to_judge(noise, config.network), None, config.seed),
        clean=True,
        notes=notes,
        warnings=[*checked([*train, *validation]), *left_out(layout.files.clean, images, config.patch)],
    )


def _burst(
    layout: Layout, config: TrainingConfig, start: Checkpoint | None, held_out: PairedFiles | None, reading: Reading
) -> TrainingPlan:
    channels = config.network.channels
    scenes, warnings = load_bursts(layout.folder, channels, max(config.patch, SMALLEST_SIDE), reading)
    remarks = {}
    if held_out is not None:
        train, validation = scenes, _held_out(held_out, channels, reading)
        means = (Pair(scene.name, None, next(scene.pairs(1)).clean) for scene in train)
        refuse_shared_images(itertools.chain(means, _shots(train)), validation)
    else:
        train, kept = split_scenes(scenes)
        refuse_shared_scenes(train, kept)
        validation = [pair for scene in kept for pair in scene.held_out_pairs()]
        limit = float(np.mean([scene.target_psnr() for scene in kept]))
        remarks["validated against"] = f"the mean of the other shots, itself {limit:.1f} dB from the scene"
    pairs = with_told([pair._replace(clean=reading.keep(pair.clean)) for pair in _shots(train)], config.network, start)
    validation = with_told(validation, config.network, start)
    fewest = min(len(scene.shots) for scene in train)
    way = "another shot as the target (Noise2Noise)" if fewest == 2 else "the mean of the other shots as the target"
    notes = [f"{len(train)} scenes of {fewest} shots or more for training: {way}"]
    if has_banding(pairs):
        config = replace(config, turns=False)
        notes.append("the noise shifts whole rows or columns: patches are flipped, but not turned")
    return TrainingPlan(
        config,
        pairs,
        validation,
        f"{layout.folder.name} (burst), {len(train)} scenes, {len(pairs)} shots",
        Supervised(None),
        OutcomeReport(validation, start, None, None, config.seed, remarks),
        clean=False,
        notes=notes,
        warnings=warnings,
    )


def _shots(scenes: Sequence[Scene]) -> Iterator[Pair]:
    return (pair for scene in scenes for pair in scene.pairs())


def _noisy(
    layout: Layout, config: TrainingConfig, start: Checkpoint | None, held_out: PairedFiles | None, reading: Reading
) -> TrainingPlan:
    channels = config.network.channels
    images = load_pairs(
        PairedFiles(None, layout.folder), channels, max(config.patch, SMALLEST_SIDE), one_kind=True, reading=reading
    )
    noisy = with_told([Pair(image.name, image.clean, image.clean) for image in images], config.network, start)
    if held_out is not None:
        train, validation = _sides(noisy, held_out, channels, reading)
        validation = with_told(validation, config.network, start)
    else:
        train, validation = split_validation(noisy)
        refuse_shared_images(train, validation)
    way = plan_noisy_only(train, start)
    objective, why, turns = way.objective, way.why, way.turns
    network = None if start is None else start.network()
    # the level of noise that is independent from pixel to pixel can be trusted, that of others reads low
    risk: Risk | None = HeldOutRisk(way.noise, None if turns else network)
    if start is not None and network is not None and way.hidden:
        pictures = resynthesised(train, start, max(config.patch, SMALLEST_SIDE))
        if pictures:
            scaled = to_learn(Scaled(way.noise), config.network, [picture.clean for picture in pictures])
            objective, turns = Supervised(scaled), False
            train, risk = pictures, ResynthesisRisk(scaled, network)
        else:
            why += "; the pictures are too small to be halved, so Recorrupted-to-Recorrupted"
    measured: NoiseModel | None = None if held_out is not None else way.noise
    return TrainingPlan(
        replace(config, turns=config.turns and turns),
        train,
        validation,
        f"{layout.folder.name} (noisy only), {len(train)} images",
        objective,
        OutcomeReport(validation, start, None, measured, config.seed, {"learnt from noisy pictures": why}),
        False,
        risk if held_out is None else None,
        notes=[why],
        warnings=left_out(layout.folder, images, config.patch),
    )


def left_out(folder: Path, images: Sequence[Pair], patch: int) -> list[str]:
    """A line that says how many pictures of a folder are too small to be of use."""
    pages = 0 if images[0].noisy is not None else sum(probe(file).frames for file in image_files(folder))
    count = max(0, pages - len(images))
    least = max(patch, SMALLEST_SIDE)
    return [f"{folder}: {count} picture(s) smaller than {least} pixels are left out"] if count else []


def _sides(
    images: list[Pair], held_out: PairedFiles | None, channels: int, reading: Reading
) -> tuple[list[Pair], list[Pair]]:
    if held_out is None:
        train, validation = split_validation(images)
    else:
        train, validation = images, _held_out(held_out, channels, reading)
    refuse_shared_images(train, validation)
    return train, validation


def _held_out(files: PairedFiles, channels: int, reading: Reading) -> list[Pair]:
    """The pairs to validate on, at most MOST_HELD_OUT of them: each validation takes its time."""
    return load_pairs(files, channels, SMALLEST_SIDE, mend="leave it out", most=MOST_HELD_OUT, reading=reading)
