"""An archive that only answers C-ECHO, light enough not to be what P4 measures: python -m bench.echo_archive PORT."""

import asyncio  # noqa: TID251 - this is a peer of the gateway, not a part of it
import struct
import sys

from bench import wire


class EchoArchive(asyncio.Protocol):
    """One association: accepts every context, answers each C-ECHO with Success, releases."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream transport is needed")
        self.transport, self.buffer = transport, b""

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
            case wire.P_DATA_TF:
                (message_id,) = struct.unpack("<H", wire.command_elements(body)[0x0110])
                self.transport.write(wire.echo_rsp(body[4], message_id))
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
