"""curve.png: how loss and validation PSNR went over the steps of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from denoise_se.output_file import drawn


def draw_curve(rows: Sequence[Mapping[str, float]], title: str) -> bytes:
    """A PNG of the rows' `loss` and `val_psnr` over their `step`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    left = figure.subplots()
    steps = [row["step"] for row in rows]
    left.plot(steps, [row["val_psnr"] for row in rows], "o-", color="tab:blue", label="validation PSNR")
    left.set(xlabel="step", ylabel="validation PSNR (dB)", title=title)
    right = left.twinx()
    right.plot(steps, [row["loss"] for row in rows], ".--", color="tab:orange", label="training loss")
    right.set_ylabel("training loss")
    figure.legend(loc="outside lower center", ncols=2)
    return drawn(figure, ".png")
