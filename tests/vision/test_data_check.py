"""Data are questioned: what repeats, contradicts, is left out or gives classes away is found, and nothing else is."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qpm_opt import InvalidInputError
from qpm_vision import cli, pipeline
from qpm_vision._progress import SilentReporter
from qpm_vision.data import ArrayImages, load_data
from qpm_vision.data_check import CHECK, Check, Finding, check_data
from qpm_vision.data_check.counts import least_held_out
from qpm_vision.data_check.looks import look_at
from qpm_vision.data_check.similar import near_pairs, same_pictures
from qpm_vision.report.render import render_page
from tests.vision.conftest import Reported
from tests.vision.tiny import tiny_config


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Soft blobs, different for each seed, as photographs are."""
    coarse = np.random.default_rng([seed, 11]).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def tree(root: Path, counts: dict[str, int], first: int = 0) -> Path:
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            picture(first + 1000 * number + index).save(root / name / f"{index:03}.png")
    return root


@pytest.fixture
def divided(tmp_path: Path) -> Path:
    tree(tmp_path / "data" / "train", {"cat": 12, "dog": 12})
    tree(tmp_path / "data" / "test", {"cat": 4, "dog": 4}, first=500)
    return tmp_path / "data"


def found(check: Check, kind: str) -> Finding:
    return next(finding for finding in check.findings if finding.kind == kind)


def kinds(check: Check) -> set[str]:
    return {finding.kind for finding in check.findings}


# -- twins ---------------------------------------------------------------------------------------------------------


def test_clean_data_have_no_findings_but_that_they_are_few(divided: Path) -> None:
    check = check_data(str(divided))
    assert kinds(check) == {"few"}
    assert check.classes == [("cat", [12, 4]), ("dog", [12, 4])]


def test_copies_are_found_across_the_split_under_two_classes_and_within(divided: Path) -> None:
    with Image.open(divided / "train/cat/000.png") as image:
        image.save(divided / "test/cat/again.bmp")  # the same pixels in another file
    with Image.open(divided / "train/cat/001.png") as image:
        image.save(divided / "train/dog/wrong.png")
    with Image.open(divided / "train/dog/002.png") as image:
        image.save(divided / "train/dog/twice.png")
    check = check_data(str(divided))
    leak, contradiction, repeats = (found(check, f"{kind}, exact") for kind in ("leak", "contradiction", "repeats"))
    assert check.findings[0] is leak
    assert (leak.level, leak.numbers) == ("wrong", {"test_images": 1, "of": 9})
    assert {seen.name for seen in leak.examples[0]} == {"train/cat/000.png", "test/cat/again.bmp"}
    assert {seen.class_name for seen in contradiction.examples[0]} == {"cat", "dog"}
    assert repeats.numbers == {"pictures": 1, "images": 2}
    assert not {kind for kind in kinds(check) if kind.endswith("near")}


def test_saved_again_smaller_and_brighter_is_nearly_the_same_and_a_crop_is_not(divided: Path) -> None:
    with picture(0, (200, 150)) as image:
        image.save(divided / "train/cat/000.png")
        image.resize((150, 112)).save(divided / "test/cat/small.jpg", quality=60)
        image.point(lambda value: int(value * 0.8) + 20).save(divided / "test/cat/bright.png")
        image.crop((50, 0, 200, 150)).save(divided / "test/cat/crop.png")
    leak = found(check_data(str(divided)), "leak, near")
    names = {seen.name for group in leak.examples for seen in group if seen.part == "test"}
    assert names == {"test/cat/small.jpg", "test/cat/bright.png"}


def test_drawn_digits_raise_no_false_alarm() -> None:
    """All of the 1,797 digits differ, although their perceptual hashes hardly do."""
    data = load_data("digits")
    looks = look_at(data.train)
    assert near_pairs(looks.hashes, looks.small) == []
    assert same_pictures(looks.digests) == []


def test_what_differs_in_one_place_differs() -> None:
    plain = np.asarray(picture(3, (64, 64)).convert("L"))
    other = plain.copy()
    other[28:36, 40:48] = 255 - other[28:36, 40:48]
    again = np.clip(plain.astype(int) + np.random.default_rng(0).integers(-2, 3, plain.shape), 0, 255).astype(np.uint8)
    looks = look_at(ArrayImages(np.stack([plain, other, again]), [0, 1, 0], ["a", "b"]))
    assert [(i, j) for _, i, j in near_pairs(looks.hashes, looks.small)] == [(0, 2)]


