"""Reading one image from a file, the same way for training, evaluation and everything that follows."""

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError


def read_image(path: Path | str, box: tuple[int, int, int, int] | None = None) -> Image.Image:
    """Read an image file whole as `upright_rgb`, cropped to `box` = (x, y, width, height) in upright pixels.

    Raises FileNotFoundError for a missing file and ValueError, naming the path, for one that is empty, truncated, no
    image, too large to decode safely or of floating-point pixels, or a box outside the image.
    """
    try:
        with Image.open(path) as opened:
            image = upright_rgb(opened)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such image") from None
    except UnidentifiedImageError:
        size = Path(path).stat().st_size
        reason = "the file is empty" if size == 0 else "not an image that Pillow can read"
        raise ValueError(f"{path}: {reason}") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: too many pixels ({error})") from None
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's PNG reader raises SyntaxError for a broken file
        raise ValueError(
            f"{path}: cannot be read as an image ({str(error).strip() or type(error).__name__})"
        ) from error
    if box is None:
        return image
    x, y, width, height = box
    if x < 0 or y < 0 or width < 1 or height < 1 or x + width > image.width or y + height > image.height:
        raise ValueError(
            f"{path}: box x={x} y={y} w={width} h={height} lies outside the image of "
            f"{image.width}x{image.height} pixels"
        )
    return image.crop((x, y, x + width, y + height))


def upright_size(path: Path | str) -> tuple[int, int]:
    """(width, height) in upright pixels from an image's header alone; raises FileNotFoundError and ValueError."""
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            lies = opened.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path}: cannot be read as an image ({str(error).strip() or type(error).__name__})"
        ) from error
    return (height, width) if lies else (width, height)


def upright_rgb(opened: Image.Image) -> Image.Image:
    """Load a picture that Pillow has opened, the first frame of several, and make it RGB of 8 bits a channel.

    It is turned as its EXIF orientation says, and what is transparent lies over white, as browsers mostly show it.
    Grey of 16 bits and of Pillow's mode I goes from [0, 65535] to [0, 255], rounded. CMYK JPEG is read as Adobe writes
    it, inverted. Pixels of 8-bit RGB stay as they are stored; colour profiles are not applied.

    Raises ValueError for floating-point pixels, and whatever Pillow raises for a damaged file.
    """
    image = ImageOps.exif_transpose(opened)  # loads: verify() would pass a file cut in half
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range, expected 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        values = np.asarray(image).clip(0, 65535).astype(np.uint32)  # Pillow's own conversion clips at 255
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer)
    return image.convert("RGB")
