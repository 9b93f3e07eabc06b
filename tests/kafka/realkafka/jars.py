"""Java and Kafka's jars: the search for Java, one fetch from Maven Central, and the command lines.

Rules:
- An error about a missing tool names the package to install.
- An interrupted fetch leaves no incomplete cache.
- A complete cache needs neither Maven nor a network.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VERSION = os.environ.get("KAFKA_VERSION", "4.1.1")
HEAP = os.environ.get("KAFKA_HEAP", "512m")

CACHES = Path(
    os.environ.get("KAFKA_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kafka-test"
)
CACHE = CACHES / VERSION
LIBS = CACHE / "libs"
# The archive of Kafka's classes, once `kafka up` has made it.
ARCHIVE = CACHE / "classes.jsa"

# Short-lived brokers on a shared machine start fastest with small heaps and the simplest JIT.
JVM = os.environ.get("KAFKA_JVM", "-XX:+UseSerialGC -XX:TieredStopAtLevel=1").split() + ["-Djava.net.preferIPv4Stack=true"]

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>kafka-test</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
%s  </dependencies>
</project>
"""
DEPENDENCY = "    <dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>\n"

LOG4J = """<Configuration status="ERROR">
  <Appenders><Console name="out" target="%(target)s">
    <PatternLayout pattern="%%d{ISO8601} %%-5p %%m (%%c{1})%%n"/>
  </Console></Appenders>
  <Loggers><Root level="%(level)s"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""

LOG4J_1 = """log4j.rootLogger=%(level)s, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.target=%(target)s
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%%d{ISO8601} %%-5p %%m (%%c{1})%%n
"""

DUMP_CLASS = "KafkaDump"
DUMP_SOURCE = Path(__file__).resolve().parent / f"{DUMP_CLASS}.java"

# The pauses before the retries of a failed fetch, in seconds: a registry may be briefly unavailable.
FETCH_PAUSES = (5, 15, 30)


def die(message, code=1):
    print("kafka: " + message, file=sys.stderr)
    sys.exit(code)


def note(message):
    print(message, file=sys.stderr, flush=True)


def version_number(version):
    """Returns a version as a tuple of numbers, for comparisons."""
    return tuple(int(part) for part in version.split("."))


def pom(version):
    """Returns the Maven project with the jars of a release.  The brokers need a binding for slf4j to write logs."""
    scala = "2.13" if version_number(version) >= (2, 4) else "2.12"
    wanted = [("org.apache.kafka", f"kafka_{scala}", version)]
    if version_number(version) >= (4, 0):
        wanted += [("org.apache.kafka", "kafka-tools", version), ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.24.3")]
    else:  # log4j 1, and JAXB, which Java 11 removed
        wanted += [("org.slf4j", "slf4j-reload4j", "1.7.36"), ("javax.xml.bind", "jaxb-api", "2.3.1")]
    if (3, 3) <= version_number(version) < (4, 0):
        wanted.append(("org.apache.kafka", "kafka-tools", version))
    return POM % "".join(DEPENDENCY % one for one in wanted)


def java(tool="java"):
    """Returns the path of java or javac.  A failure names the package to install."""
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / tool) if home else None
    if not (found and os.access(found, os.X_OK)):
        found = shutil.which(tool)
    if not found:
        package = "openjdk-17-jre-headless" if tool == "java" else "openjdk-17-jdk-headless"
        product = "a Java 17+ runtime" if tool == "java" else "a Java 17+ JDK"
        die(f"`{tool}` not found: install {product} (Debian/Ubuntu: apt install {package}; Fedora: dnf install "
            f"java-17-openjdk-devel; macOS: brew install openjdk@17), or set JAVA_HOME", 127)
    return found


def java_version():
    """Returns what `java -version` prints."""
    return subprocess.run([java(), "-version"], capture_output=True, text=True).stderr


def check_java_version():
    """Checks for Java 17, which Kafka 4 brokers need.  An older Java fails with an obscure class-file error."""
    text = java_version()
    try:
        parts = text.split('"')[1].split(".")
        major = int(parts[1] if parts[0] == "1" else parts[0].split("-")[0])
    except (IndexError, ValueError):
        return  # an unusual version string: let Kafka decide
    if major < 17:
        die(f"{java()} is Java {major}: Kafka {VERSION} needs Java 17 or newer", 127)


def resolve_jars(mvn, work):
    """Runs Maven in `work` until its folder `libs` has Kafka, with a pause before each retry."""
    for pause in (*FETCH_PAUSES, None):
        done = subprocess.run(
            [mvn, "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs", "-DincludeScope=runtime"],
            cwd=work, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        if not done.returncode and list(Path(work, "libs").glob("kafka_2.*.jar")):
            return
        if pause is None:
            die("Maven could not resolve Kafka's jars (see above): check that Maven Central, or your mirror in "
                "~/.m2/settings.xml, is reachable")
        note(f"Maven could not resolve Kafka's jars, retry in {pause} s")
        time.sleep(pause)


def fetch(force=False, version=VERSION):
    """Downloads Kafka's jars into the cache, unless the cache is complete, and returns their folder."""
    cache = CACHES / version
    complete = cache / "complete"  # written last: marks a complete cache
    if complete.exists() and not force:
        return cache / "libs"
    mvn = shutil.which("mvn")
    if not mvn:
        die(f"`mvn` not found: Maven is needed once to download Kafka {version} into {cache} "
            "(Debian/Ubuntu: apt install maven; Fedora: dnf install maven; macOS: brew install maven)", 127)
    java()
    note(f"fetching Kafka {version} into {cache} ...")
    cache.mkdir(parents=True, exist_ok=True)
    # The jars are downloaded into a new folder, which is then renamed. An interrupted fetch leaves no incomplete cache.
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as work:
        Path(work, "pom.xml").write_text(pom(version))
        resolve_jars(mvn, work)
        shutil.rmtree(cache / "libs", ignore_errors=True)
        os.rename(Path(work, "libs"), cache / "libs")
    for name, target, level in (("broker", "SYSTEM_OUT", "INFO"), ("tool", "SYSTEM_ERR", "ERROR")):
        (cache / f"log4j2-{name}.xml").write_text(LOG4J % {"target": target, "level": level})
        target = target.replace("SYSTEM_OUT", "System.out").replace("SYSTEM_ERR", "System.err")
        (cache / f"log4j-{name}.properties").write_text(LOG4J_1 % {"target": target, "level": level})
    complete.write_text(version + "\n")
    return cache / "libs"


def classpath():
    return str(LIBS / "*")


def java_command(role="tool", heap="256m", version=VERSION):
    """Returns java with the options that all JVMs of this tool share.  `role` selects the log4j configuration."""
    cache = CACHES / version
    archive = [f"-XX:SharedArchiveFile={ARCHIVE}"] if version == VERSION and ARCHIVE.exists() else []
    return [java(), f"-Xmx{heap}", *JVM, *archive, f"-Dlog4j2.configurationFile={cache}/log4j2-{role}.xml",
            f"-Dlog4j.configuration=file:{cache}/log4j-{role}.properties"]


def dump_classes():
    """Compiles the class of `kafka dump` if its source has changed, and returns the classpath."""
    out = CACHE / "dump"
    compiled, text = out / DUMP_SOURCE.name, DUMP_SOURCE.read_text()
    if not compiled.exists() or compiled.read_text() != text:
        out.mkdir(parents=True, exist_ok=True)
        subprocess.run([java("javac"), "-cp", classpath(), "-d", str(out), str(DUMP_SOURCE)], check=True)
        compiled.write_text(text)  # written last, so that a failed compilation is repeated
    return f"{classpath()}{os.pathsep}{out}"  # an archive of classes needs its own classpath first
