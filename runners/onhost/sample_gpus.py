"""NVIDIA's GPUs, for sample_host.py: those that answer, and those that are asked again from time to time.

Standard library only, and any Python from 3.6 on.
"""

_MIB = 1024.0 * 1024.0
_NOT_THROTTLING = 0x1 | 0x2
"""Of NVML's reasons why clocks are not at their highest: nothing to do, and clocks that somebody has set."""
_LOST = ("GPU_IS_LOST", "RESET_REQUIRED", "GPU_NOT_FOUND")
_SILENT_AFTER = 3
"""So many samples without any figure, for whatever reason, and a GPU is lost as well: its driver may be gone."""
_AGAIN_S, _AGAIN_AT_MOST_S = 5, 300
"""A lost GPU is looked for after so long, then after twice as long, and so on: each look may take the driver long."""


class Gpus:
    """All that this machine may use, by their indexes. One that is lost takes no other away."""

    def __init__(self, nvml):
        """Raises NVML's error if the driver cannot be asked."""
        self._nvml = nvml
        nvml.nvmlInit()
        self._there, self._away = {}, {}
        self._lost, self._returned = [], False
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                self._there[index] = Gpu(nvml, index)
            except nvml.NVMLError as error:
                # One that belongs to others is counted as well.
                if error.value != nvml.NVML_ERROR_NO_PERMISSION:
                    self._missed(index, "", str(error), 0)

    def facts(self):
        return [gpu.facts for _, gpu in sorted(self._there.items())]

    def lost(self):
        """The lines that tell of those that were lost since this was asked."""
        told, self._lost = self._lost, []
        return told

    def returned(self):
        """Whether one came back since this was asked."""
        returned, self._returned = self._returned, False
        return returned

    def sample(self, number):
        """Pairs of an index and what the GPU says. `number`: the second."""
        found = []
        for index, gpu in list(self._there.items()):
            said = gpu.sample()
            if gpu.lost:
                del self._there[index]
                self._missed(index, gpu.uuid, gpu.lost, number)
            else:
                found.append((index, said))
        for index, away in list(self._away.items()):
            if not away.due:
                away.due = number + away.wait_s
            elif number >= away.due:
                found += self._sought(index, away, number)
        return sorted(found, key=lambda one: one[0])

    def _missed(self, index, uuid, why, number):
        self._away[index] = _Away(uuid, number + _AGAIN_S if number else 0)
        self._lost.append({"lost": index, "uuid": uuid, "why": why})

    def _sought(self, index, away, number):
        away.wait_s = min(_AGAIN_AT_MOST_S, 2 * away.wait_s)
        away.due = number + away.wait_s
        try:
            if not self._there:  # a driver that was loaded anew knows nothing of what was asked before
                _try(self._nvml.nvmlShutdown)
                self._nvml.nvmlInit()
            gpu = Gpu(self._nvml, index, away.uuid)
            said = gpu.sample()
        except Exception:
            return []
        if gpu.lost or not said:
            return []
        del self._away[index]
        self._there[index], self._returned = gpu, True
        return [(index, said)]


class _Away:
    def __init__(self, uuid, due):
        self.uuid, self.due, self.wait_s = uuid, due, _AGAIN_S


class Gpu:
    """One GPU. What it does not support it is not asked again."""

    def __init__(self, nvml, index, uuid=""):
        """`uuid`: whose index this was. Raises NVML's error."""
        self.index, self.lost = index, ""
        self._nvml, self._silent = nvml, 0
        by_uuid = _try(nvml.nvmlDeviceGetHandleByUUID, uuid.encode()) if uuid else None
        self._handle = by_uuid or nvml.nvmlDeviceGetHandleByIndex(index)
        self.uuid = _string(nvml.nvmlDeviceGetUUID(self._handle))
        memory = _try(nvml.nvmlDeviceGetMemoryInfo, self._handle)
        limit = _try(nvml.nvmlDeviceGetEnforcedPowerLimit, self._handle)
        self.facts = {
            "index": index,
            "uuid": self.uuid,
            "name": _string(_try(nvml.nvmlDeviceGetName, self._handle) or ""),
            "memory_total_mib": int(memory.total / _MIB) if memory else None,
            "power_limit_w": round(limit / 1000.0, 1) if limit else None,
        }
        reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
        self._reads = [
            self._utilization,
            self._memory,
            lambda: {"power_w": round(nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000.0, 1)},
            lambda: {"energy_j": nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) // 1000},
            lambda: {"temperature_c": nvml.nvmlDeviceGetTemperature(self._handle, nvml.NVML_TEMPERATURE_GPU)},
            lambda: {"sm_mhz": nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_SM)},
            lambda: {"memory_mhz": nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_MEM)},
            lambda: {
                "throttle": (reasons or nvml.nvmlDeviceGetCurrentClocksThrottleReasons)(self._handle) & ~_NOT_THROTTLING
            },
        ]

    def sample(self):
        """What it says. It is gone if there is a reason in `lost` then."""
        found, trouble = {}, ""
        for read in list(self._reads):
            try:
                found.update(read())
            except Exception as error:
                codes = [getattr(self._nvml, "NVML_ERROR_" + name, None) for name in _LOST]
                code = getattr(error, "value", None)
                if code in (self._nvml.NVML_ERROR_NOT_SUPPORTED, self._nvml.NVML_ERROR_FUNCTION_NOT_FOUND):
                    self._reads.remove(read)
                    continue
                trouble = str(error) or type(error).__name__
                if code is not None and code in codes:
                    self.lost = trouble
                    return found
        self._silent = self._silent + 1 if trouble and not found else 0
        if self._silent >= _SILENT_AFTER:
            self.lost = trouble
        return found

    def _utilization(self):
        rates = self._nvml.nvmlDeviceGetUtilizationRates(self._handle)
        return {"utilization": rates.gpu, "memory_utilization": rates.memory}

    def _memory(self):
        return {"memory_used_mib": int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used / _MIB)}


def _string(value):
    return value.decode() if isinstance(value, bytes) else value


def _try(read, *arguments):
    """What it gives; None if it fails."""
    try:
        return read(*arguments)
    except Exception:
        return None
