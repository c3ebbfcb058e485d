"""What a person sees of a step, on standard output; with ``--json`` it goes to standard error instead."""

from __future__ import annotations

import sys

_stream_name = "stdout"


def say(text: str = "") -> None:
    """Print a line, or several."""
    print(text, file=getattr(sys, _stream_name), flush=True)


def leave_stdout_to_json(leave: bool) -> None:
    """Send all that is said from here on to standard error, or to standard output again."""
    global _stream_name
    _stream_name = "stderr" if leave else "stdout"
