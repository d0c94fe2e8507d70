"""The upstream as a process: `python -m gateway_project.tests.upstream`. Prints its base URL, runs until SIGTERM.

GET /control/books gives the totals, POST /control/next {"name", "options", "times"} writes the script, POST
/control/reset begins new books.
"""

import argparse
import asyncio
import signal

from gateway_project.tests.upstream.server import Server


async def serve(port: int, keep: int) -> None:
    server = Server(keep)
    await server.start(port)
    print(f"{server.origin}/v1", flush=True)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    await server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--keep", type=int, default=100, help="calls to remember; the totals are exact anyway")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.keep))
