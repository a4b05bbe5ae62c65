"""What int8 needs to know of a checkpoint and costs it: a small JSON file beside the weights, FILE.int8.json.

The rounded weights follow from the weights, so that only the ranges of the activations are kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from denoise_se.atomic_file import replacing
from denoise_se.checkpoint import CheckpointFile, made_noise
from denoise_se.errors import CheckpointError, UsageError
from denoise_se.network_psnr import Batch, mean_psnr
from denoise_se.quantisation import WEIGHT_BITS, Ranges, find_ranges, rounded

if TYPE_CHECKING:
    from denoise_se.noise_model import AddNoise

MOST_LOSS = 0.03  # dB; above it "auto" stays with floats
IMAGES, SIDE = 24, 192  # the images calibrated and measured on, and how much of their middle
SIGMAS = (15, 25, 50)
OTHER_NOISE = "gaussian:0-25"  # for ranges of a network that has learned from pairs alone
MOST_FLOATS = 6  # convolutions besides the first and the last that may stay in float


@dataclass(frozen=True)
class Calibration:
    """`ranges`: (low, high) of each rounded convolution's input, by the module's name; the others stay in float.

    `weights` is the sha256 of the checkpoint's file; `data` what it was calibrated on; `loss` dB of PSNR, by noise,
    with weights of 8 or 7 bits, whichever lose more.
    """

    weights: str
    ranges: Ranges
    data: str
    loss: Mapping[str, float]

    @property
    def worst_loss(self) -> float:
        """The largest of the losses; infinite when none was measured."""
        return max(self.loss.values(), default=math.inf)


def calibration_path(weights: Path) -> Path:
    """Where the calibration of a checkpoint's file lies."""
    return weights.with_suffix(".int8.json")


def read_calibration(checkpoint: CheckpointFile) -> Calibration | None:
    """The calibration beside a checkpoint; None when there is none, or one of other weights.

    Raises CheckpointError when it is damaged.
    """
    path = calibration_path(checkpoint.path)
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for a writer for ever
            raise ValueError("no file")
        values = json.loads(path.read_text(encoding="utf-8"))
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in values["ranges"].items()}
        loss = {str(name): float(decibels) for name, decibels in values["loss"].items()}
        found = Calibration(str(values["weights"]), ranges, str(values["data"]), loss)
    except FileNotFoundError:
        return None
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a calibration ({error}); remove it or make it again") from error
    if not all(-math.inf < low <= 0 < high < math.inf for low, high in ranges.values()):
        raise CheckpointError(f"{path}: holds a range that is none; remove it or make it again")
    if any(map(math.isnan, loss.values())):
        raise CheckpointError(f"{path}: holds a loss that is none; remove it or make it again")
    return found if found.weights == checkpoint.digest else None


def write_calibration(checkpoint: CheckpointFile, calibration: Calibration) -> Path:
    """Write it beside the checkpoint; raises OSError."""
    path = calibration_path(checkpoint.path)
    with replacing(path) as file:
        file.write((json.dumps(asdict(calibration), indent=1) + "\n").encode())
    return path


