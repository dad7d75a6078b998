"""Stand for a program of program_server.py in a job of a cluster: `python relay.py SOCKET WORDS`.

SLURM starts, signals and kills this process; the program gets its descriptors, folder, environment and signals, is
killed when it is, and gives it its exit code.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


def main(address, *words):
    ignored = [int(number) for number in PASSED_ON if signal.getsignal(number) is signal.SIG_IGN]
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(address)
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: connection.send(str(int(number)).encode()))
    request = {"words": words, "cwd": str(Path.cwd()), "environment": dict(os.environ), "ignored": ignored}
    socket.send_fds(connection, [json.dumps(request | {"new_session": True}).encode()], [0, 1, 2])
    connection.recv(16)  # its pid
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    code = int(connection.recv(16))
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


main(*sys.argv[1:])
