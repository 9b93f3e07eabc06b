"""An archive of Kafka's loaded classes (Java's class data sharing), which halves the start of a broker or tool.

Rules: One archive for each Kafka release, beside the jars.  A broker that only starts and ends makes it, and makes it again
for another Java or other options.  A JVM ignores an archive that it cannot use, so a failure costs time alone.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .jars import ARCHIVE, JVM, java, java_version, note

# Set while a broker makes the archive.
MAKING = "KAFKA_MAKING_ARCHIVE"
MADE_FOR = ARCHIVE.with_suffix(".key")
PROGRAM = Path(__file__).resolve().parent.parent / "kafka"


def ensure_archive():
    """Makes the archive, unless there is one of this Java with these options."""
    if MAKING in os.environ:
        return
    key = hashlib.sha256("\n".join((java(), java_version(), *JVM)).encode()).hexdigest()
    if ARCHIVE.exists() and MADE_FOR.exists() and MADE_FOR.read_text() == key:
        return
    ARCHIVE.unlink(missing_ok=True)
    note(f"archiving the classes of a broker in {ARCHIVE} ...")
    with tempfile.TemporaryDirectory(dir=ARCHIVE.parent, prefix="classes-") as work:
        made = Path(work, ARCHIVE.name)
        if run_broker(Path(work, "cluster"), f"-XX:ArchiveClassesAtExit={made}") and made.exists():
            os.rename(made, ARCHIVE)
            MADE_FOR.write_text(key)


def run_broker(directory, option):
    """Starts a broker under this option of the JVM and ends it in an orderly way, so that the JVM can write the archive."""
    environment = {**os.environ, MAKING: "1", "KAFKA_JVM": " ".join([*JVM, option])}
    for words in (["up", "--brokers", "1"], ["down", "--keep"]):
        done = subprocess.run([sys.executable, str(PROGRAM), *words, "--dir", str(directory)], env=environment,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            note(f"no archive, so brokers start slower: {done.stdout.strip()}")
            return False
    return True
