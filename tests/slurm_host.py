"""A SLURM of one host, for as long as a test or a command takes: munged, slurmctld and slurmd in a temporary folder.

    python tests/slurm_host.py make grid EXECUTOR=slurm FLAGS="--slurm-status-command squeue"

runs the command with SLURM_CONF set, then ends it all.

Needs Debian's packages slurm-wlm and munge (other distributions name them alike), and no rights but the user's own. The
host passes for one of eight cores or more, so that jobs that ask for several run anywhere.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
PARTITION = "study"
CPUS = max(8, os.cpu_count() or 1)  # claimed like the memory
MEMORY = 16000  # MiB for each CPU; claimed, not checked, so that any job fits on any host
WAIT = 30.0  # seconds for each daemon to answer

# No cgroups, for a container has none to give, and no accounting, which needs a database: jobs stay listed for an hour.
CONFIGURATION = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=5,sched_min_interval=0,batch_sched_delay=0
MinJobAge=3600
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName={partition} Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Unavailable(Exception):
    """Why there is no SLURM here, in one line."""


@contextmanager
def slurm_host() -> Iterator[dict[str, str]]:
    """The environment in which sbatch and its kin reach a SLURM started for this block, ended with its jobs after it.

    Raises:
        Unavailable: a program is not installed, or a daemon does not start.
    """
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    found = {name: shutil.which(name, path=search) for name in PROGRAMS}
    if missing := [name for name, path in found.items() if path is None]:
        raise Unavailable(f"{', '.join(missing)} not installed (on Debian: apt install slurm-wlm munge)")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm", ignore_cleanup_errors=True)))
        folder.chmod(0o755)  # munged refuses a socket that others cannot reach
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (folder / "munge.key").chmod(0o600)
        host = socket.gethostname().partition(".")[0]
        configuration = folder / "slurm.conf"
        configuration.write_text(CONFIGURATION.format(
            host=host, ports=free_ports(2), user=_user(), folder=folder, cpus=CPUS,
            memory=MEMORY * CPUS, partition=PARTITION,
        ))  # fmt: skip
        # Snakemake's job steps drop SLURM_CONF, which clusters have no need of, before they call srun.
        (folder / "bin").mkdir()
        (folder / "bin" / "srun").write_text(f'#!/bin/sh\nSLURM_CONF={configuration} exec {found["srun"]} "$@"\n')
        (folder / "bin" / "srun").chmod(0o755)
        search = os.pathsep.join([str(folder / "bin"), search])
        environment = {**os.environ, "PATH": search, "SLURM_CONF": str(configuration)}
        munge = ["--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key",
                 f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/seed",
                 "--num-threads=2"]  # fmt: skip
        daemons = (
            ("munged", munge, lambda: (folder / "munge.socket").exists()),
            ("slurmctld", ["-D", "-i", "-f", str(configuration)], lambda: "State=" in _asked(environment, "scontrol")),
            ("slurmd", ["-D", "-N", host, "-f", str(configuration)], lambda: "idle" in _asked(environment, "sinfo")),
        )
        for name, words, ready in daemons:
            stack.enter_context(_running([str(found[name]), *words], folder / f"{name}.out", environment))
            until = time.monotonic() + WAIT
            while not ready():
                if time.monotonic() > until:
                    raise Unavailable(f"{name} does not start: {_said(folder, name)}")
                time.sleep(0.2)
        try:
            yield environment
        finally:
            subprocess.run(["scancel", "--user", _user()], env=environment, capture_output=True, timeout=WAIT)
            until = time.monotonic() + WAIT
            while _asked(environment, "squeue") and time.monotonic() < until:
                time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def _running(words: list[str], out: Path, environment: dict[str, str]) -> Iterator[None]:
    """A daemon for the length of the block, in a session of its own, so that Ctrl-C leaves its end to us."""
    with out.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, env=environment, start_new_session=True)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(WAIT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _asked(environment: dict[str, str], program: str) -> str:
    """What SLURM says of its nodes (scontrol, sinfo) or jobs (squeue); "" as long as it does not answer."""
    words = {"scontrol": ["show", "nodes"], "sinfo": ["--noheader", "--format=%T"], "squeue": ["--noheader"]}
    try:
        done = subprocess.run([program, *words[program]], env=environment, capture_output=True, text=True, timeout=10)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout if done.returncode == 0 else ""


def _said(folder: Path, name: str) -> str:
    """The last line of a daemon's log."""
    logs = [path for suffix in ("log", "out") if (path := folder / f"{name}.{suffix}").exists()]
    texts = [path.read_text(errors="replace") for path in logs]
    return next((line for text in texts for line in reversed(text.splitlines()) if line.strip()), "it says nothing")


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: all ends that was begun
    try:
        with slurm_host() as environment:
            sys.exit(subprocess.run(sys.argv[1:], env=environment).returncode)
    except Unavailable as error:
        sys.exit(f"slurm_host: {error}")
