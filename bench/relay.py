#!/usr/bin/env python3
"""CPU time per request of the relay example next to nginx as a reverse proxy: relay.py RELAY-PROGRAM [ROUNDS [SECONDS [CONNECTIONS]]]

One nginx is the origin for both; the other is the proxy, with upstream keep-alive. wrk drives one of the two at a
time; rounds are short and alternate, so that a change of the machine's speed hits both alike. CPU time is read from /proc for
the proxy's processes only, before and after each run. A run with an error or a refused request ends the benchmark."""

import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ORIGIN = """
daemon off; pid {dir}/origin.pid; error_log {dir}/origin.log; worker_processes {cpus};
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000;
  server {{ listen 127.0.0.1:{origin} reuseport; location / {{ default_type text/plain; return 200 "hello from the origin\\n"; }} }} }}
"""
PROXY = """
daemon off; pid {dir}/proxy.pid; error_log {dir}/proxy.log; worker_processes {cpus}; worker_cpu_affinity auto;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 64; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{proxy} reuseport;
    location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; }} }} }}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    sys.exit(f"nothing listens on port {port}")


def children(pid):
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_seconds(pid):
    total = 0.0
    for p in [pid, *children(pid)]:
        fields = Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def drive(port, pid, seconds, connections):
    before = cpu_seconds(pid)
    out = subprocess.run(["wrk", "-t2", f"-c{connections}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}/"],
                         capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(pid) - before
    if "Non-2xx" in out or "Socket errors" in out:
        sys.exit(f"errors in a run, which measures nothing:\n{out}")
    requests = int(re.search(r"(\d+) requests in", out)[1])
    p99 = re.search(r"99%\s+(\S+)", out)[1]
    return used / requests * 1e6, requests / seconds, p99


def main():
    if len(sys.argv) not in (2, 3, 4, 5) or not shutil.which(sys.argv[1]):
        sys.exit(__doc__.splitlines()[0])
    if missing := [tool for tool in ("nginx", "wrk") if not shutil.which(tool)]:
        sys.exit(f"relay.py: not there: {', '.join(missing)}")
    relay_program = sys.argv[1]
    rounds, seconds, connections = (int(a) for a in (sys.argv[2:5] + ["25", "1", "64"][len(sys.argv) - 2:]))
    with tempfile.TemporaryDirectory() as folder:
        values = {"dir": folder, "origin": free_port(), "proxy": free_port(), "cpus": os.cpu_count()}
        relay_port = free_port()
        for name, text in (("origin", ORIGIN), ("proxy", PROXY)):
            Path(folder, name + ".conf").write_text(text.format(**values))
        commands = [["nginx", "-p", folder, "-c", f"{folder}/origin.conf"],
                    ["nginx", "-p", folder, "-c", f"{folder}/proxy.conf"],
                    [relay_program, str(relay_port), "127.0.0.1", str(values["origin"])]]
        running = []
        try:
            for command in commands:
                running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            for port in (values["origin"], values["proxy"], relay_port):
                wait_for(port)
            peers = {"nginx": (values["proxy"], running[1].pid), "relay": (relay_port, running[2].pid)}
            seen = {name: [] for name in peers}
            for name, (port, pid) in peers.items():
                drive(port, pid, 1, connections)
            for number in range(rounds):
                for name, (port, pid) in peers.items():
                    seen[name].append(drive(port, pid, seconds, connections))
                print(f"round {number + 1}: " + ", ".join(f"{n} {v[-1][0]:.2f} us/request, {v[-1][1]:.0f}/s, p99 {v[-1][2]}"
                                                          for n, v in seen.items()), flush=True)
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                process.wait(timeout=10)
    for name, runs in seen.items():
        cost = [r[0] for r in runs]
        print(f"{name}: {statistics.median(cost):.2f} us of CPU per request (least {min(cost):.2f}, most {max(cost):.2f}), "
              f"{statistics.median(r[1] for r in runs):.0f} requests/s")
    print(f"relay / nginx, median of the rounds' ratios: "
          f"{statistics.median(r[0] / n[0] for r, n in zip(seen['relay'], seen['nginx'])):.2f}")


main()
