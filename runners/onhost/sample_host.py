"""Samples its machine once a second: `sample_host.py [GPUS PYNVML]`: sample_gpus.py, and NVIDIA's pynvml.py.

Standard library only, and any Python from 3.6 on. Each line on standard output is one of these:
- {"facts": {...}, "at": T, "fields": [...], "gpu_fields": [...]}: what the machine is, and the order of what follows;
  again when a GPU has come back
- {"lost": INDEX, "at", "uuid", "why"}: a GPU that does not answer, and is in no sample until it does again
- N,T,...: a sample; its number, the clock's seconds, the fields, and `;` before the fields of each GPU, its index
  first. What is empty is as it was in the line before, what is - is unknown.
The number is that of the second, so that it grows across a restart as well. What cannot be read is unknown.
"""

import ctypes
import importlib.util
import json
import os
import socket
import sys
import time

INTERVAL_S = 1.0
_FIELDS = (
    *("cpu", "load_1m", "load_5m", "load_15m", "ram_used_mib", "disk_used_mib", "disk_free_mib"),
    *("disk_read_bytes", "disk_written_bytes", "net_received_bytes", "net_sent_bytes", "cpu_energy_j"),
)
_GPU_FIELDS = (
    *("utilization", "memory_utilization", "memory_used_mib", "power_w", "energy_j", "temperature_c"),
    *("sm_mhz", "memory_mhz", "throttle"),
)
_MIB = 1024.0 * 1024.0
_SECTOR = 512
_SLOW_EVERY = 10
"""What changes slowly, or says a mean over minutes, is looked at every so many samples."""
_NOT_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd")
_NOT_LINKS = ("lo", "veth", "docker", "br-", "virbr", "ifb", "dummy")
_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)
_POWERCAP = "/sys/class/powercap"


def main(arguments):
    """Sample until a signal ends this, or nobody can hear it any more."""
    machine, lines = Machine(), Lines()
    gpus, trouble = _gpus(*arguments)
    began, first = time.time(), clock()

    def now():
        """On the clock as it was when this began: somebody may set it meanwhile, and the run has its own."""
        return round(began + clock() - first, 3)

    lines.facts(machine, gpus, trouble, now())
    begin = number = int(began)
    while True:
        # What comes late leaves numbers out, and moves nothing.
        number = max(number, begin + int((clock() - first) / INTERVAL_S))
        sample = machine.sample((number - begin) % _SLOW_EVERY == 0)
        at = now()
        there = gpus.sample(number) if gpus else []
        if gpus and gpus.returned():
            lines.facts(machine, gpus, trouble, at)
        for lost in gpus.lost() if gpus else ():
            lines.say({**lost, "at": at})
        lines.sample(number, at, sample, there)
        number += 1
        time.sleep(max(0.0, first + (number - begin) * INTERVAL_S - clock()))


def clock():
    """Seconds that only grow, and do so while the machine sleeps as well, where it can tell that."""
    return time.clock_gettime(_CLOCK) if _CLOCK is not None else time.monotonic()


class Lines:
    """Writes lines, each in one piece, with what has changed since the one before."""

    def __init__(self):
        self._before = {}

    def say(self, what):
        _write(json.dumps(what, separators=(",", ":")))

    def facts(self, machine, gpus, trouble, at):
        self._before = {}
        facts = {**machine.facts(), "gpus": gpus.facts() if gpus else [], "gpus_unknown": trouble}
        self.say({"facts": facts, "at": at, "fields": _FIELDS, "gpu_fields": _GPU_FIELDS})

    def sample(self, number, at, values, gpus):
        parts = ["%d,%.3f,%s" % (number, at, self._changed(None, values, _FIELDS))]
        parts += ["%d,%s" % (index, self._changed(index, gpu, _GPU_FIELDS)) for index, gpu in gpus]
        _write(";".join(parts))

    def _changed(self, whose, values, names):
        now = [_text(values.get(name)) for name in names]
        before = self._before.get(whose)
        self._before[whose] = now
        return ",".join(now if before is None else ["" if a == b else a for a, b in zip(now, before)])  # noqa: B905


