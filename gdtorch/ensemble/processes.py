"""The processes that torchrun has started, on one machine or many, and what they exchange."""

from __future__ import annotations

__all__ = ["Processes"]

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import reduce
from operator import add

import torch
import torch.distributed as dist

from .tally import Tally

TIMEOUT = timedelta(days=365)  # one process may finish long before the others
POLL_SECONDS = 0.02  # how late a signal may be noticed while waiting


class Processes:
    """This process among those of torchrun; alone, if torchrun has not started it.

    gloo connects them, also where the work is done on GPUs: what they exchange is in main memory.
    They share no file system, and send each other nothing but tensors.

    Args:
        device: where the work is done; with `cuda` each process takes the GPU of its local rank.
        check: called again and again while this process waits for others; an exception ends the
            waiting.

    Raises:
        ConnectionError: here or later, if another process cannot be reached, or has left.
    """

    def __init__(self, device: str, check: Callable[[], None]) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.check = check
        self.device = torch.device(device)
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))

    def __enter__(self) -> Processes:
        if self.count > 1:
            with _connected():
                dist.init_process_group("gloo", timeout=TIMEOUT)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.count > 1 and kind is None:  # after an exception the others may never join in
            dist.destroy_process_group()

    def broadcast(self, text: str) -> str:
        """Rank 0's `text`, on every rank."""
        if self.count == 1:
            return text
        content = torch.tensor(list(text.encode()), dtype=torch.uint8)
        length = torch.tensor([len(content)])
        self._wait(dist.broadcast(length, 0, async_op=True))
        if self.rank > 0:
            content = torch.empty(int(length), dtype=torch.uint8)
        self._wait(dist.broadcast(content, 0, async_op=True))
        return bytes(content.tolist()).decode()

    def total(self, tally: Tally) -> Tally:
        """The sum of the tallies of all ranks, on every rank."""
        if self.count == 1:
            return tally
        mine = torch.from_numpy(tally.vector)
        gathered = [torch.empty_like(mine) for _ in range(self.count)]
        self._wait(dist.all_gather(gathered, mine, async_op=True))
        return reduce(add, (tally.like(vector.numpy()) for vector in gathered))

    def _wait(self, work: dist.Work) -> None:
        # work.wait() alone would not do: Python handles no signal while it waits there.
        with _connected():
            while not work.is_completed():
                self.check()
                time.sleep(POLL_SECONDS)
            work.wait()


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # each backend raises its own kind
        raise ConnectionError(f"another process has left: {str(error).splitlines()[0]}") from error
