"""Threads for calls that block. The loop's own are few, and for work; who waits for somebody else (a container that takes
its time to stop) has one to himself, or six of them would keep everybody out."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sealane.limits import WAITERS_MAX, WORKERS_MAX

T = TypeVar("T")


def workers() -> ThreadPoolExecutor:
    """For `asyncio.to_thread`."""
    return ThreadPoolExecutor(WORKERS_MAX, thread_name_prefix="sealane-worker")


class BlockingCalls:
    """Beyond `most` at once, calls wait their turn."""

    def __init__(self, most: int = WAITERS_MAX) -> None:
        self._free = asyncio.Semaphore(most)

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """As `asyncio.to_thread`; but a daemon that ends does not wait for the call to return. (Its server gives the request
        that made it the time that it gives all.)"""
        async with self._free:
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[T] = loop.create_future()

            def tell(deed: Callable[[], None]) -> None:
                # The caller or the loop may be gone.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(lambda: None if answer.done() else deed())

            def run() -> None:
                try:
                    found = function(*arguments)
                except BaseException as error:
                    problem = error
                    tell(lambda: answer.set_exception(problem))
                else:
                    tell(lambda: answer.set_result(found))

            threading.Thread(target=run, name="sealane-waiter", daemon=True).start()
            return await answer
