"""Makes thumbnails of an uploaded picture with Pillow."""

import hashlib
import io
from pathlib import Path
from typing import Annotated
from uuid import uuid4

from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, Field

from examples.files import FileName, find
from examples.settings import Settings
from jobtape import Context, job

MAX_FILE_BYTES = 20_000_000
MAX_PIXELS = 50_000_000
"""The limit for a picture: a small file can unpack to gigabytes (about 4 bytes for each pixel)."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
"""The only decoders in use; Pillow would try some thirty on a file from an unknown sender."""

Edge = Annotated[int, Field(ge=1, le=2048)]


class PictureRefused(Exception):
    """The file is not a picture that can be read, or has too many pixels."""


class Thumbnail(BaseModel):
    """One thumbnail: its name below the upload folder, width and height in pixels, length and SHA-256 of the file."""

    name: str
    width: int
    height: int
    bytes: int
    sha256: str


class Thumbnails(BaseModel):
    """The picture's size in pixels, and the thumbnails in the order of the requested sizes."""

    width: int
    height: int
    thumbnails: list[Thumbnail]


@job("image.thumbnail", queue="images", timeout=120)
def thumbnail(
    ctx: Context,
    file: FileName,
    sizes: Annotated[list[Edge], Field(min_length=1, max_length=10)] = [64, 128, 256],  # noqa: B006 never changed
) -> Thumbnails:
    """Make thumbnails of a picture. ``sizes`` are the lengths of the longer edge in pixels; nothing is enlarged.

    They are written below ``thumbnails/<job id>/`` of the upload folder; a second execution writes the same names
    with the same content. Raises FileRefused and PictureRefused.
    """
    path = find(file, MAX_FILE_BYTES)
    picture = _open(path, file)
    folder = Settings().files / "thumbnails" / ctx.job_id
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number, size in enumerate(sizes, start=1):
        made.append(_make(picture, size, folder, f"thumbnails/{ctx.job_id}"))
        ctx.progress(number / len(sizes), f"{size} pixels, {number} of {len(sizes)}")
    return Thumbnails(width=picture.width, height=picture.height, thumbnails=made)


def _open(path: Path, name: str) -> Image.Image:
    """Return the picture, upright, in a mode that can be scaled. Raises PictureRefused."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PictureRefused(
                    f"{name!r} has {image.width} x {image.height} pixels, more than the {MAX_PIXELS:,} allowed"
                )
            # Phones store pictures rotated, and their orientation in the metadata.
            upright = ImageOps.exif_transpose(image)
            return upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    except UnidentifiedImageError:
        raise PictureRefused(f"{name!r} is none of the pictures that are read: {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise PictureRefused(f"{name!r} has more pixels than the {MAX_PIXELS:,} allowed") from None
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises SyntaxError for some broken PNGs
        raise PictureRefused(f"{name!r} is broken: {error}") from error


def _make(picture: Image.Image, size: int, folder: Path, prefix: str) -> Thumbnail:
    """Write one thumbnail, first under a temporary name, so that no reader sees an incomplete file."""
    small = picture.copy()
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if small.mode == "RGBA":
        suffix = "png"
        small.save(buffer, "PNG", optimize=True)
    else:
        suffix = "jpg"
        small.save(buffer, "JPEG", quality=85, optimize=True)
    content = buffer.getvalue()
    final = folder / f"{size}.{suffix}"
    part = folder / f".{uuid4().hex}.part"
    part.write_bytes(content)
    part.replace(final)
    return Thumbnail(
        name=f"{prefix}/{final.name}",
        width=small.width,
        height=small.height,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
