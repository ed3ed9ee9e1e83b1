"""Pictures in files, as uint8 arrays of a given shape.

PNG, JPEG, WebP, GIF and BMP are read. Of an animation only the first frame is
read. A picture is turned upright as its EXIF or XMP orientation says.
Transparent pictures are laid over white, as most viewers and pages show them:
the colour of a transparent pixel is arbitrary. Grey pictures of 16 bits lose
their lower eight, as Pillow does it for colours of 16 bits.
"""

import contextlib
import io
import pathlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from bitnet_jax import choices, files
from bitnet_jax.extras import needed_by
from bitnet_jax.files import PathLike

if TYPE_CHECKING:
  from PIL import Image

# Endings of the names of pictures, in lower case.
ENDINGS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp")
FORMATS = "PNG, JPEG, WebP, GIF or BMP"
# How a picture of another shape fits: its centre is cut out, or bars are added.
FITS = ("crop", "pad")
LARGEST_FILE = 2**30  # bytes
MOST_PIXELS = 2**30 // 4 // 3  # about 89 million; Pillow warns of more

# Pillow turns a picture by these numbers of `Image.Transpose`, by orientation.
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
_SIDEWAYS = (5, 6, 7, 8)
_ORIENTATION = 0x0112  # of EXIF
# Errors of Pillow and its decoders for damaged files.
_READ_ERRORS = (
  ArithmeticError,
  AttributeError,
  EOFError,
  LookupError,
  MemoryError,
  NotImplementedError,
  OSError,
  RuntimeError,
  SyntaxError,
  TypeError,
  ValueError,
  Warning,  # where warnings are errors
  struct.error,
  zlib.error,
)


class OtherSizeError(ValueError):
  """A picture has another size than it must have.

  Attributes:
    size: its width and height.
  """

  def __init__(self, size: tuple[int, int]):
    super().__init__(f"its size is {size[0]} x {size[1]} pixels")
    self.size = size


def read(
  file: PathLike | BinaryIO,
  shape: tuple[int, int, int],
  *,
  fit: str | None = "crop",
) -> np.ndarray:
  """Reads a picture as an array.

  Args:
    file: path of the picture, or a file that is open for reading bytes.
    shape: height, width and channels of the array; 1 channel is grey, 3 are
      red, green and blue.
    fit: how a picture of another size fits: "crop" scales it until it covers
      the shape, and keeps the centre; "pad" scales it until it lies within, and
      adds black bars; `None` refuses it.

  Returns:
    uint8 [height, width, channels].

  Raises:
    FileNotFoundError: there is no such file.
    OtherSizeError: it has another size, and `fit` is `None`.
    ValueError: it is no picture, is damaged or beyond the limits; names the
      file.
  """
  with opened(file) as picture:
    return to_array(picture, shape, fit=fit)


@contextlib.contextmanager
def opened(file: PathLike | BinaryIO) -> "Iterator[Image.Image]":
  """Opens a picture, of which only the header is read at first.

  Errors of reading it in the block name the file; see `read` for them.
  """
  with needed_by("reading pictures", "pillow"):
    from PIL import Image
  name = getattr(file, "name", "the input")
  try:
    with contextlib.ExitStack() as stack:
      if isinstance(file, str | pathlib.PurePath):
        name = path = pathlib.Path(file)
        file = stack.enter_context(files.open_regular(path, most=LARGEST_FILE))
      _check_not_empty(file)
      picture = Image.open(file, formats=("PNG", "JPEG", "WEBP", "GIF", "BMP"))
      _check_pixels(picture.size)
      yield picture
  except OtherSizeError:
    raise
  except FileNotFoundError as error:
    raise FileNotFoundError(f"there is no picture {name}") from error
  except Image.UnidentifiedImageError as error:
    raise ValueError(
      f"cannot read {name} as a picture: its content is not {FORMATS}"
    ) from error
  except (Image.DecompressionBombError, *_READ_ERRORS) as error:
    reason = getattr(error, "strerror", None) or str(error) or repr(error)
    raise ValueError(
      f"cannot read {name} as a picture: {reason:.200}"
    ) from error


def _check_not_empty(file):
  """Raises a ValueError for a file without a byte; keeps its position."""
  first = file.read(1)
  file.seek(-len(first), io.SEEK_CUR)
  if not first:
    raise ValueError("it is empty")


def _check_pixels(size):
  if size[0] * size[1] > MOST_PIXELS:
    raise ValueError(
      f"it has {size[0]} x {size[1]} pixels, more than {MOST_PIXELS}; make it"
      " smaller to use it"
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Hides Pillow's warnings, such as those of damaged EXIF data.

  It is for the main thread, as it replaces the filters of all threads.
  """
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", module=r"PIL\.")
    yield


def is_grey(picture: "Image.Image") -> bool:
  """Whether an opened picture is stored without colours."""
  if picture.mode in ("P", "PA"):
    colours = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())
  return picture.mode.startswith(("1", "L", "I"))


def to_array(
  picture: "Image.Image",
  shape: tuple[int, int, int],
  *,
  fit: str | None = "crop",
) -> np.ndarray:
  """Returns an opened picture as an array; see `read`."""
  height, width, channels = shape
  if fit is not None:
    # JPEG is decoded at an eighth of its size or more, if that is twice what is
    # asked for.
    side = 2 * max(height, width)
    picture.draft(None, (side, side))
  picture = _flat(upright(picture), "L" if channels == 1 else "RGB")
  if fit is None and picture.size != (width, height):
    raise OtherSizeError(picture.size)
  picture = _resized(picture, (width, height), fit or "crop")
  return np.asarray(picture).reshape(shape)


def fitted(image: np.ndarray, size: int, fit: str) -> np.ndarray:
  """Returns an image, uint8 [h, w, c], as [size, size, c]; see `read`."""
  from PIL import Image

  picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
  return np.asarray(_resized(picture, (size, size), fit)).reshape(
    size, size, -1
  )


def _resized(picture, size, fit):
  """Returns a picture of a size, width and height."""
  from PIL import Image, ImageOps

  choices.check(fit, FITS, key="image_fit")
  if picture.size == size:
    return picture
  change = ImageOps.fit if fit == "crop" else ImageOps.pad
  return change(picture, size, Image.Resampling.BILINEAR)


def size_of(picture: "Image.Image") -> tuple[int, int]:
  """Returns height and width of an opened picture, without decoding it.

  It is turned upright, except for the rare PNG whose EXIF data come last.
  """
  turned = None
  if picture.format != "PNG" or "exif" in picture.info:
    with contextlib.suppress(*_READ_ERRORS):
      turned = picture.getexif().get(_ORIENTATION)
  width, height = picture.size
  return (width, height) if turned in _SIDEWAYS else (height, width)


def upright(picture: "Image.Image") -> "Image.Image":
  """Returns a loaded picture, turned as its orientation says."""
  from PIL import Image

  picture.load()
  try:
    orientation = picture.getexif().get(_ORIENTATION)
  except _READ_ERRORS:  # Damaged EXIF data says nothing about the pixels.
    return picture
  if orientation not in _TURNS:
    return picture
  return picture.transpose(Image.Transpose(_TURNS[orientation]))


def _flat(picture, mode):
  """Returns a picture in the mode "L" or "RGB", without transparency."""
  from PIL import Image

  if picture.mode.startswith("I"):
    picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
  elif picture.has_transparency_data:
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(white, picture)
  return picture.convert(mode)
