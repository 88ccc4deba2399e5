/* A double of NVIDIA's management library: GPUs that work, whose values change with each call.
 *
 * NVML_GPUS: how many there are. NVML_FAULTS: a file that is looked at with each call; a line "lost 1" makes GPU 1
 * fall off the bus, "foreign 1" belong to others, "unloaded" takes the driver away, "no-energy" the counter of energy,
 * "stuck" makes each call last ten seconds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };

typedef struct { unsigned int gpu, memory; } Utilization;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { int index; unsigned long long calls, energy_mj; } Device;

static Device devices[8];

static int count(void) {
    const char *said = getenv("NVML_GPUS");
    int number = said ? atoi(said) : 1;
    return number < 0 ? 0 : number > 8 ? 8 : number;
}

static int faulty(const char *what) {
    const char *path = getenv("NVML_FAULTS");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[64];
    int found = 0;
    if (!file) return 0;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (!strcmp(line, what)) found = 1;
    }
    fclose(file);
    return found;
}

static int initialised = 0;

static int state_of(Device *device) {
    char lost[16], foreign[16];
    snprintf(lost, sizeof lost, "lost %d", device->index);
    snprintf(foreign, sizeof foreign, "foreign %d", device->index);
    if (faulty("stuck")) sleep(10);
    if (faulty("unloaded")) initialised = 0; /* what was asked for before is of no use after that */
    if (!initialised) return DRIVER_NOT_LOADED;
    return faulty(foreign) ? NO_PERMISSION : faulty(lost) ? GPU_IS_LOST : SUCCESS;
}

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    if (faulty("unloaded")) return DRIVER_NOT_LOADED;
    initialised = 1;
    return SUCCESS;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned int *number) { *number = (unsigned int)count(); return SUCCESS; }

const char *nvmlErrorString(int code) {
    if (code == DRIVER_NOT_LOADED) return "Driver Not Loaded";
    return code == GPU_IS_LOST ? "GPU is lost" : code == NOT_SUPPORTED ? "Not Supported" : "Unknown Error";
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Device **device) {
    if ((int)index >= count()) return INVALID_ARGUMENT;
    devices[index].index = (int)index;
    *device = &devices[index];
    return state_of(*device);
}

int nvmlDeviceGetUUID(Device *device, char *uuid, unsigned int length) {
    snprintf(uuid, length, "GPU-d0b1e000-0000-0000-0000-00000000000%d", device->index);
    return SUCCESS;
}

int nvmlDeviceGetName(Device *device, char *name, unsigned int length) {
    (void)device;
    snprintf(name, length, "Double A100-SXM4-80GB");
    return SUCCESS;
}

int nvmlDeviceGetEnforcedPowerLimit(Device *device, unsigned int *milliwatts) {
    *milliwatts = 400000;
    return state_of(device);
}

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    memory->total = 80ULL << 30;
    memory->used = (unsigned long long)(device->index + 1) << 30;
    memory->free = memory->total - memory->used;
    return state_of(device);
}

int nvmlDeviceGetUtilizationRates(Device *device, Utilization *rates) {
    rates->gpu = (unsigned int)(90 + device->calls++ % 10);
    rates->memory = 40;
    return state_of(device);
}

int nvmlDeviceGetPowerUsage(Device *device, unsigned int *milliwatts) {
    *milliwatts = 300000;
    return state_of(device);
}

int nvmlDeviceGetTotalEnergyConsumption(Device *device, unsigned long long *millijoules) {
    if (faulty("no-energy")) return NOT_SUPPORTED;
    *millijoules = device->energy_mj += 300000;
    return state_of(device);
}

int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned int *celsius) {
    (void)sensor;
    *celsius = (unsigned int)(60 + device->calls % 5);
    return state_of(device);
}

int nvmlDeviceGetClockInfo(Device *device, int kind, unsigned int *mhz) {
    *mhz = kind == 1 ? 1410 : 1593;
    return state_of(device);
}

int nvmlDeviceGetCurrentClocksEventReasons(Device *device, unsigned long long *reasons) {
    *reasons = device->calls % 2 ? 0x4 : 0x1; /* at the limit of its power, or idle */
    return state_of(device);
}
