from __future__ import annotations

import collections
import csv
import errno
import math
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qpm_opt import InvalidInputError
from qpm_vision.data import draw_hangul, load_data
from qpm_vision.data._faces import Face, find_faces, glyph_fault, sift_faces
from qpm_vision.data._jamo import locate_jamo, needed_drawings
from qpm_vision.data._syllables import JAMO_KINDS, MOST_SYLLABLES, Syllable, choose_syllables
from qpm_vision.data.hangul import DrawingError, _compose

# -- syllables -----------------------------------------------------------------------------------------------------


def letters(text: str) -> list[str]:
    """The jamo of a syllable by the decomposition of Unicode, as the names of their compatibility letters."""
    names = [unicodedata.name(jamo).split(maxsplit=2) for jamo in unicodedata.normalize("NFD", text)]
    return [unicodedata.lookup(f"HANGUL LETTER {name}") for _, _, name in names]


def parts(syllable: Syllable) -> list[str]:
    return [syllable.initial, syllable.vowel] + ([] if syllable.final == "none" else [syllable.final])


@given(st.integers(0, 18), st.integers(0, 20), st.integers(0, 27))
@settings(max_examples=200, deadline=None)
def test_syllables_are_composed_as_unicode_has_it(initial: int, vowel: int, final: int) -> None:
    syllable = Syllable.of(initial, vowel, final)
    assert ord(syllable.text) == 0xAC00 + (initial * 21 + vowel) * 28 + final
    assert parts(syllable) == letters(syllable.text)


def test_there_are_2350_common_syllables() -> None:
    assert sum(syllable.is_common for syllable in choose_syllables(MOST_SYLLABLES, 0)) == 2350


@pytest.mark.parametrize("n_syllables", [2, 3, 10, 37, 200, 1000, MOST_SYLLABLES])
def test_as_many_syllables_as_asked_for(n_syllables: int) -> None:
    chosen = choose_syllables(n_syllables, 0)
    assert len({syllable.text for syllable in chosen}) == n_syllables
    assert list(chosen) == sorted(chosen)
    assert len({syllable.class_name for syllable in chosen}) == n_syllables


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_every_jamo_of_200_syllables_occurs_often_and_most_are_common(seed: int) -> None:
    chosen = choose_syllables(200, seed)
    for kind, fewest in (("initial", 8), ("vowel", 12), ("final", 12)):
        counts = collections.Counter(getattr(syllable, kind) for syllable in chosen)
        assert min(counts.values()) >= fewest
    assert sum(syllable.is_common for syllable in chosen) > 100


def test_the_choice_follows_the_seed() -> None:
    assert choose_syllables(50, 1) == choose_syllables(50, 1)
    assert choose_syllables(50, 1) != choose_syllables(50, 2)


@pytest.mark.parametrize("n_syllables", [1, 0, MOST_SYLLABLES + 1, 2.0, True])
def test_impossible_numbers_of_syllables(n_syllables) -> None:
    with pytest.raises(InvalidInputError, match=r"'n_classes'.*2 … 11172"):
        choose_syllables(n_syllables, 0)


# -- faces, by what they draw --------------------------------------------------------------------------------------

TEXTS = ["가", "나", "다"]
BOX = np.full((9, 9), 255, dtype=np.uint8)


