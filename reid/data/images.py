"""Reading one image from a file, the same way for training, evaluation and everything that follows."""

from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError


def read_image(path: Path | str, box: tuple[int, int, int, int] | None = None) -> Image.Image:
    """Read an image file whole as upright RGB, cropped to `box` = (x, y, width, height) in upright pixels.

    Raises FileNotFoundError for a missing file and ValueError, naming the path, for one that is empty, truncated, no
    image or too large to decode safely, or a box outside the image.
    """
    try:
        with Image.open(path) as opened:
            opened.load()  # verify() would pass a file cut in half
            image = ImageOps.exif_transpose(opened).convert("RGB")
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