def calibrate(checkpoint: CheckpointFile, clean: Path, tell: Callable[[str], None] = print) -> Calibration:
    """Find the ranges on images of a folder with the noise that the checkpoint was trained on, and what they cost.

    Two thirds of `IMAGES` images, drawings on every eighth of these, and for colour every fourth with its noise in
    grey, give the ranges, the others the loss: with ranges of photographs alone, letters came out up to 2 dB worse than
    in float. While it is above `MOST_LOSS`, the convolution whose return to float brings it down most is left in float,
    up to `MOST_FLOATS`.

    Raises:
        DatasetError: a folder without images.
        UsageError: too few images of `SIDE` pixels, or a checkpoint that does not say its noise.
    """
    from denoise_se.noise import parse_noise_spec

    network = checkpoint.load().network()
    network.fold_batchnorm()
    images = _middles(clean, checkpoint.config.channels)
    spec = made_noise(checkpoint.training)
    if not spec:
        raise UsageError(f"{checkpoint.path}: does not say which noise it was trained on, so none can be made")
    photographs = images[: IMAGES * 2 // 3]
    calibrating = _with_grey(_batches([*photographs, *_drawings(photographs[::8])], parse_noise_spec(str(spec))))
    specs = {f"gaussian:{sigma}": f"gaussian:{sigma}" for sigma in SIGMAS}
    if not checkpoint.config.noise_map:
        specs = {"the noise it was trained on": str(spec)}
    measured = images[IMAGES * 2 // 3 :]
    measuring = {noise: _batches(measured, parse_noise_spec(text)) for noise, text in specs.items()}
    before = {noise: mean_psnr(network, batches) for noise, batches in measuring.items()}
    ranges = find_ranges(network, calibrating)

    def loss_of(chosen: Ranges, bits: Sequence[int] = WEIGHT_BITS) -> dict[str, float]:
        return {noise: _loss(checkpoint, chosen, batches, before[noise], bits) for noise, batches in measuring.items()}

    chosen, loss = dict(ranges), loss_of(ranges)
    tell(f"all in int8 but the first and the last convolution: {_decibels(loss)}")
    while max(loss.values()) > MOST_LOSS and len(ranges) - len(chosen) < min(MOST_FLOATS, len(ranges)):
        without = {
            name: loss_of({other: chosen[other] for other in chosen if other != name}, WEIGHT_BITS[-1:])
            for name in chosen
        }
        name = min(without, key=lambda name: max(without[name].values()))
        del chosen[name]
        loss = loss_of(chosen)
        tell(f"{name} in float too: {_decibels(loss)}")
    return Calibration(checkpoint.digest, chosen, f"{IMAGES} images like those of the training ({clean.name})", loss)


def calibrate_run(checkpoint: CheckpointFile, train: Sequence[Batch], validation: Sequence[Batch]) -> Calibration:
    """As `calibrate`, for a training run: ranges on some of its images, the loss on its validation images.

    Few pictures of one camera leave out much that a network is given later: so ranges are found on their clean sides
    with the noise that was rehearsed, too, and on drawings with it. In place of the search, which takes many times as
    long, the last convolutions are left in float, two at a time: as the search did for the shipped `photo`.
    """
    network = checkpoint.load().network()
    network.fold_batchnorm()
    before, ranges = mean_psnr(network, validation), find_ranges(network, [*train, *_others(checkpoint, train)])
    names = list(ranges)
    for floats in range(0, min(MOST_FLOATS, len(names)) + 1, 2):
        chosen = {name: ranges[name] for name in names[: len(names) - floats]}
        loss = _loss(checkpoint, chosen, validation, before)
        if loss <= MOST_LOSS:
            break
    return Calibration(
        checkpoint.digest, chosen, f"{len(train)} images of the training", {"the validation images": loss}
    )


def _others(checkpoint: CheckpointFile, train: Sequence[Batch]) -> list[Batch]:
    """A run's images with the noise that its network knows besides theirs, and drawings with it."""
    from denoise_se.noise import parse_noise_spec
    from denoise_se.rehearsal import old_noise

    photographs = [clean[0].numpy() for _, _, clean in train]
    noise = old_noise(checkpoint.load(), min(photographs[0].shape[1:])) or parse_noise_spec(OTHER_NOISE)
    return _with_grey(_batches([*photographs, *_drawings(photographs[::8])], noise))


def _loss(
    checkpoint: CheckpointFile,
    ranges: Ranges,
    batches: Sequence[Batch],
    before: float,
    weight_bits: Sequence[int] = WEIGHT_BITS,
) -> float:
    """dB lost against `before`, with weights of so many bits, whichever lose most; infinite where that has no value."""
    after = [mean_psnr(rounded(checkpoint.load().network(), ranges, bits), batches) for bits in weight_bits]
    lost = [before - psnr for psnr in after]
    return round(max(math.inf if math.isnan(loss) else loss for loss in lost), 4)


def _decibels(loss: Mapping[str, float]) -> str:
    return ", ".join(f"{noise} -{decibels:.3f} dB" for noise, decibels in loss.items())


def _middles(folder: Path, channels: int) -> list[np.ndarray]:
    """The middle of `IMAGES` images, chosen at random with a fixed seed: [C, SIDE, SIDE], float32 in [0, 1]."""
    from denoise_se.image_folder import image_files
    from denoise_se.loaded import load_pixels, to_unit

    files = image_files(folder)
    found: list[np.ndarray] = []
    for index in np.random.default_rng(0).permutation(len(files)):
        pixels = load_pixels(files[index], channels)
        top, left = ((size - SIDE) // 2 for size in pixels.shape[1:])
        if min(top, left) >= 0:
            found.append(to_unit(pixels[:, top : top + SIDE, left : left + SIDE]).numpy())
        if len(found) == IMAGES:
            return found
    raise UsageError(f"{folder}: has {len(found)} images of {SIDE} pixels a side; {IMAGES} are needed")


def _drawings(photographs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A sheet of drawings for each photograph, [C, SIDE, SIDE], float32 in [0, 1]."""
    from denoise_se.drawings import sheet

    random = np.random.default_rng(0)
    pages = (sheet(np.rint(photo.transpose(1, 2, 0) * 255).astype(np.uint8), random) for photo in photographs)
    return [page.transpose(2, 0, 1).astype(np.float32) / 255 for page in pages]


def _with_grey(batches: list[Batch]) -> list[Batch]:
    """And every fourth of RGB ones once more with its noise in grey, see `objectives.greyed`."""
    import torch

    from denoise_se.noise_model import Noisy
    from denoise_se.objectives import greyed

    found = list(batches)
    for seed, (noisy, level, clean) in enumerate(batches[::4]):
        if clean.shape[1] == 3:
            found.append(greyed(Noisy(noisy, level), clean, 1.0, torch.Generator().manual_seed(seed)))
    return found


def _batches(images: list[np.ndarray], model: AddNoise) -> list[Batch]:
    """Each image with its noise, seeded by its place."""
    import torch

    batches: list[Batch] = []
    for seed, image in enumerate(images):
        clean = torch.from_numpy(image)[None]
        noisy, level = model(clean, torch.Generator().manual_seed(seed))
        batches.append((noisy, level.expand_as(clean[:, :1]), clean))
    return batches
