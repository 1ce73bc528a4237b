"""An archive that answers C-ECHO, and C-STORE without keeping anything, light enough not to be what is measured.

python -m bench.echo_archive PORT
"""

import asyncio  # noqa: TID251 - this is a peer of the gateway, not a part of it
import struct
import sys

from bench import wire


class EchoArchive(asyncio.Protocol):
    """One association: accepts every context, answers each C-ECHO and C-STORE with Success, releases."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream transport is needed")
        self.transport, self.buffer = transport, b""
        self.storing: dict[int, bytes] = {}

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= 6:
            kind, length = struct.unpack_from(">BxI", self.buffer)
            if len(self.buffer) < 6 + length:
                return
            body, self.buffer = self.buffer[6 : 6 + length], self.buffer[6 + length :]
            self._answer(kind, body)

    def _answer(self, kind: int, body: bytes) -> None:
        match kind:
            case wire.A_ASSOCIATE_RQ:
                self.transport.write(wire.associate_ac(body))
            case wire.P_DATA_TF if body[5] & wire.COMMAND:
                elements = wire.command_elements(body)
                if elements[0x0100] == struct.pack("<H", wire.C_STORE_RQ):
                    self.storing = elements
                else:
                    (message_id,) = struct.unpack("<H", elements[0x0110])
                    self.transport.write(wire.echo_rsp(body[4], message_id))
            case wire.P_DATA_TF:
                if body[5] & wire.LAST:
                    self.transport.write(wire.store_rsp(body[4], self.storing))
            case wire.A_RELEASE_RQ:
                self.transport.write(wire.pdu(wire.A_RELEASE_RP, bytes(4)))
            case _:
                self.transport.close()


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(EchoArchive, "127.0.0.1", port, backlog=1024)
    await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
