"""Measuring denoisers side by side on test sets: our own, classical baselines and published peers, in one run.

A result is clipped to [0, 1] and rounded to the depth of the clean file (8 bits for all published sets); PSNR is over
all pixels and channels, SSIM the mean over channels, both averaged over the images. How a noisy image comes about is
in `evaluation_set`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from denoise_se.alike import counted
from denoise_se.channel_names import KINDS
from denoise_se.crops import Crop, best_crops, cut_crop
from denoise_se.display import shown_range
from denoise_se.errors import DenoiseError, ImageError, NoiseSpecError, UsageError
from denoise_se.evaluation_methods import NOISY, Method, ModelMethod, check_names
from denoise_se.evaluation_scores import Evaluation, ImageScore
from denoise_se.evaluation_set import PAIRS, Case, by_page, check_files, clean_cases, inputs, pair_cases, unit_range
from denoise_se.metrics import mean_absolute_error, psnr, ssim
from denoise_se.noise_estimation import NoiseEstimate, estimate_noise
from denoise_se.provenance import processor
from denoise_se.quality import QualityEstimate, estimate_psnr, looks_clipped
from denoise_se.scanlines import ArrayScanlines
from denoise_se.threads import granted_cores

if TYPE_CHECKING:
    from denoise_se.noise import NoiseChain, NoiseMixture

Pixels = NDArray[np.float32]
OnProgress = Callable[[int, int, str], None]

_WARM_UP_SIDE = 64


def evaluate(
    methods: Sequence[Method],
    *,
    clean: Sequence[Path] = (),
    noises: Sequence[str] = (),
    pairs: Sequence[tuple[Path, Path]] = (),
    tell_sigma: bool = True,
    estimate_quality: bool = False,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Measure all methods on all test sets; what `denoise-se evaluate` does.

    `clean` are folders of clean images, each measured under each noise spec of `noises`; `pairs` are (noisy, clean)
    folders, matched by relative path and stem. Each page of a TIFF stack is an image. Colour files are measured in
    colour, and once more as grey (Rec. 601) when a method takes grey only; a method that takes colour only is left out,
    with a note, where files are grey. Sigma is told to the methods for Gaussian noise, unless `tell_sigma` is False;
    for all other noise and for pairs they have to find it (None). `estimate_quality` adds what `quality.estimate_psnr`
    says of our own models' results. `on_progress(done, total, label)` is called after each image and noise. It can be
    interrupted at any point; nothing is written.

    An image that turns out to be damaged, or too small for the noise, is left out of all methods' figures; so is noise
    on images of a kind that cannot have it, as camera noise on grey ones. Raises `UsageError` (or `NoiseSpecError`)
    before any work for a request that cannot be carried out, `DenoiseError` for a method that fails, or when no image
    is left.

        methods = [ModelMethod("gray", 1, Denoiser.load("gray")), *parse_against("nlm,dncnn=dncnn_25.pth")]
        result = evaluate(methods, clean=[Path("Set12")], noises=["gaussian:25"])
    """

    from denoise_se.noise import parse_noise_spec

    check_names(methods)
    if bool(clean) != bool(noises):
        raise UsageError("--clean and --noise go together: a folder of clean images, and the noise to add to them")
    if not clean and not pairs:
        raise UsageError("nothing to measure; give --clean DIR --noise SPEC, or --pairs NOISY CLEAN")
    models = {spec: parse_noise_spec(spec) for spec in noises}
    files = [*clean_cases(clean), *pair_cases(pairs)]
    found = check_files(files)
    cases = by_page(files, found)
    steps = [(case, noise) for case in cases for noise in ([PAIRS] if case.noisy else models)]

    bench = _Bench(methods, estimate_quality)
    wanted = sorted({mode for case in cases if case.noisy is None for mode in bench.modes(found[case.clean].channels)})
    fitting = {PAIRS: [1, 3], **{spec: fitting_modes(model, wanted) for spec, model in models.items()}}
    failures: dict[str, None] = {}  # each once, whatever the noises
    converted: dict[tuple[object, str], None] = {}
    for done, (case, noise) in enumerate(steps, start=1):
        try:
            modes = partial(bench.modes, among=fitting[noise])
            for target, noisy, sigma in inputs(case, models.get(noise), modes, converted):
                bench.measure(case, noise, target, noisy, sigma if tell_sigma else None)
        except ImageError as error:
            failures[str(error)] = None
        except NoiseSpecError as error:
            failures[f"{case.clean}: {error}"] = None
        if on_progress:
            on_progress(done, len(steps), f"{case.test_set}/{case.image} {noise}")
    if not bench.scores:
        raise DenoiseError("\n  - ".join(["no image could be measured", *failures]))
    notes = [
        f"{spec} goes on {KINDS[modes[0]]} images only: not measured on others"
        for spec, modes in fitting.items()
        if not set(wanted) <= set(modes)
    ]
    kinds = {(case.test_set, mode) for case in cases for mode in bench.modes(found[case.clean].channels)}
    notes += [*bench.notes(kinds), *counted(converted)]
    return Evaluation(tuple(bench.scores), bench.crops, tuple(notes), tuple(failures), bench.threads, processor())


