"""The stages of the study, one script each: `python -m pipeline.train`."""

import signal
import sys

if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # This runs before a script's own imports, which take seconds: Ctrl-C shall end them without a traceback. Once they
    # are done, `pipeline.run.console` takes it back.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
