"""Loaded by the process that workers are copies of.

A copy whose parent ends while it starts (Ctrl-C in the first seconds) finds neither pipes nor semaphores
any more. There is nobody left to whom its traceback says something.
"""

import sys

if any("multiprocessing.forkserver" in argument for argument in sys.orig_argv):
    sys.excepthook = lambda *_: None