def test_pairs_of_many_hashes_are_those_of_all_comparisons() -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    hashes = rng.integers(0, 2**63, 300, dtype=np.uint64)
    small[150:] = small[:150]
    flips = [int(sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, 11), replace=False))) for _ in range(150)]
    hashes[150:] = hashes[:150] ^ np.array(flips, dtype=np.uint64)
    expected = {(i, i + 150) for i, flip in enumerate(flips) if flip.bit_count() <= 6}
    assert {(i, j) for _, i, j in near_pairs(hashes, small)} == expected


def test_thousands_of_images_are_compared_in_seconds() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 5000, dtype=np.uint64)
    hashes[:1000] &= np.uint64(0xFFFF)  # many alike, as drawings are
    began = time.process_time()
    near_pairs(hashes, np.tile(rng.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8), (50, 1, 1, 1)))
    assert time.process_time() - began < 15


# -- counts --------------------------------------------------------------------------------------------------------


def test_sizes_of_classes_and_what_can_be_held_out_are_told(tmp_path: Path) -> None:
    check = check_data(str(tree(tmp_path / "data", {"many": 60, "few": 12})), validation_share=0.2)
    imbalance = found(check, "imbalance")
    assert imbalance.numbers["smallest"] == ["few", 9]  # a quarter is set aside for the test
    assert imbalance.numbers["ratio"] == pytest.approx(5.0)
    assert "--class-weights balanced" in imbalance.cure
    few = next(finding for finding in check.findings if "held_out" in finding.numbers)
    assert few.numbers["held_out"] == {"few": 2}
    assert few.numbers["needed_of_each_class"] == least_held_out(0.9) == 9
    assert least_held_out(0.95) == 19


def test_a_class_in_one_part_only_is_told_although_training_refuses_it(divided: Path) -> None:
    tree(divided / "test", {"fox": 2}, first=900)
    tree(divided / "train", {"owl": 2}, first=950)
    with pytest.raises(InvalidInputError):
        load_data(str(divided))
    check = check_data(str(divided))
    numbers = [finding.numbers for finding in check.findings if finding.kind == "one split only"]
    told = {item["part"]: item["classes"] for item in numbers}
    assert told == {"test": ["fox"], "training": ["owl"]}
    assert check.findings[0].level == "wrong"


def test_a_validation_folder_that_is_tested_on_or_not_used_is_told(divided: Path) -> None:
    (divided / "test").rename(divided / "val")
    assert "val/ is used as the test set" in found(check_data(str(divided)), "split").title
    (divided / "val").rename(divided / "test")
    tree(divided / "validation", {"cat": 2}, first=700)
    check = check_data(str(divided))
    assert found(check, "split").title == "validation/ is not used"
    assert check.parts == ["train", "test", "validation (not used)"]


# -- what is left out ----------------------------------------------------------------------------------------------


