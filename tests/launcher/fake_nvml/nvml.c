/* A stand-in for NVIDIA's management library that answers from a text file beside it.
 *
 * Each line of "nvml.txt" is KEY=VALUE; a key names a device and a fact, such as gpu.0.name. A value of the form !N makes
 * the call fail with NVML's error N; @hang never returns, @crash ends the process. A fact that is missing is
 * NVML_ERROR_NOT_SUPPORTED, as on real boards. Layouts are those of nvml.h of driver 580.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, UNKNOWN = 999 };
enum { MAX_LINES = 4096, MAX_DEVICES = 256 };

typedef struct { char prefix[32]; } device_t;

static struct { char *key, *value; } facts[MAX_LINES];
static int fact_count = -1;
static device_t devices[MAX_DEVICES];
static int device_count;

static int load(void)
{
    Dl_info here;
    char path[4096], line[8192];
    if (fact_count >= 0)
        return SUCCESS;
    if (!dladdr((void *)load, &here) || !strrchr(here.dli_fname, '/'))
        return UNKNOWN;
    snprintf(path, sizeof path, "%s", here.dli_fname);
    snprintf(strrchr(path, '/'), 16, "/nvml.txt");
    FILE *file = fopen(path, "r");
    if (!file)
        return UNKNOWN;
    for (fact_count = 0; fact_count < MAX_LINES && fgets(line, sizeof line, file);) {
        char *equals = strchr(line, '=');
        line[strcspn(line, "\n")] = 0;
        if (!equals)
            continue;
        *equals = 0;
        facts[fact_count].key = strdup(line);
        facts[fact_count++].value = strdup(equals + 1);
    }
    fclose(file);
    return SUCCESS;
}

/* Find a fact; the return value is NVML's. */
static int ask(const char *prefix, const char *name, const char **value)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", prefix, name);
    for (int i = 0; i < fact_count; i++) {
        if (strcmp(facts[i].key, key))
            continue;
        *value = facts[i].value;
        if (!strcmp(*value, "@hang"))
            for (;;)
                pause();
        if (!strcmp(*value, "@crash"))
            abort();
        return **value == '!' ? atoi(*value + 1) : SUCCESS;
    }
    return NOT_SUPPORTED;
}

static int ask_text(const char *prefix, const char *name, char *text, unsigned size)
{
    const char *value;
    int status = ask(prefix, name, &value);
    if (status)
        return status;
    if (strlen(value) >= size)
        return INSUFFICIENT_SIZE;
    strcpy(text, value);
    return SUCCESS;
}

/* Read up to four numbers, decimal or with 0x. */
static int ask_numbers(const char *prefix, const char *name, unsigned long long *numbers, int count)
{
    const char *value;
    int status = ask(prefix, name, &value);
    for (int i = 0; !status && i < count; i++)
        numbers[i] = strtoull(value, (char **)&value, 0);
    return status;
}

static int ask_unsigned(const device_t *device, const char *name, unsigned *number)
{
    unsigned long long found;
    int status = ask_numbers(device->prefix, name, &found, 1);
    if (!status)
        *number = (unsigned)found;
    return status;
}

static device_t *device_of(const char *prefix)
{
    for (int i = 0; i < device_count; i++)
        if (!strcmp(devices[i].prefix, prefix))
            return &devices[i];
    if (device_count == MAX_DEVICES)
        abort();
    snprintf(devices[device_count].prefix, sizeof devices[0].prefix, "%s", prefix);
    return &devices[device_count++];
}

const char *nvmlErrorString(int status)
{
    (void)status;
    return "an error of the stand-in";
}

int nvmlInitWithFlags(unsigned flags)
{
    const char *value;
    (void)flags;
    int status = load();
    if (status)
        return status;
    status = ask("system", "init", &value);
    return status == NOT_SUPPORTED ? SUCCESS : status;
}

int nvmlShutdown(void) { return SUCCESS; }

int nvmlSystemGetDriverVersion(char *text, unsigned size) { return ask_text("system", "driver", text, size); }

static int cuda_version(const char *name, int *version)
{
    unsigned long long found;
    int status = ask_numbers("system", name, &found, 1);
    if (!status)
        *version = (int)found;
    return status;
}

int nvmlSystemGetCudaDriverVersion(int *version) { return cuda_version("cuda", version); }

/* The real one loads libcuda.so.1 and asks it. */
int nvmlSystemGetCudaDriverVersion_v2(int *version) { return cuda_version("cuda_library", version); }

int nvmlDeviceGetCount_v2(unsigned *count)
{
    unsigned long long found;
    int status = ask_numbers("system", "count", &found, 1);
    if (!status)
        *count = (unsigned)found;
    return status;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t **device)
{
    char prefix[32];
    const char *value;
    snprintf(prefix, sizeof prefix, "gpu.%u", index);
    int status = ask(prefix, "handle", &value);
    if (status && status != NOT_SUPPORTED)
        return status;
    *device = device_of(prefix);
    return SUCCESS;
}

int nvmlDeviceGetName(device_t *device, char *text, unsigned size) { return ask_text(device->prefix, "name", text, size); }

int nvmlDeviceGetUUID(device_t *device, char *text, unsigned size) { return ask_text(device->prefix, "uuid", text, size); }

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} pci_t;

int nvmlDeviceGetPciInfo_v3(device_t *device, pci_t *pci)
{
    memset(pci, 0, sizeof *pci);
    return ask_unsigned(device, "pci", &pci->pci_device_id);
}