def _write(text):
    data = (text + "\n").encode()
    while data:
        try:
            data = data[os.write(1, data) :]
        except BrokenPipeError:
            sys.exit(0)
        except OSError:  # a full disk: this line is lost, the next may not be
            return


def _text(value):
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else ("%.4g" % value if abs(value) < 100 else "%.1f" % value)


class Machine:
    """The CPU, the memory, the disk and the links of a machine, or of the container that it is."""

    def __init__(self):
        self._files = {}
        self._cgroup = _Cgroup()
        self._ram_total = self._cgroup.memory_limit() or _total_memory()
        self._cpus = self._cgroup.cpus() or os.cpu_count() or 1
        self._disks = _disks()
        self._busy = self._cpu_seconds(), time.monotonic()
        self._rapl = _Rapl()
        self._slow = {}

    def facts(self):
        disk = _try(os.statvfs, ".")
        return {
            "hostname": socket.gethostname(),
            "cpus": self._cpus,
            "ram_total_mib": int(self._ram_total / _MIB) or None,
            "disk_total_mib": int(disk.f_blocks * disk.f_frsize / _MIB) if disk else None,
        }

    def sample(self, whole):
        if whole:
            self._slow = {**(_try(self._load) or {}), **(_try(self._disk) or {})}
        found = dict(self._slow)
        for part in (self._cpu, self._ram, self._disk_traffic, self._net):
            found.update(_try(part) or {})
        found["cpu_energy_j"] = _try(self._rapl.joules)
        return found

    def _cpu(self):
        before, since = self._busy
        self._busy = now, at = self._cpu_seconds(), time.monotonic()
        if now is None or before is None or at - since < INTERVAL_S / 2:
            return {}
        return {"cpu": round(min(1.0, max(0.0, (now - before) / (at - since) / self._cpus)), 3)}

    def _cpu_seconds(self):
        """Seconds of CPU that were used so far, by everything."""
        own = self._cgroup.cpu_seconds()
        if own is not None:
            return own
        stat = self._read("/proc/stat", 512)
        if not stat:
            return None
        user, nice, system, _, _, irq, softirq = [int(part) for part in stat.split(b"\n", 1)[0].split()[1:8]]
        return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")

    def _load(self):
        return {"load_%dm" % over: round(mean, 2) for over, mean in zip((1, 5, 15), os.getloadavg())}  # noqa: B905

    def _ram(self):
        used = self._cgroup.memory_used()
        if used is None:
            known = self._memory()
            used = known["MemTotal"] - known["MemAvailable"]
        return {"ram_used_mib": int(used / _MIB)}

    def _memory(self):
        found = {}
        for line in (self._read("/proc/meminfo", 256) or b"").splitlines():
            parts = line.split()
            if len(parts) == 3 and parts[0] in (b"MemTotal:", b"MemAvailable:"):
                found[parts[0][:-1].decode()] = int(parts[1]) * 1024
        return found

    def _disk(self):
        disk = os.statvfs(".")
        return {
            "disk_used_mib": int((disk.f_blocks - disk.f_bfree) * disk.f_frsize / _MIB),
            "disk_free_mib": int(disk.f_bavail * disk.f_frsize / _MIB),
        }

    def _disk_traffic(self):
        if not self._disks:
            return {}
        read = written = 0
        for line in self._read("/proc/diskstats", 65536).splitlines():
            parts = line.split(None, 10)
            if parts[2] in self._disks:
                read += int(parts[5])
                written += int(parts[9])
        return {"disk_read_bytes": read * _SECTOR, "disk_written_bytes": written * _SECTOR}

    def _net(self):
        known = self._read("/proc/net/dev", 65536)
        if not known:
            return {}
        received = sent = 0
        for line in known.splitlines()[2:]:
            name, _, counts = line.partition(b":")
            if not name.strip().decode().startswith(_NOT_LINKS):
                parts = counts.split()
                received += int(parts[0])
                sent += int(parts[8])
        return {"net_received_bytes": received, "net_sent_bytes": sent}

    def _read(self, path, most):
        """A file that is read again and again stays open."""
        try:
            if path not in self._files:
                self._files[path] = os.open(path, os.O_RDONLY)
            return os.pread(self._files[path], most, 0)
        except OSError:
            return b""


