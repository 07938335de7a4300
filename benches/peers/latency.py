"""A proxy that adds latency to every answer, as a network would, and counts the requests that pass."""

import asyncio
import collections
import threading

METHODS = (b"GET ", b"PUT ", b"POST", b"DELE", b"HEAD")


class Latency:
    """Proxies on free ports of 127.0.0.1, run by a thread of their own."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.counts = collections.Counter()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def proxy(self, port, name_of):
        """Stands before `port`; `name_of` says by its first bytes what a request is counted as. Gives its own port."""
        async def start():
            connected = lambda reader, writer: self.serve(reader, writer, port, name_of)
            server = await asyncio.start_server(connected, "127.0.0.1", 0)
            return server.sockets[0].getsockname()[1]
        return asyncio.run_coroutine_threadsafe(start(), self.loop).result()

    async def serve(self, reader, writer, port, name_of):
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)

        async def requests():
            while data := await reader.read(1 << 16):
                if data[:4] in METHODS:
                    self.counts[name_of(data)] += 1
                there_writer.write(data)
                await there_writer.drain()
            there_writer.close()

        async def answers():
            # Everything is late by the same time, and so stays in order.
            while data := await there_reader.read(1 << 16):
                self.loop.call_later(self.seconds, writer.write, data)
            self.loop.call_later(self.seconds, writer.close)

        await asyncio.gather(requests(), answers(), return_exceptions=True)