int nvmlDeviceGetCudaComputeCapability(device_t *device, int *major, int *minor)
{
    unsigned long long numbers[2];
    int status = ask_numbers(device->prefix, "capability", numbers, 2);
    if (!status) {
        *major = (int)numbers[0];
        *minor = (int)numbers[1];
    }
    return status;
}

int nvmlDeviceGetMemoryInfo(device_t *device, unsigned long long *total_free_used)
{
    unsigned long long numbers[2];
    int status = ask_numbers(device->prefix, "memory", numbers, 2);
    if (!status) {
        total_free_used[0] = numbers[0];
        total_free_used[1] = numbers[1];
        total_free_used[2] = numbers[0] - numbers[1];
    }
    return status;
}

int nvmlDeviceGetComputeMode(device_t *device, unsigned *mode) { return ask_unsigned(device, "compute_mode", mode); }

int nvmlDeviceGetVirtualizationMode(device_t *device, unsigned *mode)
{
    return ask_unsigned(device, "virtualization", mode);
}

int nvmlDeviceGetMigMode(device_t *device, unsigned *current, unsigned *pending)
{
    int status = ask_unsigned(device, "mig_mode", current);
    *pending = *current;
    return status;
}

int nvmlDeviceGetMaxMigDeviceCount(device_t *device, unsigned *count) { return ask_unsigned(device, "mig_places", count); }

/* Slices need not lie side by side: places between them are empty. */
int nvmlDeviceGetMigDeviceHandleByIndex(device_t *device, unsigned index, device_t **part)
{
    char prefix[64];
    const char *value;
    snprintf(prefix, sizeof prefix, "%s.mig.%u", device->prefix, index);
    if (ask(prefix, "uuid", &value))
        return NOT_FOUND;
    *part = device_of(prefix);
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(device_t *part, unsigned *number) { return ask_unsigned(part, "gpu_instance", number); }

int nvmlDeviceGetComputeInstanceId(device_t *part, unsigned *number)
{
    return ask_unsigned(part, "compute_instance", number);
}

typedef struct {
    unsigned multiprocessors, copy_engines, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices;
    unsigned long long memory_mib;
} attributes_t;

int nvmlDeviceGetAttributes_v2(device_t *part, attributes_t *attributes)
{
    unsigned long long numbers[3];
    int status = ask_numbers(part->prefix, "attributes", numbers, 3);
    memset(attributes, 0, sizeof *attributes);
    if (!status) {
        attributes->gpu_slices = (unsigned)numbers[0];
        attributes->compute_slices = (unsigned)numbers[1];
        attributes->memory_mib = numbers[2];
    }
    return status;
}

#ifndef OLD_DRIVER
typedef struct {
    unsigned pid;
    unsigned long long memory;
    unsigned gpu_instance, compute_instance;
} process_t;

/* A list of processes is written PID MEMORY PID MEMORY ...; a memory of "-" is not available. */
static int processes(device_t *device, const char *name, unsigned *count, process_t *found)
{
    const char *value;
    unsigned number = 0;
    int status = ask(device->prefix, name, &value);
    if (status)
        return status;
    for (char *rest; *value; value = rest + strspn(rest, " ")) {
        process_t one = {(unsigned)strtoul(value, &rest, 10), 0, ~0U, ~0U};
        rest += strspn(rest, " ");
        if (*rest == '-') {
            one.memory = ~0ULL;
            rest++;
        } else {
            one.memory = strtoull(rest, &rest, 10);
        }
        if (found && number < *count)
            found[number] = one;
        number++;
    }
    status = number > *count ? INSUFFICIENT_SIZE : SUCCESS;
    *count = number;
    return status;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device_t *device, unsigned *count, process_t *found)
{
    return processes(device, "compute_processes", count, found);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(device_t *device, unsigned *count, process_t *found)
{
    return processes(device, "graphics_processes", count, found);
}

int nvmlDeviceGetMPSComputeRunningProcesses_v3(device_t *device, unsigned *count, process_t *found)
{
    return processes(device, "mps_processes", count, found);
}

typedef struct {
    unsigned version;
    unsigned char cluster_uuid[16];
    int status;
    unsigned clique_id;
    unsigned char state;
    unsigned health_mask;
} fabric_t;

int nvmlDeviceGetGpuFabricInfoV(device_t *device, fabric_t *fabric)
{
    unsigned state = 0;
    if (fabric->version != (sizeof(fabric_t) | 2U << 24))
        return INVALID_ARGUMENT;
    int status = ask_unsigned(device, "fabric", &state);
    fabric->state = (unsigned char)state;
    return status;
}
#endif

int nvmlSystemGetProcessName(unsigned pid, char *text, unsigned size)
{
    char name[32];
    snprintf(name, sizeof name, "%u", pid);
    int status = ask_text("process", name, text, size);
    return status == NOT_SUPPORTED ? NOT_FOUND : status;
}

/* "peers" lists the indices that are reached by NVLink. */
int nvmlDeviceGetP2PStatus(device_t *one, device_t *other, int kind, unsigned *p2p)
{
    const char *value;
    enum { NVLINK = 2, OK = 0, NO = 5 };
    int status = ask(one->prefix, "peers", &value);
    if (kind != NVLINK)
        return INVALID_ARGUMENT;
    *p2p = NO;
    if (status)
        return status == NOT_SUPPORTED ? SUCCESS : status;
    for (char *rest; *value; value = rest) {
        if (atoi(other->prefix + 4) == (int)strtol(value, &rest, 10))
            *p2p = OK;
        if (rest == value)
            break;
    }
    return SUCCESS;
}
