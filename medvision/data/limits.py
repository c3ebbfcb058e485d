"""Bounds that hold whatever the format: the largest image that is read, and the greatest age that is kept."""

from medvision.errors import DecodeRejected

# The largest mammogram that we know of is 4708 x 5844 = 27.5 million pixels.
MAX_PIXELS = 40_000_000


def check_size(width: int, height: int) -> None:
    """Raise DecodeRejected for an image without pixels, or with more than MAX_PIXELS of them."""
    if width < 1 or height < 1:
        raise DecodeRejected(f"{width} x {height} pixels; expected at least one")
    if width * height > MAX_PIXELS:
        raise DecodeRejected(f"{width} x {height} pixels; at most {MAX_PIXELS:,} are read")


# Years that stand for all ages above them: those alone tell who a person is (HIPAA, 45 CFR 164.514).
OLDEST = 90
