"""What holds whatever the format: the largest image, the greatest age that is kept, and how damage is refused."""

from collections.abc import Iterator
from contextlib import contextmanager

from medvision.errors import DecodeRejected

# The largest mammogram that we know of is 4708 x 5844 = 27.5 million pixels.
MAX_PIXELS = 40_000_000


def check_size(width: int, height: int) -> None:
    """Raise DecodeRejected for an image without pixels, or with more than MAX_PIXELS of them."""
    if width < 1 or height < 1:
        raise DecodeRejected(f"{width} x {height} pixels; expected at least one")
    if width * height > MAX_PIXELS:
        raise DecodeRejected(f"{width} x {height} pixels; at most {MAX_PIXELS:,} are read")


@contextmanager
def refusing_damage(kind: str) -> Iterator[None]:
    """Turn whatever a reader raises on a damaged file of a kind into DecodeRejected.

    Its text may quote the file, and with it a name: none of it is passed on.
    """
    try:
        yield
    except DecodeRejected:
        raise
    except OSError as error:
        raise DecodeRejected(f"can't be read ({error.strerror or type(error).__name__})") from None
    except Exception as error:
        raise DecodeRejected(f"damaged {kind} file ({type(error).__name__})") from None


# Years that stand for all ages above them: those alone tell who a person is (HIPAA, 45 CFR 164.514).
OLDEST = 90
