import io
import pathlib
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from bitnet_jax.data.sources import pictures

RED = (200, 10, 30)


def save(image, file, **options):
  image.save(file, **options)
  return file


def colours(height=4, width=6):
  """An RGB picture whose pixels all differ."""
  values = np.arange(height * width * 3, dtype=np.uint8)
  return Image.fromarray(values.reshape(height, width, 3))


def exif_of(orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  return exif.tobytes()


@pytest.mark.parametrize("ending", ["png", "webp", "bmp", "PNG"])
def test_lossless_picture_is_its_pixels(tmp_path, ending):
  file = save(colours(), tmp_path / f"a, ä.{ending}", lossless=True)
  found = pictures.read(file, (4, 6, 3))
  np.testing.assert_array_equal(found, np.asarray(colours()))
  assert found.dtype == np.uint8


def test_open_file_is_read_from_its_position():
  stream = io.BytesIO()
  save(colours(), stream, format="PNG")
  stream.seek(0)
  found = pictures.read(stream, (4, 6, 3))
  np.testing.assert_array_equal(found, np.asarray(colours()))


def test_jpeg_in_cmyk_is_read_in_its_colours(tmp_path):
  picture = Image.new("RGB", (8, 8), RED).convert("CMYK")
  file = save(picture, tmp_path / "a.jpg", quality=100)
  found = pictures.read(file, (8, 8, 3))
  np.testing.assert_allclose(found, np.broadcast_to(RED, (8, 8, 3)), atol=3)


def test_first_frame_of_an_animation_is_read(tmp_path):
  frames = [Image.new("RGB", (4, 4), c) for c in (RED, (0, 0, 255))]
  file = save(
    frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:]
  )
  np.testing.assert_array_equal(
    pictures.read(file, (4, 4, 3)), np.broadcast_to(RED, (4, 4, 3))
  )


def test_transparent_picture_lies_over_white(tmp_path):
  picture = Image.new("RGBA", (2, 1), (*RED, 0))
  picture.putpixel((1, 0), (*RED, 255))
  found = pictures.read(save(picture, tmp_path / "a.png"), (1, 2, 3))
  assert found.tolist() == [[[255, 255, 255], [*RED]]]


def test_transparent_entry_of_a_palette_lies_over_white(tmp_path):
  picture = Image.new("P", (2, 1))
  picture.putpalette([*RED, 1, 2, 3])
  picture.putpixel((1, 0), 1)
  file = save(picture, tmp_path / "a.png", transparency=0)
  found = pictures.read(file, (1, 2, 3))
  assert found.tolist() == [[[255, 255, 255], [1, 2, 3]]]


def test_grey_of_sixteen_bits_keeps_its_upper_eight(tmp_path):
  values = np.array([[0, 255, 256, 0x7FFF, 0xFFFF]], np.uint16)
  file = save(Image.fromarray(values), tmp_path / "a.png")
  assert pictures.read(file, (1, 5, 1)).ravel().tolist() == [0, 0, 1, 127, 255]
  assert pictures.read(file, (1, 5, 3))[0, :, 2].tolist() == [0, 0, 1, 127, 255]


@pytest.mark.parametrize(
  ("mode", "expected"),
  [("1", True), ("L", True), ("LA", True), ("I;16", True), ("RGB", False)],
)
def test_grey_is_told_from_colours_by_the_header(tmp_path, mode, expected):
  file = save(Image.new(mode, (2, 2)), tmp_path / "a.png")
  with pictures.opened(file) as picture:
    assert pictures.is_grey(picture) == expected


@pytest.mark.parametrize(
  ("palette", "expected"), [([9, 9, 9, 1, 1, 1], True), ([9, 9, 8], False)]
)
def test_palette_is_grey_if_its_colours_are(tmp_path, palette, expected):
  picture = Image.new("P", (2, 2))
  picture.putpalette(palette)
  with pictures.opened(save(picture, tmp_path / "a.png")) as found:
    assert pictures.is_grey(found) == expected


