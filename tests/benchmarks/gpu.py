"""The ensemble's engine on a GPU: `python tests/benchmarks/gpu.py` prints its times.

Without CUDA it ends with an error. No pytest: there is nothing beside it to take turns with.
"""

import statistics
import sys
import tempfile
import time

import torch

from gdtorch import initial_weights, load_table
from gdtorch.cli import main
from gdtorch.ensemble import engine as engines
from gdtorch.ensemble.engine import Engine

ROWS = load_table("post").learned.to(torch.float32)
STEPS = 50
BYTES = 2 * 60 * 4  # a network's weights, read and written once a step
OPERATIONS = 1496  # of a step of 3-15-1 on the post's rows; a sigmoid is four of them
SIDE = 8192  # of a matrix product, for the card's own pace


def milliseconds(call):
    """The median of seven, by the card's own clock."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    call()
    measured = []
    for _ in range(7):
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        measured.append(begin.elapsed_time(end))
    return statistics.median(measured)


def pace():
    """What the card copies, in bytes a second, and multiplies in float32, in operations."""
    a, b = (torch.randn(SIDE, SIDE, device="cuda") for _ in range(2))
    multiplied = 2 * SIDE**3 / milliseconds(lambda: a @ b) * 1e3
    large = torch.randn(2**28, device="cuda")
    copy = torch.empty_like(large)
    return 2 * 4 * 2**28 / milliseconds(lambda: copy.copy_(large)) * 1e3, multiplied


def engine(power):
    """Nanoseconds per network and step of blocks of 2 ** power: by calls, and as a CUDA graph."""
    engines.UNITS_ON_GPU = 16 << power
    made = Engine(ROWS, 15, {"lr": 1.0}, device="cuda")
    assert (made.compiled, made.block) == (True, 2**power)
    weights = initial_weights(0, 0, 8192, 60).repeat(made.block // 8192, 1)
    state = made.begin(weights)
    by_calls = milliseconds(lambda: made.advance(state, STEPS))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made.advance(state, STEPS)
    as_graph = milliseconds(graph.replay)
    return tuple(1e6 * each / STEPS / made.block for each in (by_calls, as_graph))


def command(*options):
    """Seconds of `train.py ensemble`."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as logs:
        assert main(["ensemble", "--quiet", "--logdir", logs, *options]) == 0
    return time.perf_counter() - start


if __name__ == "__main__":
    copied, multiplied = pace()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(f"copies {copied / 1e12:.2f} TB/s, multiplies {multiplied / 1e12:.1f} TFLOP/s (float32)")
    default = engines.UNITS_ON_GPU
    for power in (13, 15, 17, 18, 19, 20):
        by_calls, as_graph = engine(power)
        best = min(by_calls, as_graph)
        shares = BYTES / best * 1e9 / copied, OPERATIONS / best * 1e9 / multiplied
        print(
            f"2^{power}: {by_calls:.3f} ns by calls, {as_graph:.3f} as a graph; "
            f"{shares[0]:.0%} of what it copies, {shares[1]:.0%} of what it multiplies"
        )
    engines.UNITS_ON_GPU = default
    sys.argv = ["train.py"]
    for starts in ("1000", "1000000"):
        for device in ("cuda", "cuda", "cpu"):
            if (starts, device) != ("1000000", "cpu"):
                seconds = command("--starts", starts, "--steps", "1000", "--device", device)
                print(f"ensemble --starts {starts} --device {device}: {seconds:.1f} s", flush=True)
