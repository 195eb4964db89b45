"""Places in lists, as callers may know them: one who sees some items alone shall not count the others."""

import hashlib
import hmac

from service.records import Caller

_HALF = 26  # bits, twice of which any program takes for a whole number
_ROUNDS = 6


class Cursors:
    """Turns numbers, as of items, into cursors and back; for callers who see all they are the same.

    For others each is another number below 2**52, by a permutation that the secret of the gallery chooses.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def written(self, number: int, caller: Caller) -> int:
        """The cursor of a number."""
        return number if caller.cameras is None else self._permuted(number, range(_ROUNDS))

    def read(self, cursor: int, caller: Caller) -> int:
        """The number of a cursor; 0 is the beginning, and what is no cursor is any place."""
        if caller.cameras is None or not 0 < cursor < 1 << 2 * _HALF:
            return cursor
        return self._permuted(cursor, range(_ROUNDS)[::-1])

    def _permuted(self, number: int, rounds: range) -> int:
        """One after the other the halves are changed by what the other half says; 0 stays, being none."""
        while True:
            left, right = number >> _HALF, number & (1 << _HALF) - 1
            for turn in rounds:
                if turn % 2:
                    left ^= self._mask(turn, right)
                else:
                    right ^= self._mask(turn, left)
            number = left << _HALF | right
            if number:  # what would become 0 becomes what that would become
                return number

    def _mask(self, turn: int, half: int) -> int:
        said = hmac.digest(self._secret, f"cursor {turn} {half}".encode(), hashlib.sha256)
        return int.from_bytes(said[:4], "big") & (1 << _HALF) - 1
