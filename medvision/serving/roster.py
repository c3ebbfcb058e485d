"""Which versions answer: the champion, which is exchanged when the registry has another, and a challenger beside it."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from medvision.errors import LedgerBroken, MedvisionError, NotServing
from medvision.serving.served import Served

_LOG = logging.getLogger(__name__)
# A version that could not be loaded is not tried at each look at the registry.
_RETRY_S = 60.0
_SHARES = 10_000


@dataclass(frozen=True)
class Holders:
    """The numbers of the versions that the ledger says hold the aliases; ``problem``: why the aliases say otherwise.

    ``withdrawn``: those that were archived since they were promoted last.
    """

    champion: int | None
    challenger: int | None
    problem: str = ""
    withdrawn: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Present:
    """Who answers now; ``problem``: what is wrong with the registry or with a version that was to answer."""

    champion: Served | None
    challenger: Served | None = None
    is_diverged: bool = False
    problem: str = ""


class Roster:
    """The versions that answer, exchanged as one: a request keeps those that it began with."""

    def __init__(
        self,
        look: Callable[[], Holders],
        load: Callable[[int], Served],
        *,
        canary_percent: float = 0,
        is_shadowed: bool = False,
        on_swap: Callable[[str, Present], None] = lambda outcome, present: None,
    ) -> None:
        self._look, self._load, self._on_swap = look, load, on_swap
        self.canary_percent, self.is_shadowed = canary_percent, is_shadowed
        self.present = Present(None)
        self._failed: dict[int, tuple[float, str]] = {}
        self._stop, self._has_begun = threading.Event(), False

    def start(self, every_s: float) -> None:
        """Look at the registry now, with errors as ``refresh`` has them, then every so often on a thread."""
        self.refresh()
        self._has_begun = True
        threading.Thread(target=self._watch, args=(every_s,), name="medvision-roster", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def choose(self, case: str) -> Served:
        """Return who answers a case, the same one each time: NotServing if nobody may."""
        present = self.present
        if present.champion is None:
            raise NotServing("No model may answer: none is champion.")
        return present.challenger if present.challenger and self._is_canary(case) else present.champion

    def shadow_of(self, served: Served) -> Served | None:
        """Return who answers silently beside a version."""
        challenger = self.present.challenger
        return challenger if self.is_shadowed and challenger is not served else None

    def refresh(self) -> None:
        """Load who holds the aliases now; whoever answers stays if the new one may not."""
        before, held = self.present, self._look()
        champion, problem = self._hold(held.champion, before, held.withdrawn)
        wanted = held.challenger if self.canary_percent or self.is_shadowed else None
        challenger, other = self._hold(wanted, before, held.withdrawn, optional=True)
        problems = "; ".join(filter(None, (held.problem, problem, other)))
        present = Present(champion, challenger, bool(held.problem), problems)
        self.present = present
        if (champion, challenger) != (before.champion, before.challenger):
            self._on_swap("swapped", present)
        elif present != before:
            self._on_swap("refused" if problem or other else "noted", present)

    def _hold(
        self, number: int | None, before: Present, withdrawn: frozenset[int], *, optional: bool = False
    ) -> tuple[Served | None, str]:
        """Return the version of a number, or who answered in its place, and why."""
        if number is None:
            # A champion that was withdrawn answers nobody any more.
            return None, ""
        loaded = {_number(each): each for each in (before.champion, before.challenger) if each}
        stays = None if optional or _number(before.champion) in withdrawn else before.champion
        if number in loaded:
            return loaded[number], ""
        failed_at, why = self._failed.get(number, (-_RETRY_S, ""))
        if time.monotonic() - failed_at < _RETRY_S:
            return stays, why
        try:
            return self._load(number), ""
        # Also what nobody has thought of, as a full disk or a network that an engine does not know.
        except Exception as error:
            self._failed[number] = time.monotonic(), f"version {number} could not be loaded"
            if not self._has_begun and not optional:
                raise
            why = str(error) if isinstance(error, MedvisionError) else f"it fails with {type(error).__name__}"
            _LOG.error("!! Version %d is not served: %s", number, why)
            return stays, self._failed[number][1]

    def _is_canary(self, case: str) -> bool:
        share = int.from_bytes(hashlib.sha256(case.encode()).digest()[:8], "big") % _SHARES
        return share < self.canary_percent * _SHARES / 100

    def _watch(self, every_s: float) -> None:
        while not self._stop.wait(every_s):
            try:
                self.refresh()
            except LedgerBroken as error:
                self._note("the ledger is broken", str(error), is_diverged=True)
            except MedvisionError as error:
                self._note("the registry does not answer", str(error))
            except Exception as error:
                _LOG.debug("The registry can't be asked", exc_info=error)
                self._note("the registry does not answer", f"it fails with {type(error).__name__}")

    def _note(self, problem: str, why: str, *, is_diverged: bool = False) -> None:
        """Keep what is wrong with the registry, and log it once; whoever answers goes on."""
        if self.present.problem != problem:
            _LOG.error("!! %s: %s", problem.capitalize(), why)
        self.present = replace(self.present, is_diverged=is_diverged or self.present.is_diverged, problem=problem)


def _number(served: Served | None) -> int:
    """Return the number of a version; 0 of none, and of a model that was never registered."""
    return int(served.found.number or 0) if served else 0
