"""NoiseProfile: the noise of one device as numbers in a JSON file.

The noise of channel c at brightness x (range [0, 1]) and place p is taken to be

    n_c(p) = sqrt(gain_c * max(0, x - black_c) + read_c^2) * z_c(p) + row_c(p_y) + column_c(p_x)

where z is stationary Gaussian noise of variance 1 with ``E[z_c(p) z_d(p + lag)] = correlation[c][d][lag]``, and row and
column are white along their axis, with covariances between the channels. The first factor is Foi et al., "Practical
Poissonian-Gaussian noise modeling", TIP 2008, eq. 3, with the offset that cameras add to their counts. It holds where
the variance is a straight line of brightness: raw and linear images, and developed photos as far as a straight line
fits their curve.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise_se.atomic_file import write_whole
from denoise_se.errors import ProfileError, reason

SCHEMA_VERSION = 2
MAX_REACH = 16  # lags beyond are no grain but a pattern of the picture
MAX_FILE_BYTES = 4_000_000

Interval = tuple[float, float]
Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class NoiseProfile:
    """The noise of one device; all values for pixels in [0, 1].

    Attributes:
        source: what it was measured on, in words.
        gain, read_noise, black: [C] each, C = 1 (grey) or 3 (RGB): var(x) = gain * max(0, x - black) + read_noise^2.
            black is 0, or the darkest that was measured where the noise surely begins above 0.
        gain_interval, read_noise_interval: [C] pairs (low, high), 95 %.
        row_covariance, column_covariance: [C][C], of the numbers that shift a whole row or column.
        correlation: [C][C][2R+1][2R+1], by channels and lag (vertical, horizontal) from -R to R; 1 at lag 0 of a
            channel with itself. A table of one lag, R = 0, is white noise.

    Raises:
        ProfileError: naming the key, for a value that no noise can have.
    """

    source: str
    gain: tuple[float, ...]
    gain_interval: tuple[Interval, ...]
    read_noise: tuple[float, ...]
    read_noise_interval: tuple[Interval, ...]
    black: tuple[float, ...]
    row_covariance: Matrix
    column_covariance: Matrix
    correlation: tuple[tuple[Matrix, ...], ...]

    def __post_init__(self) -> None:
        channels = len(self.gain)
        if channels not in (1, 3):
            raise ProfileError(f"'gain' has {channels} values; 1 for grey images, 3 for RGB")
        for key in ("gain", "read_noise"):
            _check(key, getattr(self, key), (channels,), 0, 1)
            ends = _check(f"{key}_interval", getattr(self, f"{key}_interval"), (channels, 2), 0, math.inf)
            if (ends[:, 0] > ends[:, 1]).any():
                raise ProfileError(f"'{key}_interval' has a low end above its high end")
        _check("black", self.black, (channels,), 0, 1)
        for key in ("row_covariance", "column_covariance"):
            matrix = _check(key, getattr(self, key), (channels, channels), -1, 1)
            if not np.allclose(matrix, matrix.T, atol=1e-9) or np.linalg.eigvalsh(matrix).min() < -1e-9:
                raise ProfileError(f"'{key}' is no covariance matrix: not symmetric, or with a negative variance")
        table = _check("correlation", self.correlation, (channels, channels, None, None), -1.001, 1.001)
        side = table.shape[-1]
        if table.shape[-2] != side or side % 2 == 0 or side > 2 * MAX_REACH + 1:
            raise ProfileError(f"'correlation' has tables of {table.shape[-2]}x{side} lags; odd squares up to 33x33")
        if not np.allclose(table, table.transpose(1, 0, 2, 3)[..., ::-1, ::-1], atol=1e-3):
            raise ProfileError("'correlation' is not symmetric: [c][d] at a lag is [d][c] at the opposite one")
        if not np.allclose(np.diagonal(table[..., side // 2, side // 2]), 1, atol=1e-3):
            raise ProfileError("'correlation' of a channel with itself is not 1 at lag 0")

    @property
    def channels(self) -> int:
        return len(self.gain)

    @property
    def reach(self) -> int:
        """R, the largest lag of the correlation, in pixels."""
        return len(self.correlation[0][0]) // 2

    @property
    def row(self) -> tuple[float, ...]:
        """Standard deviation of the rows' shifts, [C]."""
        return tuple(self.row_covariance[c][c] ** 0.5 for c in range(self.channels))

    @property
    def column(self) -> tuple[float, ...]:
        """Standard deviation of the columns' shifts, [C]."""
        return tuple(self.column_covariance[c][c] ** 0.5 for c in range(self.channels))

    @property
    def channel_correlation(self) -> NDArray[np.float64]:
        """[C, C], of the grain (without the banding) at one pixel."""
        return np.array(self.correlation)[..., self.reach, self.reach]

    @property
    def autocorrelation(self) -> NDArray[np.float64]:
        """[C, 2R+1, 2R+1], of each channel's grain."""
        return np.array([self.correlation[c][c] for c in range(self.channels)])

    def correlation_at(self, lag: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """[C] each: of each channel's grain with itself `lag` pixels across, and down; 0 beyond the reach."""
        if lag > self.reach:
            return np.zeros(self.channels), np.zeros(self.channels)
        middle = self.reach
        return self.autocorrelation[:, middle, middle + lag], self.autocorrelation[:, middle + lag, middle]

    def variance(self, brightness: float | NDArray[np.floating]) -> NDArray[np.float64]:
        """[..., C], of all the noise at a brightness in [0, 1], one or [..., C], banding included."""
        flat = np.square([self.read_noise, self.row, self.column]).sum(axis=0)
        light = np.maximum(0, np.asarray(brightness) - np.array(self.black))
        return np.asarray(np.array(self.gain) * light + flat)

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically. Raises ProfileError when the file cannot be written."""
        values = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in values.items())
        write_whole(path, f"{{\n{lines}\n}}\n".encode(), ProfileError, "choose another place")

    @classmethod
    def load(cls, path: str | Path) -> NoiseProfile:
        """Read a file that `save` wrote.

        Raises:
            ProfileError: the file and the key at fault: not JSON, another schema, a missing, unknown or wrong one.
        """
        try:
            if Path(path).exists() and not Path(path).is_file():  # opening a pipe would wait for a writer for ever
                raise ProfileError(f"{path}: is no file; write one with: denoise-se noise profile")
            with Path(path).open("rb") as file:
                text = file.read(MAX_FILE_BYTES + 1)
            values = json.loads(text) if len(text) <= MAX_FILE_BYTES else None
        except OSError as error:
            raise ProfileError(
                f"{path}: cannot be read ({reason(error)}); write one with: denoise-se noise profile"
            ) from error
        except (ValueError, RecursionError) as error:
            raise ProfileError(f"{path}: not JSON ({str(error)[:200]}); measure the noise again") from error
        if not isinstance(values, dict):
            raise ProfileError(f"{path}: not a noise profile; write one with: denoise-se noise profile")
        schema = values.pop("schema_version", None)
        if type(schema) is not int or schema < 1:
            raise ProfileError(f"{path}: 'schema_version' is {str(schema)[:20]}, not a positive integer")
        if schema > SCHEMA_VERSION:
            raise ProfileError(
                f"{path}: 'schema_version' {schema} is newer than this program's {SCHEMA_VERSION}; update denoise-se"
            )
        if schema == 1 and isinstance(values.get("gain"), list):  # which knew no black
            values.setdefault("black", [0.0] * len(values["gain"]))
        known = {field.name for field in fields(cls)}
        for key in known ^ values.keys():
            raise ProfileError(f"{path}: key {key[:40]!r} is {'missing' if key in known else 'unknown'}")
        if not isinstance(values["source"], str):
            raise ProfileError(f"{path}: 'source' is not text")
        try:
            return cls(**{key: _tuples(value) for key, value in values.items()})
        except ProfileError as error:
            raise ProfileError(f"{path}: {error}") from error
        except (TypeError, RecursionError) as error:
            raise ProfileError(f"{path}: 'gain' is not a list") from error


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _check(key: str, value: Any, shape: tuple[int | None, ...], low: float, high: float) -> NDArray[np.float64]:
    """`value` as an array; ProfileError when it is not numbers of that shape within the limits."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.empty(0)
    if array.ndim != len(shape) or any(n is not None and n != m for n, m in zip(shape, array.shape, strict=True)):
        wanted = "x".join("n" if n is None else str(n) for n in shape)
        raise ProfileError(f"'{key}' is not {wanted} numbers")
    if (
        array.dtype.kind not in "if"
        or not array.size
        or not np.isfinite(array).all()
        or array.min() < low
        or array.max() > high
    ):
        raise ProfileError(f"'{key}' holds what is not a number from {low:g} to {high:g}")
    return array.astype(np.float64)
