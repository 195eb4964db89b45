"""Run a server of which one port can be reached on 127.0.0.1, and nothing else at all, whatever it listens on.

    unshare --map-root-user --net python inner_port.py LISTENER PORT COMMAND...

LISTENER is the inherited descriptor of a listening socket outside of this network namespace: what connects to it talks
to PORT of the command. Prints the command's process id. Ends when the command ends, and ends it when stdin is closed.
"""

import asyncio
import fcntl
import signal
import socket
import struct
import sys
from contextlib import suppress

SIOCSIFFLAGS, IFF_UP = 0x8914, 1
CHUNK = 2**18


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


async def run(listener: int, port: int, command: list[str]) -> None:
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    server = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stdout=sys.stderr)
    sys.stdout.write(f"{server.pid}\n")
    sys.stdout.flush()
    await asyncio.start_server(connect, sock=socket.socket(fileno=listener))
    asyncio.get_running_loop().add_reader(sys.stdin, lambda: sys.stdin.read(1) or server.send_signal(signal.SIGKILL))
    await server.wait()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
