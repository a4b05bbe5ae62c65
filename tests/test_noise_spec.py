"""The grammar of noise specs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_fields import one

from denoise_se.camera_noise import Camera
from denoise_se.errors import NoiseSpecError
from denoise_se.noise import (
    Gaussian,
    Jpeg,
    NoiseMixture,
    PoissonGaussian,
    Range,
    is_gaussian,
    parse_noise_spec,
)
from denoise_se.noise_spec import strongest_gaussian


@pytest.mark.parametrize(
    ("spec", "model"),
    [
        ("gaussian:25", one(Gaussian(Range(25, 25)))),
        ("gaussian:sigma=5-50", one(Gaussian(Range(5, 50)))),
        ("gaussian:1e1", one(Gaussian(Range(10, 10)))),
        ("gaussian:1e-1-2e+0", one(Gaussian(Range(0.1, 2)))),
        ("gaussian:0", one(Gaussian(Range(0, 0)))),
        ("gaussian:.5-5.", one(Gaussian(Range(0.5, 5)))),
        ("poisson-gaussian:read=2e-3,gain=1E-2", one(PoissonGaussian(Range(0.01, 0.01), Range(0.002, 0.002)))),
        ("gaussian:1e+1+jpeg:40-95", one(Gaussian(Range(10, 10)), Jpeg(Range(40, 95)))),
        (
            "camera:gain=0-1e-2,read=0.01,luma=0.5,chroma=1+jpeg:9|gaussian:3",
            NoiseMixture(
                (
                    one(Camera(Range(0, 0.01), Range(0.01, 0.01), Range(0.5, 0.5), Range(1, 1)), Jpeg(Range(9, 9))),
                    one(Gaussian(Range(3, 3))),
                )
            ),
        ),
    ],
)
def test_specs_mean_what_they_say(spec, model):
    assert parse_noise_spec(spec) == model


@given(st.tuples(st.floats(0, 255), st.floats(0, 255)).map(sorted))
def test_any_two_numbers_make_a_range(ends):
    low, high = ends
    assert parse_noise_spec(f"gaussian:{low!r}-{high!r}") == one(Gaussian(Range(low, high)))


@pytest.mark.parametrize(
    ("spec", "column", "words"),
    [
        ("", 0, "no noise model is called ''; one of gaussian, "),
        ("gausian:25", 0, "no noise model is called 'gausian'"),
        (" gaussian:25", 0, "no noise model is called ' gaussian'"),
        ("gaussian:25+", 12, "no noise model is called ''"),
        ("gaussian:25|", 12, "no noise model is called ''"),
        ("gaussian:1e-1+fog:1", 14, "no noise model is called 'fog'"),
        ("gaussian:25+jpeg:40|speckle:9", 28, "sigma lies from 0 to 2, low end first, not 9"),
        ("gaussian", 8, "sigma is a number or a range low-high, not ''"),
        ("gaussian+jpeg:40", 8, "sigma is a number or a range low-high, not ''"),
        ("gaussian:", 9, "sigma is a number or a range low-high, not ''"),
        ("gaussian:many", 9, "sigma is a number or a range low-high, not 'many'"),
        ("gaussian:sigma=-5", 15, "sigma is a number or a range low-high, not '-5'"),
        ("gaussian:nan", 9, "not 'nan'"),
        ("gaussian:5-10-15", 9, "not '5-10-15'"),
        ("gaussian:50-5", 9, "sigma lies from 0 to 255, low end first, not 50-5"),
        ("gaussian:256", 9, "sigma lies from 0 to 255"),
        ("gaussian:1e999", 9, "sigma lies from 0 to 255"),
        ("jpeg:0", 5, "quality lies from 1 to 100"),
        ("gaussian:25,30", 12, "gaussian is written gaussian:sigma=VALUE"),
        ("gaussian:25,", 12, "gaussian is written gaussian:sigma=VALUE"),
        ("gaussian:gain=1", 9, "gaussian is written gaussian:sigma=VALUE"),
        ("poisson-gaussian", 16, "poisson-gaussian is written poisson-gaussian:gain=VALUE,read=VALUE"),
        ("poisson-gaussian:0.1,0.2", 17, "poisson-gaussian is written"),
        ("poisson-gaussian:gain=0.1", 25, "poisson-gaussian also needs read"),
        ("poisson-gaussian:gain=0.1,foo=2", 26, "poisson-gaussian is written"),
        ("poisson-gaussian:gain=0.1,gain=2", 26, "poisson-gaussian is written"),
        ("poisson-gaussian:gain=0.1,read=2", 31, "read lies from 0 to 1"),
        ("banding:rows=2", 8, "banding is written banding:row=VALUE[,column=VALUE]"),
        ("raw:gain=0.1,jpeg=50", 20, "raw:gain=VALUE,read=VALUE[,red=VALUE][,blue=VALUE][,jpeg=VALUE]"),
        ("raw:gain=0.1,read=0.1,jpeg=0", 27, "jpeg lies from 1 to 100"),
        ("quantise:0.5", 9, "bits lies from 1 to 16"),
        ("gaussian:5+profile:camera", 19, "profile is written profile:FILE.json, not 'camera'"),
        ("gaussian:5|profile:", 19, "profile is written profile:FILE.json, not ''"),
        ("profile:gone+a.json|gaussian:5", 8, "gone+a.json: cannot be read (No such file or directory)"),
        ("jpeg:9|poisson-gaussian:gain=0.1+jpeg:9", 32, "poisson-gaussian also needs read"),
    ],
)
def test_a_mistake_is_shown_by_a_caret(spec, column, words):
    with pytest.raises(NoiseSpecError) as caught:
        parse_noise_spec(spec)
    reason, shown, caret = str(caught.value).split("\n")
    assert words in reason
    assert shown == f"  {spec}" and caret == "  " + " " * column + "^"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["gaussian", "jpeg", *":5.-+|,=e"])).map("".join))
def test_any_text_is_a_model_or_refused_with_a_caret_below_it(spec):
    try:
        parse_noise_spec(spec)
    except NoiseSpecError as error:
        assert str(error).rsplit("\n", 1)[1].index("^") - 2 <= len(spec)


@pytest.mark.parametrize(
    ("spec", "strongest"),
    [
        ("gaussian:25", 25.0),
        ("gaussian:0-55|gaussian:0-30", 55.0),
        ("gaussian:sigma=5-50", 50.0),
        ("gaussian:5e0-5e+1", 50.0),
        ("gaussian:25+jpeg:90", None),
        ("jpeg:90|gaussian:25", None),
        ("gaussian:0-55|gaussian:0-30+quantise:8", 55.0),
        ("gaussian:0-30+quantise:bits=8-16|gaussian:0-20", 30.0),
        ("gaussian:25+quantise:6", None),
        ("gaussian:25+quantise:7-16", None),
        ("gaussian:25+quantise:8+jpeg:90", None),
        ("gaussian:25+quantise:8+quantise:8", None),
        ("quantise:8+gaussian:25", None),
        ("gaussian:25|quantise:8", None),
        ("quantise:8", None),
        ("gaussian:25+gaussian:10", None),
        ("profile:gaussian:25.json", None),
        ("", None),
    ],
)
def test_the_strongest_sigma_of_white_noise_is_read_off_its_spec(spec: str, strongest: float | None) -> None:
    assert strongest_gaussian(spec) == strongest
    if strongest is not None:
        assert is_gaussian(parse_noise_spec(spec))
