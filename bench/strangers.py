"""Strangers at the port: each connects, sends a broken or half a TLS handshake, waits to be let go, and comes again.

python -m bench.strangers PORT COUNT
"""

import asyncio  # noqa: TID251 - this is a peer of the gateway, not a part of it
import sys

CLIENT_HELLO = bytes.fromhex("16030100a5010000a10303") + bytes(range(32))
WORDS = (CLIENT_HELLO, b"\x16\x03\x01\x00\x05hello", b"GET / HTTP/1.0\r\n\r\n", b"\x01\x00\x00\x00\x00\xcd")
WAIT_SECONDS = 2.0


async def _stranger(port: int, word: bytes, address: str) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
            writer.write(word)
            await asyncio.wait_for(reader.read(1), WAIT_SECONDS)
            writer.close()
        except (OSError, TimeoutError):
            await asyncio.sleep(0.01)


async def _crowd(port: int, count: int) -> None:
    print("at work", flush=True)
    await asyncio.gather(
        *(
            _stranger(port, WORDS[number % len(WORDS)], f"127.9.{number >> 8}.{number & 255 or 1}")
            for number in range(count)
        )
    )


if __name__ == "__main__":
    asyncio.run(_crowd(int(sys.argv[1]), int(sys.argv[2])))