def test_files_are_left_out_by_kind_and_with_a_cure(divided: Path) -> None:
    cat = divided / "train" / "cat"
    for number in range(10):
        (cat / f"IMG_{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (cat / "empty.jpg").touch()
    (cat / "text.png").write_text("no image")
    (cat / "cut.png").write_bytes((cat / "000.png").read_bytes()[:200])
    (cat / "scan.psd").write_bytes(b"8BPS")
    (cat / ".hidden.png").write_bytes((cat / "001.png").read_bytes())
    (cat / "noname").write_bytes((cat / "001.png").read_bytes())
    (cat / ".DS_Store").write_bytes(b"x")
    (cat / "notes.txt").write_text("x")
    (divided / "loose.png").write_bytes((cat / "002.png").read_bytes())
    (cat / "inner").mkdir()
    picture(77).save(cat / "inner" / "deep.png")
    picture(78).save(cat / "really.jpg", "PNG")
    check = check_data(str(divided))
    left_out = found(check, "left out")
    files = left_out.numbers["files"]
    assert files["HEIC image"] == 10
    assert "pip install pillow-heif" in left_out.cure
    assert set(files) == {
        "HEIC image",
        "empty file (0 bytes)",
        "file that ends like an image and is none",
        "damaged image",
        "image in a format that is not read, .psd",
        "image with a hidden name (it or its folder begins with a dot)",
        "image whose name does not say so (no ending)",
        "image that lies in no folder of a class",
        "file that another program left there",
        "other file, .txt",
    }
    assert found(check, "nested").numbers == {"images": 1}
    assert found(check, "wrong ending").numbers == {"files": {"PNG named .jpg": 1}}


def test_training_says_which_images_it_leaves_out(divided: Path) -> None:
    for number in range(10):
        (divided / "train" / "cat" / f"IMG_{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    skipped = load_data(str(divided)).skipped
    assert len(skipped) == 10
    assert "pip install pillow-heif" in skipped[0].reason


# -- giveaways -----------------------------------------------------------------------------------------------------


def test_sizes_and_modes_that_give_a_class_away_are_found(tmp_path: Path) -> None:
    for name in ("ant", "bee", "cow"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(30):
            rng = np.random.default_rng([index, len(name), ord(name[0])])
            size = (70, 50) if name == "ant" else (int(rng.integers(48, 80)), 50)
            image = picture(ord(name[0]) * 1000 + index, size)
            (image.convert("L") if name == "bee" else image).save(tmp_path / "data" / name / f"{index}.png")
    check = check_data(str(tmp_path / "data"))
    facts = {f.numbers["fact"]: f.numbers["classes"] for f in check.findings if f.kind == "giveaway"}
    assert facts["colour mode of the file"] == ["bee"]
    assert "ant" in facts["size in pixels"]
    assert "file format" not in facts


def test_what_all_classes_share_gives_nothing_away(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        for index in range(30):
            rng = np.random.default_rng([index, ord(name[0])])
            picture(ord(name[0]) * 1000 + index, (int(rng.integers(48, 80)), 50)).save(root / name / f"{index}.png")
    assert "giveaway" not in kinds(check_data(str(root)))


# -- the command ---------------------------------------------------------------------------------------------------


def test_the_command_tells_writes_and_shows_pictures(
    divided: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "<b>&.png"
    with Image.open(divided / "train/cat/000.png") as image:
        image.save(divided / "test/cat" / name)
    page, file = tmp_path / "page.html", tmp_path / "found.json"
    assert cli.main(["check", str(divided), "--out", str(page), "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert "1 of 9 test images is also training images" not in out
    assert "1 of 9 test images is also among the training images" in out
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/jpeg;base64,") == 2
    assert "&lt;b&gt;&amp;.png" in html
    assert "<b>&" not in html
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["complete"] is True
    assert content["findings"][0]["kind"] == "leak, exact"
    assert cli.main(["check", "digits", "--out", str(tmp_path / "no" / "such" / "check.html")]) in (0, 2)


def test_data_that_are_not_there_or_hold_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        check_data(str(tmp_path / "nothing"))
    (tmp_path / "data" / "cat").mkdir(parents=True)
    with pytest.raises(InvalidInputError):
        check_data(str(tmp_path / "data"))
    (tmp_path / "data" / "cat" / "a.png").write_text("x")
    with pytest.raises(InvalidInputError, match="none of which can"):
        check_data(str(tmp_path / "data"))


# -- before a training ---------------------------------------------------------------------------------------------


def test_a_run_tells_and_keeps_what_numbers_say_and_its_report_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_registered: None
) -> None:
    root = tree(tmp_path / "data", {"many": 60, "few": 8})
    (root / "few" / "a.heic").write_bytes(b"?")
    messages: list[str] = []

    class Listener(SilentReporter):
        def message(self, text: str) -> None:
            messages.append(text)

    monkeypatch.setattr(pipeline, "STAGES", ())
    monkeypatch.setattr(pipeline, "_note_times", lambda place: None)
    folder = pipeline.run(tiny_config(data=str(root), n_select=4), tmp_path / "run", reporter=Listener())
    kept = folder.read_json(CHECK)
    assert kept["complete"] is False
    assert {item["kind"] for item in kept["findings"]} == {"imbalance", "few", "left out"}
    text = "\n".join(messages)
    assert "data: Classes differ 7.5-fold in size: 6 to 45 training images" in text
    assert "pip install pillow-heif" in text
    assert "`qpm-vision check` also looks for copies" in text


def test_the_report_shows_the_findings(reported: Reported) -> None:
    assert reported.report.data_checked is False
    page = "".join(render_page(reported.report))
    assert "The data</h2>" in page
    assert "looks at every image" in page
    titles = [item["title"] for item in reported.report.data_findings]
    assert titles[0] == "Too few images to hold 9 of every class out: 4 classes"
