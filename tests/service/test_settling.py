"""What a process does when it has loaded what it needs."""

import subprocess
import sys

SCRIPT = """
import atexit, gc
from service.settling import settle

class Known:
    def __del__(self):
        print("gone")

def ring():
    known = Known()
    known.itself = known

ring()
atexit.register(gc.collect)  # called after what is registered later
settle()
gc.collect()
print("kept")
ring()
gc.collect()
print("end")
"""


def test_only_what_comes_later_is_looked_at_until_the_end():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["kept", "gone", "end", "gone"]
