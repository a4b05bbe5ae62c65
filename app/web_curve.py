"""The curve of a training run as SVG: it takes the page's colours, and its numbers can be read aloud."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 240, 76, 34


def draw_curve(points: Sequence[tuple[float, float]], seconds: float) -> str:
    """Validation PSNR (dB) over time, from 0 to `seconds`; empty before the first point."""
    if not points:
        return ""
    values = [psnr for _, psnr in points]
    low, high = min(values), max(values)
    middle, span = (low + high) / 2, max(high - low, 0.2)
    low, high = middle - 0.6 * span, middle + 0.6 * span

    def place(time: float, psnr: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - 12) * min(1.0, time / max(seconds, 1.0))
        return x, 10 + (HEIGHT - BOTTOM - 10) * (high - psnr) / (high - low)

    lines = ""
    for share in (0.1, 0.5, 0.9):
        value = low + share * (high - low)
        y = place(0, value)[1]
        lines += f"<line x1={LEFT} x2={WIDTH - 12} y1={y:.1f} y2={y:.1f} class=grid />"
        lines += f"<text x={LEFT - 8} y={y + 4:.1f} text-anchor=end>{value:.2f}</text>"
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        x = place(share * seconds, low)[0]
        lines += f"<text x={x:.1f} y={HEIGHT - 8} text-anchor={anchor}>{share * seconds / 60:.1f} min</text>"
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    dots = "".join(f"<circle cx={x:.1f} cy={y:.1f} r=3.5 />" for x, y in (place(*point) for point in points))
    title = "PSNR on photos kept aside"
    told = f"{title}: {values[0]:.2f} dB before, {values[-1]:.2f} dB after {points[-1][0]:.0f} seconds"
    return (
        f'<figure class=curve><figcaption>{title} (dB)</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role=img aria-label="{told}">{lines}<polyline points="{path}" />{dots}</svg></figure>'
    )
