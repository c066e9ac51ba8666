"""`python train.py` again and again from one process that has all imported: it forks.

It reads orders, JSON a line: {"arguments", "cwd", "out", "err", "limits", "record"} starts a run
and is answered with its process id; a process id is answered with how that process ended.
"""

import contextlib
import io
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import traceback

from tqdm import tqdm

from gdtorch.board import EventFile
from gdtorch.cli import main


def record(path):
    """Note the file of every event once it has been logged, where a kill cannot undo it."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    add = EventFile.add

    def noted(self, *arguments):
        add(self, *arguments)
        os.write(handle, f"{self.path}\n".encode())

    EventFile.add = noted


def run(order):
    """Become `python train.py`."""
    os.chdir(order["cwd"])
    for stream, handle in (("out", 1), ("err", 2)):
        os.dup2(os.open(order[stream], os.O_WRONLY), handle)
        file = io.TextIOWrapper(io.FileIO(handle, "w"), line_buffering=True)
        setattr(sys, f"std{stream}", file)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    sys.argv = ["train.py"]
    if order["record"]:
        record(order["record"])
    for name, limit in order["limits"].items():
        kind = getattr(resource, name)
        resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))
    try:
        status = main(order["arguments"])
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        status = 1
    os._exit(status)  # at once: to take Python down lasts longer than the run


# tqdm's own lock lies in memory that forked processes share: one that is killed while it holds the
# lock would stop all others for ever, as would a thread of tqdm's that holds it during a fork.
tqdm.set_lock(threading.RLock())
tqdm.monitor_interval = 0

with tempfile.TemporaryDirectory() as folder:  # torch imports some of itself at first use
    agree = ["lockstep", "builtin:manual", "builtin:sgd"]
    for arguments in ([], ["quartic", "--from", "1"], agree):
        with contextlib.redirect_stdout(None):
            main([*arguments, "--steps", "2", "--name", "x", "--overwrite", "--logdir", folder])
for line in sys.stdin:
    order = json.loads(line)
    if isinstance(order, dict):
        answer = os.fork()
        if answer == 0:
            run(order)
    else:
        answer = os.waitstatus_to_exitcode(os.waitpid(order, 0)[1])
    print(answer, flush=True)
