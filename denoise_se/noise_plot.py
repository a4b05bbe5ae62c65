"""A measured profile as a picture: variance over brightness, grain over distance, the channels together."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np

from denoise_se.atomic_file import write_whole
from denoise_se.channel_names import CHANNELS
from denoise_se.noise_measurement import Measurement
from denoise_se.output_file import PLOT_SUFFIXES, check_output, drawn

COLOURS = {"grey": "black", "red": "tab:red", "green": "tab:green", "blue": "tab:blue"}


def plot_measurement(path: str | Path, measurement: Measurement) -> None:
    """Write one of PLOT_SUFFIXES, whole or not at all. UsageError for another suffix or a folder that is not there,
    DenoiseError where it cannot be written."""
    from matplotlib.figure import Figure

    path = Path(path)
    check_output("--plot", path, PLOT_SUFFIXES)
    profile, names = measurement.profile, CHANNELS[measurement.profile.channels]
    panels = 3 if profile.channels > 1 else 2  # one channel has nothing to be correlated with
    figure = Figure(figsize=(4.4 * panels, 4.5), layout="constrained")
    figure.suptitle(textwrap.fill(profile.source, 50 * panels), fontsize="medium")
    line, lags, *others = figure.subplots(1, panels)
    for name, points, gain, read, black in zip(
        names, measurement.points, profile.gain, profile.read_noise, profile.black, strict=True
    ):
        color, error = COLOURS[name], points.variance * points.relative
        line.errorbar(points.brightness, points.variance, error, fmt="o", ms=3, lw=0.8, color=color)
        light = f"(x - {black:.2e})" if black else "x"
        kink = np.array([0.0, black, 1.0])
        variance = gain * np.maximum(0, kink - black) + read**2
        line.plot(kink, variance, color=color, label=f"{name}: {gain:.2e} {light} + ({read:.2e})²")
    highest = max(float(points.variance.max()) for points in measurement.points)
    line.set(xlabel="brightness x", ylabel="variance of the grain", xlim=(0, 1))
    line.set_ylim(0, 1.4 * highest or None)
    line.legend(fontsize="small")

    reach = profile.reach
    distance = np.arange(reach + 1)
    for name, own in zip(names, profile.autocorrelation, strict=True):
        color = COLOURS[name]
        lags.plot(distance, own[reach, reach:], "o-", ms=3, color=color, label=f"{name}, horizontal")
        lags.plot(distance, own[reach:, reach], "s--", ms=3, color=color, label=f"{name}, vertical")
    lags.axhline(0, color="grey", lw=0.5)
    lags.set(xlabel="distance (pixels)", ylabel="autocorrelation of the grain", ylim=(-0.5, 1.05))
    lags.legend(fontsize="small")

    shown = profile.channel_correlation
    for table in others:
        table.imshow(shown, vmin=-1, vmax=1, cmap="RdBu_r")
        table.set_xticks(range(len(names)), names)
        table.set_yticks(range(len(names)), names)
        for (i, j), value in np.ndenumerate(shown):
            table.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if abs(value) > 0.6 else "black")
        table.set_title("correlation of the channels")
    write_whole(path, drawn(figure, path.suffix))
