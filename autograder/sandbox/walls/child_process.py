"""Call a function in a child process, so that a failure leaves this process unchanged. Entry point: `error_in_child`."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable


def error_in_child(work: Callable[[], None]) -> str:
    """Call `work` in a child process. Return the message of any exception that it raises, or an empty string."""
    ready, up = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ready)
            up = fcntl.fcntl(up, fcntl.F_DUPFD, 3)
            work()
        except BaseException as error:
            os.write(up, (str(error) or type(error).__name__).encode()[:1000])
        finally:
            os._exit(0)
    os.close(up)
    with open(ready, "rb") as file:
        message = file.read()
    os.waitpid(pid, 0)
    return message.decode(errors="replace")