def glyph(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(1, 256, (9, 9), dtype=np.uint8)


@pytest.mark.parametrize(
    ("glyphs", "fault"),
    [
        ([glyph(1), glyph(2), glyph(3)], None),
        ([glyph(1), BOX, glyph(3)], "lacks U+B098 나"),
        ([glyph(1), glyph(2), glyph(1)], "draws U+B2E4 다 like U+AC00 가"),
        ([glyph(1), np.zeros((0, 0), dtype=np.uint8), glyph(3)], "nothing for U+B098 나"),
        ([glyph(1), np.zeros((4, 4), dtype=np.uint8), glyph(3)], "nothing for U+B098 나"),
        ([np.ones((2, 8), dtype=np.uint8), np.ones((8, 2), dtype=np.uint8), np.ones((4, 4), dtype=np.uint8)], None),
    ],
)
def test_what_is_wrong_with_glyphs(glyphs: list[np.ndarray], fault: str | None) -> None:
    found, digest = glyph_fault(TEXTS, [BOX, *glyphs])
    assert (found is None) == (fault is None)
    assert fault is None or fault in str(found)
    assert bool(digest) == (fault is None)


def test_glyphs_are_not_drawn_beyond_the_first_fault() -> None:
    drawn = []

    def draw():
        for number, bitmap in enumerate([BOX, BOX, glyph(1), glyph(2)]):
            drawn.append(number)
            yield bitmap

    assert "lacks U+AC00" in str(glyph_fault(TEXTS, draw())[0])
    assert drawn == [0, 1]


def face(name: str, file: str = "", index: int = 0) -> Face:
    return Face(name, Path(file or f"{name}.ttf"), index)


def test_sifting_keeps_the_first_of_equals_and_gives_reasons() -> None:
    styles = {"B": 10, "A": 20, "Copy": 10, "Boxes": None, "Broken": OSError("torn"), "a": 30}

    def draw(candidate: Face, texts):
        assert texts[1:] == TEXTS
        style = styles[candidate.name]
        if isinstance(style, OSError):
            raise style
        return iter([BOX] + [BOX if style is None else glyph(style + i) for i in range(3)])

    told = []
    kept, rejected = sift_faces([face(name) for name in styles], TEXTS, draw=draw, progress=lambda *x: told.append(x))
    # "a" and "A" would be one file where names are compared without case.
    assert [item.name for item in kept] == ["A", "a-2", "B"]
    reasons = {item.face.name: item.reason for item in rejected}
    assert "like B (B.ttf)" in reasons["Copy"]
    assert "stand-in" in reasons["Boxes"]
    assert "torn" in reasons["Broken"]
    assert told == [(i, 6) for i in range(1, 7)]


def test_names_are_made_unique() -> None:
    faces = [face("Sans-2"), face("Sans", "z.ttf"), face("Sans", "a.ttc", 1), face("Sans", "a.ttc", 0)]
    numbers = {item: 10 * number for number, item in enumerate(faces)}
    kept, _ = sift_faces(faces, TEXTS, draw=lambda item, _: iter([BOX, *(glyph(numbers[item] + i) for i in range(3))]))
    assert len({item.name for item in kept}) == 4
    assert all(item.name.startswith("Sans") for item in kept)
    assert [item.name for item in kept] == sorted(item.name for item in kept)


# -- composing -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([8, 33, 64, 128]))
@settings(max_examples=60, deadline=None)
def test_ink_is_centred_and_fills_the_same_share(height: int, width: int, size: int) -> None:
    image = _compose(np.full((height, width), 255, dtype=np.uint8), size)
    assert (image.mode, image.size) == ("L", (size, size))
    rows, columns = np.nonzero(np.asarray(image) < 128)
    spans = [rows.max() - rows.min() + 1, columns.max() - columns.min() + 1]
    assert max(spans) == pytest.approx(0.84 * size, abs=0.6)
    assert spans[0] / spans[1] == pytest.approx(height / width, rel=0.6 / min(spans) + 0.6 / max(spans)) or 1 in spans
    for places in (rows, columns):
        assert (places.min() + places.max()) / 2 == pytest.approx((size - 1) / 2, abs=0.6)


# -- drawing with small fonts made here ----------------------------------------------------------------------------


def make_font(path: Path, family: str, thickness: int, kind: str = "good", syllables: str = "") -> None:
    """A font whose glyphs are the bits of the code point as blocks, in columns as wide as `thickness`."""
    builder_module = pytest.importorskip("fontTools.fontBuilder")
    pens = pytest.importorskip("fontTools.pens.ttGlyphPen")

    def blocks(bits: int):
        pen = pens.TTGlyphPen(None)
        for bit in range(16):
            if bits >> bit & 1:
                x, y = 60 * (bit % 4) * 4, 200 * (bit // 4)
                for number, point in enumerate(((x, y), (x, y + 150), (x + thickness, y + 150), (x + thickness, y))):
                    (pen.lineTo if number else pen.moveTo)(point)
                pen.closePath()
        return pen.glyph()

    glyphs = {".notdef": blocks(0b1001_0110_0110_1001)}
    mapping = {}
    for position, text in enumerate(syllables):
        name = f"g{position}"
        if kind == "lacking" and position == 1:
            continue
        bits = {"same": 0b1111, "blank": 0}.get(kind, ord(text))
        glyphs[name] = blocks(bits)
        mapping[ord(text)] = name
    builder = builder_module.FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap(mapping)
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(str(path))


N_CLASSES = 6


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fonts")
    syllables = "".join(syllable.text for syllable in choose_syllables(N_CLASSES, 0))
    syllables += "".join(
        sorted({syllable.text for count in (2, 3) for syllable in choose_syllables(count, 0)} - {*syllables})
    )
    (folder / "deep").mkdir()
    for number in range(8):
        place = folder / "deep" if number % 2 else folder
        make_font(place / f"good{number}.ttf", f"Good {number}", 100 + 15 * number, syllables=syllables)
    (folder / "link.ttf").symlink_to(folder / "good0.ttf")
    (folder / "zcopy.TTF").write_bytes((folder / "good2.ttf").read_bytes())
    for kind in ("same", "blank", "lacking"):
        make_font(folder / f"{kind}.ttf", f"Bad {kind}", 100, kind, syllables)
    (folder / "torn.ttf").write_bytes((folder / "good0.ttf").read_bytes()[:200])
    (folder / "poem.otf").write_text("I am a poem")
    (folder / "empty.ttc").write_bytes(b"ttcf\0\1\0\0\xff\xff\xff\xff")
    (folder / "notes.txt").write_text("no font")
    return folder


def test_faces_are_found_and_sifted(fonts: Path) -> None:
    faces, unopened = find_faces([fonts])
    assert {item.face.file.name for item in unopened} == {"torn.ttf", "poem.otf", "empty.ttc"}
    assert all("cannot be opened" in item.reason for item in unopened)
    assert len(faces) == 12
    kept, rejected = sift_faces(faces, [syllable.text for syllable in choose_syllables(N_CLASSES, 0)])
    assert [item.name for item in kept] == [f"Good-{number}-Regular" for number in range(8)]
    reasons = {item.face.file.name: item.reason for item in rejected}
    assert "stand-in" in reasons["lacking.ttf"]
    assert "nothing for" in reasons["blank.ttf"]
    assert " like U+" in reasons["same.ttf"]
    assert "like Good-2-Regular" in reasons["zcopy.TTF"]
    assert set(reasons) == {"lacking.ttf", "blank.ttf", "same.ttf", "zcopy.TTF"}


def test_all_faces_of_a_collection_are_used(fonts: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("fontTools.ttLib")
    collection = library.TTCollection()
    collection.fonts = [library.TTFont(fonts / f"good{number}.ttf") for number in (0, 2, 4, 6)]
    collection.save(tmp_path / "many.ttc")
    faces, unopened = find_faces([tmp_path])
    assert unopened == []
    assert [(item.name, item.index) for item in faces] == [(f"Good-{2 * i}-Regular", i) for i in range(4)]
    summary = draw_hangul(tmp_path / "out", n_classes=N_CLASSES, size=16, font_folders=[tmp_path])
    alone = draw_hangul(tmp_path / "alone", n_classes=N_CLASSES, size=16, font_folders=[fonts], test_every=8)
    for name in summary.train_faces:
        place = Path("train") / alone.syllables[0].class_name / f"{name}.png"
        assert (tmp_path / "out" / place).read_bytes() == (tmp_path / "alone" / place).read_bytes()


def drawn(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_a_drawing_is_a_data_set(fonts: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    summary = draw_hangul(
        tmp_path / "out",
        n_classes=N_CLASSES,
        size=32,
        font_folders=[fonts],
        progress=lambda done, of: told.append((done, of)),
    )
    assert (summary.n_train, summary.n_test) == (6 * N_CLASSES, 2 * N_CLASSES)
    assert summary.test_faces == ("Good-3-Regular", "Good-7-Regular")
    assert len(summary.rejected) == 7
    assert "6 syllables, 36 training images (6 faces) and 12 test images (2 other faces)" in str(summary)
    assert told == [(i, 12) for i in range(1, 13)] + [(i, 8) for i in range(1, 9)]
    data = load_data(tmp_path / "out")
    assert data.skipped == ()
    assert data.class_names == tuple(syllable.class_name for syllable in summary.syllables)
    faces = [{Path(part.name(i)).stem for i in range(len(part))} for part in (data.train, data.test)]
    assert faces == [set(summary.train_faces), set(summary.test_faces)]
    assert data.train.image(0).size == (32, 32)
    assert np.asarray(data.train.image(0))[0, 0].tolist() == [255, 255, 255]
    assert data.class_relation is not None
    for i, one in enumerate(summary.syllables):
        for j, other in enumerate(summary.syllables):
            shared = (one.initial == other.initial) + (one.vowel == other.vowel) + (one.final == other.final)
            assert data.class_relation[i, j] == pytest.approx(0 if i == j else shared / 3)


def test_the_tables_say_what_was_drawn(fonts: Path, tmp_path: Path) -> None:
    summary = draw_hangul(tmp_path / "out", n_classes=N_CLASSES, size=16, font_folders=[fonts])
    with (tmp_path / "out" / "attributes.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        text = row["class"].split("_")[1]
        assert row["class"] == f"U+{ord(text):04X}_{text}"
        expected = letters(text)
        assert [row["initial"], row["vowel"], row["final"]] == [*expected, "none"][:3]
    with (tmp_path / "out" / "fonts.csv").open(encoding="utf-8") as stream:
        faces = list(csv.DictReader(stream))
    assert list(faces[0]) == ["face", "file", "index", "split", "reason"]
    assert collections.Counter(row["split"] for row in faces) == {"train": 6, "test": 2, "rejected": 7}
    assert all(bool(row["reason"]) == (row["split"] == "rejected") for row in faces)
    assert {row["face"] for row in faces if row["split"] == "test"} == set(summary.test_faces)
    assert "6 classes" in (tmp_path / "out" / "README.txt").read_text(encoding="utf-8")


def test_drawing_again_gives_the_same_and_replaces_the_old(fonts: Path, tmp_path: Path) -> None:
    draw_hangul(tmp_path / "out", n_classes=N_CLASSES, size=16, font_folders=[fonts])
    first = drawn(tmp_path / "out")
    next((tmp_path / "out" / "train").rglob("*.png")).write_text("spoilt")
    next((tmp_path / "out" / "test").rglob("*.png")).unlink()
    draw_hangul(tmp_path / "out", n_classes=N_CLASSES, size=16, font_folders=[fonts])
    assert drawn(tmp_path / "out") == first
    draw_hangul(tmp_path / "out", n_classes=3, size=16, font_folders=[fonts / "deep"], test_every=2)
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3 * 4
    assert not list((tmp_path / "out").glob(".qpm-hangul-drawing*"))


def test_an_empty_folder_is_fine(fonts: Path, tmp_path: Path) -> None:
    assert draw_hangul(tmp_path, n_classes=2, size=16, font_folders=[fonts]).n_train == 12


@pytest.mark.parametrize("after_drawing", [False, True])
@pytest.mark.parametrize("kind", ["file", "folder", "image", "link"])
def test_foreign_content_is_refused_and_left_alone(fonts: Path, tmp_path: Path, kind: str, after_drawing: bool) -> None:
    root = tmp_path / "out"
    if after_drawing:
        draw_hangul(root, n_classes=2, size=16, font_folders=[fonts])
    else:
        root.mkdir()
    foreign = {
        "file": root / "thesis.txt",
        "folder": root / "photos",
        "image": root / "train" / "mine" / "x.png",
        "link": root / "elsewhere",
    }[kind]
    foreign.parent.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        foreign.mkdir()
    elif kind == "link":
        foreign.symlink_to(fonts)
    else:
        foreign.write_text("precious")
    before = drawn(root)
    with pytest.raises(InvalidInputError, match=foreign.name + ".*choose another folder"):
        draw_hangul(root, n_classes=2, size=16, font_folders=[fonts])
    assert foreign.exists()
    assert drawn(root) == before


def test_a_damaged_record_protects_the_folder(fonts: Path, tmp_path: Path) -> None:
    draw_hangul(tmp_path, n_classes=2, size=16, font_folders=[fonts])
    (tmp_path / ".qpm-hangul.json").write_text("[]")
    with pytest.raises(InvalidInputError, match="'out'"):
        draw_hangul(tmp_path, n_classes=2, size=16, font_folders=[fonts])


@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk_keeps_the_old_drawing(
    fonts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    root = tmp_path / "out"
    if before:
        draw_hangul(root, n_classes=2, size=16, font_folders=[fonts])
    files = drawn(root)
    save, count = Image.Image.save, []

    def fail_later(image, path, *rest, **options) -> None:
        count.append(path)
        if len(count) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(image, path, *rest, **options)

    monkeypatch.setattr(Image.Image, "save", fail_later)
    with pytest.raises(DrawingError, match=r"No space left.*Free some space"):
        draw_hangul(root, n_classes=2, size=16, font_folders=[fonts])
    assert drawn(root) == files
    monkeypatch.setattr(Image.Image, "save", save)
    assert draw_hangul(root, n_classes=2, size=16, font_folders=[fonts]).n_train == 12


def test_ctrl_c_leaves_nothing_half_done(fonts: Path, tmp_path: Path) -> None:
    def stop(done: int, of: int) -> None:
        if (done, of) == (3, 8):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_hangul(tmp_path, n_classes=N_CLASSES, size=16, font_folders=[fonts], progress=stop)
    assert drawn(tmp_path) == {}


def test_what_an_earlier_crash_left_is_cleared(fonts: Path, tmp_path: Path) -> None:
    (tmp_path / ".qpm-hangul-drawing" / "train").mkdir(parents=True)
    (tmp_path / ".qpm-hangul-drawing" / "train" / "x.png").touch()
    draw_hangul(tmp_path, n_classes=2, size=16, font_folders=[fonts])
    assert not (tmp_path / ".qpm-hangul-drawing").exists()


def test_too_few_faces(fonts: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for number in (0, 2, 4):
        (few / f"{number}.ttf").write_bytes((fonts / f"good{number}.ttf").read_bytes())
    with pytest.raises(InvalidInputError, match=r"At least 4.*Got 3.*apt-get install fonts-nanum .*fonts-woowa-bm"):
        draw_hangul(tmp_path / "out", n_classes=N_CLASSES, font_folders=[few])
    assert not (tmp_path / "out").exists()
    with pytest.raises(InvalidInputError, match=r"'test_every'.*8\. Got 9"):
        draw_hangul(tmp_path / "out", n_classes=N_CLASSES, font_folders=[fonts], test_every=9)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"size": 7}, "size"),
        ({"size": 2000}, "size"),
        ({"size": 64.0}, "size"),
        ({"test_every": 1}, "test_every"),
        ({"seed": -1}, "seed"),
        ({"n_classes": 1}, "n_classes"),
        ({"font_folders": ["/nowhere"]}, "font_folders"),
    ],
)
def test_wrong_arguments(tmp_path: Path, options, name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"'{name}'"):
        draw_hangul(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(InvalidInputError, match="'out'"):
        draw_hangul(tmp_path / "out")
    with pytest.raises((DrawingError, InvalidInputError)):
        draw_hangul(tmp_path / "out" / "below", n_classes=2)
    assert (tmp_path / "out").read_text() == "precious"


# -- fonts of this machine -----------------------------------------------------------------------------------------


def test_installed_fonts(tmp_path: Path) -> None:
    try:
        summary = draw_hangul(tmp_path, n_classes=12, size=48)
    except InvalidInputError as error:
        if "font faces" in str(error):
            pytest.skip("no fonts that draw Hangul are installed")
        raise
    data = load_data(tmp_path)
    faces = len(summary.train_faces) + len(summary.test_faces)
    assert len(summary.test_faces) == faces // 4
    assert len(data.train) + len(data.test) == 12 * faces
    longest = math.ceil(0.84 * 48) + 1
    for position in range(0, len(data.train), 7):
        ink = 255 - np.asarray(data.train.image(position))[..., 0]
        rows, columns = np.nonzero(ink > 40)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 <= longest
        assert 0.01 < ink.mean() / 255 < 0.7
    assert data.parts is not None
    assert set(data.parts.values) == set(JAMO_KINDS)
    located = [data.parts.boxes.get(data.test.name(position), {}) for position in range(len(data.test))]
    assert np.mean([bool(boxes) for boxes in located]) > 0.8
    for position, boxes in enumerate(located):
        final = data.parts.values["final"][data.test.labels[position]]
        if boxes:
            assert set(boxes) == set(JAMO_KINDS[: 2 if final == "none" else 3])
            middles = {kind: ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for kind, box in boxes.items()}
            assert middles["vowel"][0] > middles["initial"][0] or middles["vowel"][1] > middles["initial"][1]
            assert final == "none" or middles["final"][1] == max(y for _, y in middles.values())
            ink = np.asarray(data.test.image(position))[..., 0] < 128
            for left, upper, right, lower in boxes.values():
                assert ink[int(upper) : math.ceil(lower), int(left) : math.ceil(right)].any()


# -- where the jamo are --------------------------------------------------------------------------------------------

Spots = dict[str, tuple[float, float, float, float]]
SPOTS: dict[tuple[str, bool], Spots] = {
    ("beside", False): {"initial": (0.0, 0.1, 0.55, 0.9), "vowel": (0.7, 0.0, 1.0, 1.0)},
    ("beside", True): {"initial": (0.0, 0.0, 0.5, 0.5), "vowel": (0.65, 0.0, 1.0, 0.55), "final": (0.2, 0.7, 1.0, 1.0)},
    ("below", False): {"initial": (0.2, 0.0, 0.8, 0.5), "vowel": (0.0, 0.65, 1.0, 1.0)},
    ("below", True): {"initial": (0.2, 0.0, 0.8, 0.3), "vowel": (0.0, 0.4, 1.0, 0.6), "final": (0.1, 0.7, 0.9, 1.0)},
}
"""Where each jamo of a made-up face is, by where the vowel stands and whether there is a final."""


def composed(syllable: Syllable, spots: Spots | None = None, side: int = 80) -> np.ndarray:
    """A drawing in which each jamo fills the edge of its spot and has a pattern of its own inside."""
    page = np.zeros((side, side), dtype=np.uint8)
    for kind, (left, upper, right, lower) in (spots or SPOTS[syllable.layout, syllable.final != "none"]).items():
        x0, y0, x1, y1 = (round(edge * (side - 1)) for edge in (left, upper, right, lower))
        own = np.random.default_rng(ord(getattr(syllable, kind))).random((6, 6)) < 0.5
        inside = np.kron(own, np.ones((20, 20)))[: y1 - y0, : x1 - x0]
        page[y0:y1, x0:x1] = 255 * inside
        page[[y0, y1 - 1], x0:x1] = 255
        page[y0:y1, [x0, x1 - 1]] = 255
    return page


def test_jamo_are_found_where_they_were_drawn() -> None:
    syllables = [Syllable.of(i, v, f) for i, v, f in ((0, 0, 0), (2, 4, 4), (6, 8, 0), (9, 13, 1), (11, 20, 21))]
    drawings = {other.text: composed(other) for other in compared_with(*syllables)}
    located = locate_jamo(drawings, syllables)
    assert set(located) == {syllable.text for syllable in syllables}
    for syllable in syllables:
        expected = SPOTS[syllable.layout, syllable.final != "none"]
        assert set(located[syllable.text]) == set(expected)
        for kind, box in located[syllable.text].items():
            whole = np.array(list(expected.values()))
            low, high = whole[:, :2].min(axis=0), whole[:, 2:].max(axis=0)
            relative = ((np.reshape(expected[kind], (2, 2)) - low) / (high - low)).ravel()
            np.testing.assert_allclose(box, relative, atol=0.04, err_msg=f"{kind} of {syllable}")


def test_jamo_are_not_guessed() -> None:
    syllable = Syllable.of(0, 0, 4)
    alone = {syllable.text: composed(syllable)}
    assert locate_jamo(alone, [syllable]) == {}
    assert locate_jamo({}, [syllable]) == {}
    # A face that puts vowels that belong below to the right: the cuts are made from above, and give odd boxes.
    below = Syllable.of(0, 8, 0)
    wrong = {other.text: composed(other, spots=SPOTS["beside", False]) for other in compared_with(below)}
    assert locate_jamo(wrong, [below]) == {}
    right = {other.text: composed(other) for other in compared_with(below)}
    assert set(locate_jamo(right, [below])) == {below.text}


def compared_with(*syllables: Syllable) -> list[Syllable]:
    every = (Syllable.of(i, v, f) for i in range(19) for v in range(21) for f in range(28))
    texts = set(needed_drawings(syllables))
    return [syllable for syllable in every if syllable.text in texts]


def test_syllables_to_compare_with_differ_in_one_jamo() -> None:
    for syllable in (Syllable.of(0, 0, 0), Syllable.of(18, 8, 4), Syllable.of(11, 14, 0)):
        for kind in JAMO_KINDS:
            for other in syllable.with_other(kind):
                assert [name for name in JAMO_KINDS if getattr(other, name) != getattr(syllable, name)] == [kind]
                assert other.layout == syllable.layout
    assert Syllable.of(0, 0, 0).with_other("final") == ()