class _Cgroup:
    """What a container may use, and uses; unknown where there is no limit, because then the machine counts."""

    def __init__(self):
        self._memory = self._cpu = None
        for limit, used, stat, inactive in (
            ("memory.max", "memory.current", "memory.stat", "inactive_file"),
            (
                *("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
                "memory/memory.stat",
                "total_inactive_file",
            ),
        ):
            most = _number(limit)
            if most and most < _total_memory():
                self._memory = most, used, stat, inactive
                break
        quota = (_text_of("cpu.max") or "").split()
        if len(quota) == 2 and quota[0] != "max":
            self._cpu = int(quota[0]) / int(quota[1]), "cpu.stat"
        elif (_number("cpu/cpu.cfs_quota_us") or -1) > 0:
            self._cpu = (
                _number("cpu/cpu.cfs_quota_us") / (_number("cpu/cpu.cfs_period_us") or 100000),
                "cpuacct/cpuacct.usage",
            )

    def memory_limit(self):
        return self._memory[0] if self._memory else None

    def memory_used(self):
        """Without the files that the kernel keeps in memory only until it needs the room."""
        if not self._memory:
            return None
        _, used, stat, inactive = self._memory
        kept = [line.split()[1] for line in (_text_of(stat) or "").splitlines() if line.startswith(inactive + " ")]
        return (_number(used) or 0) - int(kept[0] if kept else 0)

    def cpus(self):
        return self._cpu[0] if self._cpu else None

    def cpu_seconds(self):
        if not self._cpu:
            return None
        if self._cpu[1] == "cpu.stat":
            return int((_text_of("cpu.stat") or "usage_usec 0").split()[1]) / 1e6
        return (_number(self._cpu[1]) or 0) / 1e9


class _Rapl:
    """The energy of the CPU packages since this began; unknown where it may not be read."""

    def __init__(self):
        self._zones = {}
        self._joules = 0.0
        for name in sorted(_try(os.listdir, _POWERCAP) or []):
            path = os.path.join(_POWERCAP, name)
            # intel-rapl:0 is a package; intel-rapl:0:1 is a part of it, and psys holds all packages.
            if (
                name.count(":") == 1
                and name.startswith("intel-rapl:")
                and (_file(path + "/name") or "").startswith("package")
            ):
                most, now = _int(_file(path + "/max_energy_range_uj")), _int(_file(path + "/energy_uj"))
                if now is not None:
                    self._zones[path + "/energy_uj"] = most or 0, now

    def joules(self):
        if not self._zones:
            return None
        for path, (most, before) in list(self._zones.items()):
            now = _int(_file(path))
            if now is not None:
                self._joules += (now - before + (most if now < before else 0)) / 1e6
                self._zones[path] = most, now
        return round(self._joules, 1)


def _gpus(script=None, pynvml=None):
    """NVIDIA's GPUs; None, and perhaps why, where there are none or their driver's library cannot be asked."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")  # before a large module is read for nothing
    except OSError:
        return None, None
    try:
        return _module("sample_gpus", script).Gpus(_module("pynvml", pynvml)), None
    except Exception as error:
        return None, "%s: %s" % (type(error).__name__, error)


def _module(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _disks():
    """The whole disks by their names in /proc/diskstats."""
    return {name.encode() for name in _try(os.listdir, "/sys/block") or [] if not name.startswith(_NOT_DISKS)}


def _total_memory():
    return (_try(os.sysconf, "SC_PHYS_PAGES") or 0) * (_try(os.sysconf, "SC_PAGE_SIZE") or 0)


def _int(text):
    return _try(int, text)


def _number(name):
    return _int(_text_of(name))


def _text_of(name):
    return _file("/sys/fs/cgroup/" + name)


def _file(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except (OSError, ValueError):
        return None


def _try(read, *arguments):
    """What it gives; None if it fails."""
    try:
        return read(*arguments)
    except Exception:
        return None


if __name__ == "__main__":
    main(sys.argv[1:])
