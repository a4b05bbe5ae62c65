"""What a batch decides before it writes: names, clashes, references, refusals."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from denoise_se.atomic_file import replacing
from denoise_se.errors import UsageError
from denoise_se.manifest import Manifest
from denoise_se.plan import make_plan, remove_leftovers


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def files(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


def targets(*inputs: str, out: str = "out", **options: object) -> list[str]:
    plan = make_plan([Path(name) for name in inputs], Path(out), **options)  # type: ignore[arg-type]
    return [job.target.as_posix() for job in plan.jobs]


def refusal(*inputs: str, out: str = "out", **options: object) -> str:
    with pytest.raises(UsageError) as caught:
        targets(*inputs, out=out, **options)
    return str(caught.value)


def test_a_folder_gives_its_own_images_in_sorted_order_without_hidden_ones() -> None:
    files("in/b.PNG", "in/a.jpg", "in/.hidden.png", "in/sub/c.png", "in/notes.txt")
    plan = make_plan([Path("in")], Path("out"))
    assert [job.target.as_posix() for job in plan.jobs] == ["out/a.jpg", "out/b.PNG"]
    assert plan.notices == (
        "in: 1 subfolder(s) were left out; --recursive takes them too",
        "in: 1 file(s) of kinds that are not read were left out (.txt)",
    )


def test_recursive_keeps_subfolders_and_never_reads_the_output_folder_again() -> None:
    files("in/a.png", "in/x/y/a.png", "in/.git/z.png", "in/out/old.png")
    assert targets("in", out="in/out", recursive=True) == ["in/out/a.png", "in/out/x/y/a.png"]


def test_several_folders_keep_their_names_and_single_files_go_to_the_top() -> None:
    files("p/one/a.png", "p/two/a.png", "a.png")
    assert targets("p/one", "p/two", "a.png") == ["out/one/a.png", "out/two/a.png", "out/a.png"]


def test_two_folders_of_one_name_are_refused_with_both_files_and_a_mend() -> None:
    files("p/scans/a.png", "q/scans/a.png")
    message = refusal("p/scans", "q/scans")
    assert "p/scans/a.png" in message and "q/scans/a.png" in message and "two runs" in message


def test_one_file_goes_to_a_file_or_into_a_folder() -> None:
    files("a.png", "folder.png/keep.txt")
    assert targets("a.png", out="b/clean.TIF") == ["b/clean.TIF"]
    assert targets("a.png", out="plain") == ["plain/a.png"]
    assert targets("a.png", out="folder.png") == ["folder.png/a.png"]


def test_an_output_suffix_that_is_not_written_becomes_a_folder_with_a_notice() -> None:
    files("a.png")
    plan = make_plan([Path("a.png")], Path("clean.out"))
    assert plan.jobs[0].target == Path("clean.out/a.png")
    assert len(plan.notices) == 1 and "clean.out" in plan.notices[0] and ".out" in plan.notices[0]


def test_a_format_changes_the_suffix_and_same_keeps_its_letters() -> None:
    files("in/a.JPEG", "in/b.png")
    assert targets("in", format="tiff") == ["out/a.tiff", "out/b.tiff"]
    assert targets("in") == ["out/a.JPEG", "out/b.png"]


def test_formats_that_are_unknown_or_contradict_the_output_are_refused() -> None:
    files("a.png")
    assert "png, jpg, tiff" in refusal("a.png", format="gif")
    assert "b.jpg" in refusal("a.png", out="b.jpg", format="png")


@pytest.mark.parametrize("pair", [("a.png", "a.jpg"), ("A.png", "a.jpg")])
def test_two_inputs_of_one_output_are_refused_even_when_only_case_differs(pair: tuple[str, str]) -> None:
    files(*(f"in/{name}" for name in pair))
    message = refusal("in", format="png")
    assert all(name in message for name in pair) and "--format same" in message


def test_names_that_differ_in_case_alone_are_refused() -> None:
    files("in/A.png", "in/a.png")
    assert "A.png" in refusal("in")


def test_a_file_given_twice_is_denoised_once_and_said_so() -> None:
    files("in/a.png", "in/b.png")
    Path("link.png").symlink_to("in/a.png")
    plan = make_plan([Path("in"), Path("in/a.png"), Path("./in/../in/a.png")], Path("out"))
    assert [job.target.as_posix() for job in plan.jobs] == ["out/a.png", "out/b.png"]
    assert plan.notices == ("2 file(s) given more than once are denoised once",)
    assert targets("in/a.png", "link.png") == ["out/a.png", "out/link.png"]


def test_an_output_that_is_an_input_is_refused_also_through_links() -> None:
    files("in/a.png", "ref/a.png")
    Path("alias").symlink_to("in")
    Path("other").mkdir()
    Path("other/a.png").symlink_to("../in/a.png")
    for out in ("in", "alias", "other", "in/a.png"):
        assert "would replace an input" in refusal("in/a.png", out=out, replace=True)
    assert "would replace an input" in refusal("in/a.png", out="ref", reference=Path("ref"), replace=True)


def test_a_format_change_may_write_beside_the_inputs() -> None:
    files("in/a.png")
    assert targets("in", out="in", format="tiff") == ["in/a.tiff"]


def test_links_that_lead_round_in_a_circle_end() -> None:
    files("in/a.png")
    Path("in/self.png").symlink_to("self.png")
    Path("in/up").symlink_to("..")
    plan = make_plan([Path("in")], Path("out"), recursive=True)
    assert [job.relative.as_posix() for job in plan.jobs] == ["a.png", "self.png"]
    assert plan.notices == ("in: 1 linked folder(s) were left out; give them as inputs of their own",)
    assert "no such file" in refusal("in/self.png")


def test_existing_outputs_are_refused_unless_they_may_be_replaced() -> None:
    files("in/a.png", "in/b.png", "out/b.png")
    message = refusal("in")
    assert "out/b.png" in message and "out/a.png" not in message
    assert "--resume" in message and "--overwrite" in message
    assert targets("in", replace=True) == ["out/a.png", "out/b.png"]


def test_a_folder_or_a_file_in_the_way_of_the_outputs_is_refused() -> None:
    files("a.png", "b.png", "out/a.png/keep", "taken")
    assert "out/a.png" in refusal("a.png", "b.png", replace=True)
    assert "taken: is a file" in refusal("a.png", "b.png", out="taken")


def test_missing_inputs_are_all_named_up_to_a_limit() -> None:
    files("a.png")
    message = refusal("a.png", *(f"gone{i:02d}.png" for i in range(12)))
    assert "gone00.png" in message and "gone09.png" in message and "gone10.png" not in message
    assert "and 2 more" in message and "check the name" in message


def test_a_folder_without_images_says_what_is_looked_for() -> None:
    files("in/sub/a.png", "in/a.txt")
    message = refusal("in")
    assert ".png" in message and "--recursive" in message
    assert "--recursive" not in refusal("in", recursive=True, out="in/sub")


def test_a_name_too_long_for_the_system_is_a_usage_error() -> None:
    assert "cannot be used" in refusal("x" * 300 + ".png")


def test_a_subfolder_that_cannot_be_listed_is_refused_and_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    files("in/a.png", "in/locked/b.png")
    scan = os.scandir

    def guarded(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)
    message = refusal("in", recursive=True)
    assert "locked" in message and "Permission denied" in message


def test_references_are_matched_by_relative_path_and_stem() -> None:
    files("in/a.png", "in/x/a.jpg", "in/x/b.png", "ref/a.tif", "ref/x/a.png", "ref/b.png")
    plan = make_plan([Path("in")], Path("out"), recursive=True, format="tiff", reference=Path("ref"))
    found = {job.source.as_posix(): job.reference and job.reference.as_posix() for job in plan.jobs}
    assert found == {"in/a.png": "ref/a.tif", "in/x/a.jpg": "ref/x/a.png", "in/x/b.png": None}
    assert plan.notices == ("--reference ref: 1 of 3 inputs have no reference",)


def test_a_reference_folder_is_matched_by_the_stem_of_the_input_and_not_of_the_output() -> None:
    files("a.png", "ref/a.png", "ref/b.png")
    plan = make_plan([Path("a.png")], Path("b.png"), reference=Path("ref"))
    assert plan.jobs[0].reference == Path("ref/a.png")


def test_of_two_references_the_one_with_the_suffix_of_the_input_is_taken() -> None:
    files("a.png", "ref/a.png", "ref/a.jpg", "b.bmp", "ref/b.png", "ref/b.jpg")
    plan = make_plan([Path("a.png")], Path("out"), reference=Path("ref"))
    assert plan.jobs[0].reference == Path("ref/a.png")
    message = refusal("b.bmp", reference=Path("ref"))
    assert "ref/b.png" in message and "ref/b.jpg" in message


def test_references_that_cannot_serve_are_refused() -> None:
    files("in/a.png", "in/b.png", "clean.png", "ref/other.png")
    assert "no such file" in refusal("in", reference=Path("missing"))
    assert "2 inputs" in refusal("in", reference=Path("clean.png"))
    assert "stem" in refusal("in", reference=Path("ref"))
    plan = make_plan([Path("in/a.png")], Path("out"), reference=Path("clean.png"))
    assert plan.jobs[0].reference == Path("clean.png")


def test_leftovers_are_the_temporary_files_beside_the_outputs_and_nothing_else() -> None:
    files("in/x/a.png", "out/x/.0123abcd.tmp", "out/x/mine.tmp", "out/x/.0123abcd.tmp.txt", "elsewhere/.0123abcd.tmp")
    remove_leftovers(make_plan([Path("in")], Path("out"), recursive=True))
    left = sorted(path.as_posix() for path in Path().rglob("*tmp*"))
    assert left == ["elsewhere/.0123abcd.tmp", "out/x/.0123abcd.tmp.txt", "out/x/mine.tmp"]


def test_what_another_process_is_writing_is_no_leftover() -> None:
    files("in/a.png", "out/.0123abcd.tmp")
    with replacing(Path("out/a.png")) as stream:
        stream.write(b"whole")
        remove_leftovers(make_plan([Path("in")], Path("out")))
        assert not Path("out/.0123abcd.tmp").exists()
    assert Path("out/a.png").read_bytes() == b"whole"


def test_a_name_that_ends_like_a_suffix_but_names_no_image_keeps_its_end() -> None:
    files("scan.2023", "scan.2024", "a.v2.jpeg")
    assert targets("scan.2023", "scan.2024", "a.v2.jpeg", format="png") == [
        "out/scan.2023.png", "out/scan.2024.png", "out/a.v2.png",
    ]  # fmt: skip


def test_an_output_that_looks_like_a_file_but_is_made_a_folder_is_told() -> None:
    files("in/a.png", "in/b.png")
    for inputs in ([Path("in")], [Path("in/a.png"), Path("in/b.png")]):
        (notice,) = make_plan(inputs, Path("clean.png")).notices
        assert notice.startswith("clean.png: is made a folder")


@pytest.mark.parametrize("name", ["clean.heic", "clean.GIF", "clean.dng", "clean.avif"])
def test_one_image_is_not_put_into_a_folder_called_like_a_file_that_is_not_written(name: str) -> None:
    files("a.png")
    with pytest.raises(UsageError, match=rf"{name}: \.\w+ is not written; take the suffix of one that is \(png, jpg"):
        make_plan([Path("a.png")], Path(name))
    Path(name).mkdir()  # a folder that is there is one
    assert [str(job.target) for job in make_plan([Path("a.png")], Path(name)).jobs] == [f"{name}/a.png"]


def test_what_an_earlier_run_made_of_another_input_is_none_and_all_other_files_are() -> None:
    def again(inputs: list[str], out: str, format: str = "png") -> list[str]:
        plan = make_plan([Path(name) for name in inputs], Path(out), format=format, replace=True)
        return [str(job.source) for job in plan.jobs]

    def made(out: str, *names: str) -> None:
        for name in names:
            Path(out, name).parent.mkdir(parents=True, exist_ok=True)
            Path(out, name).touch()
            Manifest(Path(out), {}).append({"output": name})

    for name in ("A/x.jpg", "A/new.bmp", "E/x.png", "o/s1/a.jpg", "o/s2/b.jpg", "R/x.dng"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    made("A", "x.png")
    made("o", "s1/a.png", "s2/b.png")
    made("R", "x.tiff")
    assert again(["A"], "A") == ["A/new.bmp", "A/x.jpg"]
    assert again(["E/x.png"], "A/y") == ["E/x.png"]
    assert again(["o/s1", "o/s2"], "o") == ["o/s1/a.jpg", "o/s2/b.jpg"]
    assert again(["R"], "R", "same") == ["R/x.dng"]
    Path("A/x.jpg").unlink()  # its result is an input like any other now
    with pytest.raises(UsageError, match="would replace an input"):
        again(["A"], "A")
    assert again(["A"], "B") == ["A/new.bmp", "A/x.png"]
