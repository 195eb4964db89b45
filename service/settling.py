"""What a process does when it has loaded what it needs."""

import atexit
import gc


def settle() -> None:
    """Have Python look for what is no longer used among what comes from now on alone.

    Libraries are half a million objects, of which each look stops the process for 0.25 s, and finds nothing.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)  # or some of them complain at the end that they are still there
