"""Tests ``image.thumbnail`` with a real photograph, and with files that are no pictures."""

import hashlib
import logging
import shutil
from pathlib import Path

import pytest
from PIL import Image

from examples.files import SAMPLES, FileRefused
from examples.jobs import thumbnail
from examples.thumbnails import MAX_FILE_BYTES, PictureRefused, Thumbnails
from jobtape import Context, PayloadInvalid
from jobtape.schemas.job import Progress

PHOTO = SAMPLES / "rocket.jpg"


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The upload folder, with the photograph in it."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    shutil.copy(PHOTO, folder / "photo.jpg")
    monkeypatch.setenv("JOBTAPE_EXAMPLE_FILES", str(folder))
    return folder


def run(file: str, sizes: list[int] | None = None, reports: list[Progress] | None = None) -> Thumbnails:
    seen: list[Progress] = [] if reports is None else reports
    ctx = Context("a-job", "image.thumbnail", 1, 1, logging.getLogger(__name__), seen.append)
    made = thumbnail(ctx, **thumbnail.arguments({"file": file} | ({"sizes": sizes} if sizes else {})))
    assert isinstance(made, Thumbnails)
    return made


def test_every_size_is_written_and_described(uploads: Path) -> None:
    reports: list[Progress] = []
    made = run("photo.jpg", [32, 100, 640], reports)
    assert (made.width, made.height) == (640, 427)
    assert [(one.width, one.height) for one in made.thumbnails] == [(32, 21), (100, 67), (640, 427)]
    for one in made.thumbnails:
        content = (uploads / one.name).read_bytes()
        assert (one.bytes, one.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        with Image.open(uploads / one.name) as image:
            assert (image.size, image.format) == ((one.width, one.height), "JPEG")
    assert [report.fraction for report in reports] == [1 / 3, 2 / 3, 1.0]
    assert not list(uploads.rglob("*.part"))


def test_thumbnail_shows_the_picture(uploads: Path) -> None:
    (small,) = run("photo.jpg", [64]).thumbnails
    with Image.open(uploads / small.name) as image, Image.open(PHOTO) as photo:
        pairs = zip(image.tobytes(), photo.resize(image.size, Image.Resampling.BOX).tobytes(), strict=True)
        assert sum(abs(a - b) for a, b in pairs) / len(image.tobytes()) < 8  # of 255, a colour channel


def test_second_execution_writes_the_same_files(uploads: Path) -> None:
    assert run("photo.jpg") == run("photo.jpg")
    assert len(list((uploads / "thumbnails").rglob("*.*"))) == 3


def test_picture_is_never_enlarged(uploads: Path) -> None:
    (one,) = run("photo.jpg", [2048]).thumbnails
    assert (one.width, one.height) == (640, 427)


def test_sample_needs_no_upload(uploads: Path) -> None:
    assert run("rocket.jpg").width == 640


def test_rotated_picture_is_made_upright(uploads: Path) -> None:
    with Image.open(PHOTO) as photo:
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: turn by a quarter to see it upright
        photo.save(uploads / "side.jpg", exif=exif)
    (one,) = run("side.jpg", [64]).thumbnails
    assert (one.width, one.height) == (43, 64)


def test_transparency_is_kept(uploads: Path) -> None:
    with Image.open(PHOTO) as photo:
        clear = photo.convert("RGBA")
        clear.putalpha(100)
        clear.save(uploads / "clear.png")
    (one,) = run("clear.png", [64]).thumbnails
    with Image.open(uploads / one.name) as image:
        assert (image.format, image.getchannel("A").getextrema()) == ("PNG", (100, 100))


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "/etc/hostname",
        "sub/../../secret.jpg",
        "link.jpg",
        "folder/secret.jpg",
        "..\\secret.jpg",
        "\0",
        ".",
    ],
)
def test_name_outside_the_upload_folder_is_refused(name: str, uploads: Path) -> None:
    secret = shutil.copy(PHOTO, uploads.parent / "secret.jpg")
    (uploads / "link.jpg").symlink_to(secret)
    (uploads / "folder").symlink_to(uploads.parent)
    (uploads / "sub").mkdir()
    with pytest.raises(FileRefused, match="upload"):
        run(name)
    assert not (uploads / "thumbnails").exists()


def test_missing_file_is_named(uploads: Path) -> None:
    with pytest.raises(FileRefused, match=r"no file 'missing\.jpg' in the upload folder"):
        run("missing.jpg")


def test_too_large_file_is_not_opened(uploads: Path) -> None:
    with (uploads / "large.jpg").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(FileRefused, match="20,000,001 bytes, more than the 20,000,000"):
        run("large.jpg")


@pytest.mark.parametrize("edge", [7_100, 14_000])  # beyond our limit; beyond twice Pillow's own, where it refuses
def test_file_with_too_many_pixels_is_not_unpacked(edge: int, uploads: Path) -> None:
    Image.new("1", (edge, edge)).save(uploads / "bomb.png")
    assert (uploads / "bomb.png").stat().st_size < 100_000
    with pytest.raises(PictureRefused, match="pixels"):
        run("bomb.png")


def test_broken_picture_is_refused(uploads: Path) -> None:
    (uploads / "half.jpg").write_bytes(PHOTO.read_bytes()[:50_000])
    with pytest.raises(PictureRefused, match=r"'half\.jpg' is broken: .*truncated"):
        run("half.jpg")


def test_text_is_refused(uploads: Path) -> None:
    (uploads / "text.jpg").write_text("not a picture")
    with pytest.raises(PictureRefused, match="none of the pictures that are read: JPEG, PNG, WEBP, GIF"):
        run("text.jpg")


@pytest.mark.parametrize(
    "payload", [{}, {"file": "a", "sizes": []}, {"file": "a", "sizes": [0]}, {"file": "a", "sizes": [64] * 11}]
)
def test_sizes_are_limited(payload: dict[str, object]) -> None:
    with pytest.raises(PayloadInvalid):
        thumbnail.arguments(payload)