@pytest.mark.parametrize(
  ("orientation", "turn"),
  [
    (1, lambda a: a),
    (2, lambda a: a[:, ::-1]),
    (3, lambda a: a[::-1, ::-1]),
    (4, lambda a: a[::-1]),
    (5, lambda a: a.swapaxes(0, 1)),
    (6, lambda a: np.rot90(a, -1)),
    (7, lambda a: np.rot90(a.swapaxes(0, 1), 2)),
    (8, lambda a: np.rot90(a)),
    (99, lambda a: a),
  ],
)
def test_picture_is_turned_upright(tmp_path, orientation, turn):
  file = save(colours(), tmp_path / "a.png", exif=exif_of(orientation))
  expected = turn(np.asarray(colours()))
  found = pictures.read(file, expected.shape, fit=None)
  np.testing.assert_array_equal(found, expected)
  with pictures.opened(file) as picture:
    assert pictures.size_of(picture) == expected.shape[:2]


def test_damaged_exif_data_is_ignored(tmp_path):
  file = save(colours(), tmp_path / "a.png", exif=b"Exif\0\0II*\0garbage" * 3)
  with pictures.quiet():
    found = pictures.read(file, (4, 6, 3), fit=None)
  np.testing.assert_array_equal(found, np.asarray(colours()))


def test_crop_keeps_the_centre_and_pad_adds_black_bars(tmp_path):
  stripes = np.repeat(np.array([10, 50, 50, 90], np.uint8), 4)
  picture = Image.fromarray(np.broadcast_to(stripes, (8, 16)).copy())
  file = save(picture, tmp_path / "a.png")
  cropped = pictures.read(file, (8, 8, 1), fit="crop")[..., 0]
  np.testing.assert_array_equal(cropped, 50)
  padded = pictures.read(file, (16, 16, 1), fit="pad")[..., 0]
  np.testing.assert_array_equal(padded[4:12], np.asarray(picture))
  assert not padded[:4].any() and not padded[12:].any()


def test_large_jpeg_is_reduced_to_nearly_the_same(tmp_path):
  ramp = np.add.outer(np.arange(640), np.arange(960)) / 1600 * 255
  picture = Image.fromarray(ramp.astype(np.uint8))
  file = save(picture, tmp_path / "a.jpg", quality=95)
  found = pictures.read(file, (32, 32, 1)).astype(int)
  expected = pictures.read(save(picture, tmp_path / "a.png"), (32, 32, 1))
  np.testing.assert_allclose(found, expected, atol=4)


def test_another_size_is_refused_if_it_may_not_fit(tmp_path):
  file = save(colours(), tmp_path / "a.png")
  with pytest.raises(pictures.OtherSizeError) as caught:
    pictures.read(file, (6, 4, 3), fit=None)
  assert caught.value.size == (6, 4)


def png_of(width, height):
  """A PNG that says it is large."""

  def chunk(kind, data):
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

  header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
  return (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", header)
    + chunk(b"IDAT", zlib.compress(b""))
    + chunk(b"IEND", b"")
  )


def complete(kind):
  stream = io.BytesIO()
  noise = np.random.default_rng(0).integers(256, size=(64, 64, 3))
  save(Image.fromarray(noise.astype(np.uint8)), stream, format=kind)
  return stream.getvalue()


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("empty.png", b"", "it is empty"),
    ("text.jpg", b"no picture", "its content is not PNG, JPEG, WebP, GIF or"),
    ("cut.png", complete("PNG")[:2000], ""),
    ("cut.jpg", complete("JPEG")[:2000], ""),
    ("cut.webp", complete("WEBP")[:2000], ""),
    ("cut.gif", complete("GIF")[:2000], ""),
    ("cut.bmp", complete("BMP")[:2000], ""),
    ("tiff.png", complete("TIFF"), "its content is not PNG, JPEG, WebP"),
    ("large.png", png_of(10_000, 10_000), "it has 10000 x 10000 pixels, more"),
    ("bomb.png", png_of(60_000, 60_000), "3600000000 pixels"),
  ],
)
def test_file_that_is_no_whole_picture_is_an_error(
  tmp_path, name, content, message
):
  file = tmp_path / name
  file.write_bytes(content)
  expected = rf"^cannot read {re.escape(str(file))} as a picture: .*{message}"
  with pictures.quiet(), pytest.raises(ValueError, match=expected) as caught:
    pictures.read(file, (64, 64, 3))
  assert "\n" not in str(caught.value)


def test_missing_picture_and_folder_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"there is no picture .*a\.png"):
    pictures.read(tmp_path / "a.png", (1, 1, 1))
  with pytest.raises(ValueError, match="is a folder, not a file"):
    pictures.read(pathlib.Path(tmp_path), (1, 1, 1))