def fitting_modes(noise: NoiseChain | NoiseMixture, wanted: Sequence[int]) -> list[int]:
    """The channels, 1 or 3, of images that the noise goes on. NoiseSpecError where none of these is `wanted`."""
    from denoise_se.noise import goes_on, refuse_unfit

    modes = [channels for channels in (1, 3) if goes_on(noise, channels)]
    if wanted and not set(modes) & set(wanted):
        refuse_unfit(noise, wanted[0], 256)
    return modes


class _Bench:
    """Runs the methods on one input after the other and gathers their scores."""

    def __init__(self, methods: Sequence[Method], estimate_quality: bool = False) -> None:
        import cv2
        import torch

        self.threads = granted_cores()  # as the engines have it, so that all methods work with as many
        torch.set_num_threads(self.threads)
        cv2.setNumThreads(self.threads)
        self.methods, self.estimate_quality = methods, estimate_quality
        self.scores: list[ImageScore] = []
        self.crops: tuple[Crop, ...] = ()
        self._warm: set[tuple[str, int]] = set()

    def modes(self, channels: int, among: Sequence[int] = (3, 1)) -> list[int]:
        """The channels `among` these in which a file of `channels` is to be measured: 1, 3, or both when both are asked
        for."""
        asked = {method.channels for method in self.methods}
        modes = [1] if channels == 1 else [mode for mode in (3, 1) if mode in asked or (mode == 3 and 1 not in asked)]
        return [mode for mode in modes if mode in among]

    def measure(self, case: Case, noise: str, target: NDArray[Any], noisy: Pixels, sigma: float | None) -> None:
        channels = 1 if target.ndim == 2 else 3
        score = partial(self._score, case, noise, sigma, target)
        score(NOISY, noisy, 0.0)
        results = {}
        estimates = self.estimate_quality and any(isinstance(method, ModelMethod) for method in self.methods)
        found = estimate_noise(noisy) if estimates else None
        for method in self.methods:
            if method.channels not in (None, channels):
                continue
            if isinstance(method, ModelMethod):
                method = method.for_files(target.dtype)
            if (method.name, channels) not in self._warm:
                self._run(method, noisy[:_WARM_UP_SIDE, :_WARM_UP_SIDE], sigma, case)
                self._warm.add((method.name, channels))
            start = time.perf_counter()
            result = self._run(method, noisy, sigma, case)
            seconds = time.perf_counter() - start
            estimate = None
            if found is not None and isinstance(method, ModelMethod):
                estimate = self._estimate(method, noisy, sigma, found, result)
            score(method.name, result, seconds, estimate)
            results[method.name] = result
        if results:
            seen = shown_range(ArrayScanlines(target.reshape(*target.shape[:2], -1))).seen  # else counts are black
            shown = {name: seen(result) for name, result in results.items()}
            crop = cut_crop(f"{case.test_set} {noise}", case.image, seen(unit_range(target)), seen(noisy), shown)
            self.crops = best_crops([*self.crops, crop])

    def notes(self, kinds: set[tuple[str, int]]) -> tuple[str, ...]:
        """About methods that go on none of these (test set, channels)."""
        return tuple(
            f"{method.name} takes {KINDS[method.channels]} images only: not run on {test_set}"
            for test_set in dict.fromkeys(score.test_set for score in self.scores)
            for method in self.methods
            if method.channels is not None and (test_set, method.channels) not in kinds
        )

    def _estimate(
        self, method: ModelMethod, noisy: Pixels, sigma: float | None, noise: NoiseEstimate, result: Pixels
    ) -> QualityEstimate:
        again = method.again(noisy, sigma, noise)

        def denoise(pixels: Pixels) -> Pixels:
            return result if pixels is noisy else again(pixels)  # the first of the two runs has been made

        return estimate_psnr(denoise, [noisy], noise, sigma=sigma, clipped=looks_clipped(noisy))

    def _run(self, method: Method, noisy: Pixels, sigma: float | None, case: Case) -> Pixels:
        result = method(noisy, sigma)
        if result.shape != noisy.shape:
            raise DenoiseError(f"{method.name}: gave {result.shape} for {noisy.shape} on {case.test_set}/{case.image}")
        if not np.isfinite(result).all():
            raise DenoiseError(f"{method.name}: gave values that are not finite on {case.test_set}/{case.image}")
        return result

    def _score(
        self,
        case: Case,
        noise: str,
        sigma: float | None,
        target: NDArray[Any],
        name: str,
        result: Pixels,
        seconds: float,
        estimate: QualityEstimate | None = None,
    ) -> None:
        image, data_range = _as_file(result, target)
        height, width = target.shape[:2]
        self.scores.append(
            ImageScore(
                case.test_set,
                1 if target.ndim == 2 else 3,
                noise,
                sigma,
                name,
                case.image,
                width,
                height,
                psnr(target, image, data_range=data_range),
                ssim(target, image, data_range=data_range),
                mean_absolute_error(target, image, data_range=data_range),
                seconds,
                estimate,
            )
        )


def _as_file(result: Pixels, target: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """The result as a file like the target's would hold it, and the data range of such a file. Floats are clipped where
    the target lies in [0, 1]."""
    if target.dtype.kind == "f":
        inside = target.min() >= 0 and target.max() <= 1
        return (np.clip(result, 0.0, 1.0) if inside else result).astype(target.dtype), 1.0
    top = float(np.iinfo(target.dtype).max)
    return np.round(np.clip(result, 0.0, 1.0) * top).astype(target.dtype), top
