"""Stand for a program of program_server.py where another program starts it: `python relay.py SOCKET DESCRIPTORS WORDS`.

SLURM, or multiprocessing, starts, signals and kills this process; the program gets its descriptors, folder, environment
and signals, is killed when it is, and gives it its exit code.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


def main(address, descriptors, *words):
    ignored = [int(number) for number in PASSED_ON if signal.getsignal(number) is signal.SIG_IGN]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(address)
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: connection.send(str(int(number)).encode()))
    places = [int(number) for number in descriptors.split(",")]
    request = {"words": words, "cwd": str(Path.cwd()), "environment": dict(os.environ), "new_session": True}
    request |= {"places": places, "ignored": ignored, "blocked": [int(number) for number in before]}
    socket.send_fds(connection, [json.dumps(request).encode()], places)
    connection.recv(16)  # its pid
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    code = int(connection.recv(16))
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


main(*sys.argv[1:])
