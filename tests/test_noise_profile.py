"""Profiles: what a file may hold, and noise that is made from one."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from denoise_se.errors import NoiseSpecError, ProfileError
from denoise_se.noise import NoiseChain, parse_noise_spec
from denoise_se.noise_profile import NoiseProfile
from denoise_se.profile_noise import ProfileNoise

# green's grain is 0.8 of red's and none of blue's; neighbours in a row are correlated by 0.4 in red and green
NEAR, SHARED = np.array([[0, 0, 0], [0.4, 1, 0.4], [0, 0, 0]]), 0.8


def nested(array):
    return tuple(nested(part) if part.ndim else float(part) for part in np.asarray(array))


def profile(**changes) -> NoiseProfile:
    table = np.zeros((3, 3, 3, 3))
    table[0, 0] = table[1, 1] = NEAR
    table[0, 1] = table[1, 0] = SHARED * NEAR
    table[2, 2, 1, 1] = 1
    made = NoiseProfile(
        source="made by hand",
        gain=(0.01, 0.02, 0.0),
        gain_interval=((0.009, 0.011), (0.019, 0.021), (0.0, 0.001)),
        read_noise=(0.01, 0.02, 0.05),
        read_noise_interval=((0.0, 0.02), (0.01, 0.03), (0.04, 0.06)),
        black=(0.0, 0.1, 0.0),
        row_covariance=nested(1e-4 * np.array([[4, 4, 0], [4, 9, 0], [0, 0, 0]])),
        column_covariance=nested(np.zeros((3, 3))),
        correlation=nested(table),
    )
    return replace(made, **changes)


def grey(**changes) -> NoiseProfile:
    single = {key: value[:1] if isinstance(value, tuple) else value for key, value in asdict(profile()).items()}
    cut = {key: ((single[key][0][0],),) for key in ("row_covariance", "column_covariance", "correlation")}
    return NoiseProfile(**single | cut | changes)


# --- the file ---------------------------------------------------------------------------------


def test_a_profile_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    profile().save(tmp_path / "a.json")
    assert NoiseProfile.load(tmp_path / "a.json") == profile()
    values = json.loads((tmp_path / "a.json").read_text())
    assert values["schema_version"] == 2 and values["gain"] == [0.01, 0.02, 0.0]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_profile_tells_its_parts() -> None:
    made = profile()
    assert (made.channels, made.reach) == (3, 1)
    assert made.row == pytest.approx((0.02, 0.03, 0)) and made.column == (0, 0, 0)
    assert made.channel_correlation == pytest.approx(np.array([[1, 0.8, 0], [0.8, 1, 0], [0, 0, 1]]))
    assert made.autocorrelation[1] == pytest.approx(NEAR)
    assert made.variance(0.5) == pytest.approx((0.005 + 1e-4 + 4e-4, 0.008 + 4e-4 + 9e-4, 25e-4))
    assert made.variance(0.05) == pytest.approx((0.0005 + 1e-4 + 4e-4, 4e-4 + 9e-4, 25e-4))  # no light below black


WRONG = [
    ({"schema_version": None}, "'schema_version' is None, not a positive integer"),
    ({"schema_version": "1"}, "'schema_version' is 1, not a positive integer"),
    ({"schema_version": 3}, "'schema_version' 3 is newer than this program's 2; update denoise-se"),
    ({"colour": 1}, "key 'colour' is unknown"),
    ({"source": 3}, "'source' is not text"),
    ({"gain": 0.1}, "'gain' is not a list"),
    ({"gain": [0.1, 0.1]}, "'gain' has 2 values"),
    ({"gain": [0.1, -0.1, 0]}, "'gain' holds what is not a number from 0 to 1"),
    ({"gain": [0.1, "0.1", 0]}, "'gain' holds what is not a number"),
    ({"read_noise": [0.1, float("nan"), 0]}, "'read_noise' holds what is not a number"),
    ({"read_noise": [0.1, 0.1]}, "'read_noise' is not 3 numbers"),
    ({"read_noise": [[0.1], 0.1, 1]}, "'read_noise' is not 3 numbers"),
    ({"black": [0.1, 1.1, 0]}, "'black' holds what is not a number from 0 to 1"),
    ({"gain_interval": [[0, 1], [1, 0], [0, 1]]}, "'gain_interval' has a low end above its high end"),
    ({"row_covariance": [[1, 0, 0], [1, 1, 0], [0, 0, 1]]}, "'row_covariance' is no covariance matrix"),
    ({"column_covariance": [[0.1, 0.2, 0], [0.2, 0.1, 0], [0, 0, 0]]}, "'column_covariance' is no covariance matrix"),
    ({"correlation": [[[[1.0]]]]}, "'correlation' is not 3x3xnxn numbers"),
    ({"correlation": nested(np.ones((3, 3, 2, 2)))}, "'correlation' has tables of 2x2 lags"),
    ({"correlation": nested(np.ones((3, 3, 35, 35)))}, "'correlation' has tables of 35x35 lags"),
    ({"correlation": nested(np.full((3, 3, 1, 1), 2))}, "'correlation' holds what is not a number from -1.001"),
    ({"correlation": nested(np.full((3, 3, 1, 1), 0.5))}, "'correlation' of a channel with itself is not 1"),
    ({"correlation": nested(np.arange(81).reshape(3, 3, 3, 3) / 81)}, "'correlation' is not symmetric"),
]


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_a_wrong_file_is_refused_by_its_key(tmp_path: Path, change: dict, words: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps({"schema_version": 2, **asdict(profile()), **change}))
    with pytest.raises(ProfileError, match=r"wrong\.json") as caught:
        NoiseProfile.load(path)
    assert words in str(caught.value)


@pytest.mark.parametrize("key", list(asdict(profile())))
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    values = {"schema_version": 2, **asdict(profile())}
    del values[key]
    (tmp_path / "a.json").write_text(json.dumps(values))
    with pytest.raises(ProfileError, match=f"key '{key}' is missing"):
        NoiseProfile.load(tmp_path / "a.json")


def test_a_file_of_the_first_schema_has_black_at_0(tmp_path: Path) -> None:
    values = {"schema_version": 1, **asdict(profile())}
    del values["black"]
    (tmp_path / "a.json").write_text(json.dumps(values))
    assert NoiseProfile.load(tmp_path / "a.json") == profile(black=(0.0, 0.0, 0.0))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[1]", "null", '"x"', "\x00"])
def test_what_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ProfileError, match=r"a\.json: not"):
        NoiseProfile.load(tmp_path / "a.json")


def test_a_missing_file_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"gone.json: cannot be read .*denoise-se noise profile"):
        NoiseProfile.load(tmp_path / "gone.json")
    with pytest.raises(ProfileError, match="cannot be written"):
        profile().save(tmp_path / "no" / "a.json")


# --- the noise that it makes ------------------------------------------------------------------


def drawn(model, clean: torch.Tensor, seed: int = 0) -> np.ndarray:
    return (model(clean, torch.Generator().manual_seed(seed)).image - clean).numpy()


def test_synthesised_noise_has_the_profiles_variance_grain_colours_and_rows() -> None:
    clean = torch.full((1, 3, 600, 600), 0.5)
    noise = drawn(ProfileNoise(profile()), clean)[0]
    rows = noise.mean(axis=2)
    grain = noise - rows[:, :, None]
    assert grain.var(axis=(1, 2)) == pytest.approx([0.0051, 0.0084, 0.0025], rel=0.02)
    # of 600 rows: the standard error of a deviation is its 2.9 %, and each mean holds 1/600 of the grain
    assert rows.std(axis=1)[:2] == pytest.approx([0.02, 0.03], rel=0.12)
    assert np.corrcoef(rows[:2])[0, 1] == pytest.approx(4 / 6, abs=0.1)
    assert np.corrcoef(grain.reshape(3, -1)) == pytest.approx(profile().channel_correlation, abs=0.02)
    scaled = grain / grain.std(axis=(1, 2), keepdims=True)
    assert (scaled[..., 1:] * scaled[..., :-1]).mean(axis=(1, 2)) == pytest.approx([0.4, 0.4, 0], abs=0.02)
    assert (scaled[0, :, 1:] * scaled[1, :, :-1]).mean() == pytest.approx(0.8 * 0.4, abs=0.02)
    for lag in ((2, 0), (0, 1)):  # nothing beyond
        moved = np.roll(scaled, lag, axis=(2, 1))
        assert (moved * scaled).mean(axis=(1, 2)) == pytest.approx([0, 0, 0], abs=0.02)


def test_the_level_is_the_rms_over_the_channels_and_follows_the_brightness() -> None:
    clean = torch.cat([torch.full((1, 3, 4, 4), 0.2), torch.full((1, 3, 4, 4), 0.8)], dim=3)
    level = ProfileNoise(profile())(clean, torch.Generator()).level
    for x, half in ((0.2, level[..., :4]), (0.8, level[..., 4:])):
        expected = np.sqrt(np.mean(profile().variance(x)))
        assert half.numpy() == pytest.approx(np.full((1, 1, 4, 4), expected), rel=1e-5)


def test_a_profile_is_a_model_of_the_spec_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a+b|c,d=1.json"
    profile().save(path)
    model = parse_noise_spec(f"profile:{path}+jpeg:90|gaussian:5")
    first = parse_noise_spec(f"profile:{path}")
    assert first == NoiseChain((ProfileNoise(profile()),)) and model.models[0].models[0] == first.models[0]
    clean = torch.full((2, 3, 9, 1), 0.5)
    assert (drawn(first, clean) == drawn(first, clean)).all() and (drawn(first, clean, 1) != drawn(first, clean)).any()


def test_a_damaged_profile_is_shown_by_the_specs_caret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.json").write_text('{"schema_version": 7}')
    with pytest.raises(NoiseSpecError) as caught:
        parse_noise_spec("gaussian:5+profile:a.json")
    reason, shown, caret = str(caught.value).split("\n")
    assert "a.json: 'schema_version' 7 is newer" in reason
    assert shown == "  gaussian:5+profile:a.json" and caret.index("^") == 2 + len("gaussian:5+profile:")


def test_grey_and_colour_are_not_mixed() -> None:
    clean = torch.full((1, 1, 8, 8), 0.5)
    with pytest.raises(NoiseSpecError, match=r"measured on 3 channel\(s\), the images have 1"):
        drawn(ProfileNoise(profile()), clean)
    assert drawn(ProfileNoise(grey()), clean).shape == (1, 1, 8, 8)
    with pytest.raises(NoiseSpecError, match=r"measured on 1 channel\(s\), the images have 3"):
        drawn(ProfileNoise(grey()), clean.expand(1, 3, 8, 8))


def test_a_table_that_no_noise_can_have_gives_the_nearest_that_can() -> None:
    # neighbours on both sides at 0.9 is impossible: the spectrum 1 + 1.8 cos(w) is negative near w = pi
    impossible = [[0, 0, 0], [0.9, 1, 0.9], [0, 0, 0]]
    noise = drawn(ProfileNoise(grey(correlation=nested([[impossible]]))), torch.full((1, 1, 300, 300), 0.0))
    grain = noise - noise.mean(axis=3, keepdims=True)
    assert grain.std() == pytest.approx(0.01, rel=0.05)
    assert 0.5 < (grain[..., 1:] * grain[..., :-1]).mean() / grain.var() < 0.8
