/* A stand-in for libnvidia-ml.so.1, so that the real pynvml can be asked without a GPU.
 *
 * FAKE_NVML names a file of lines "key value"; a key may be meant for one GPU: "3.error 15".
 * Lines that begin with '#' are comments. Numbers are NVML's own. The structs are declared
 * here and held against pynvml's by a test, so no header of NVIDIA's is needed.
 *
 *   init_error E             nvmlInitWithFlags fails with E
 *   driver, cuda             580.65.06, 13000
 *   count N                  GPUs
 *   name, uuid               of the GPU
 *   handle_error E           no handle for the GPU
 *   error E                  every question about the GPU fails with E
 *   late_error E             only questions after the first few do
 *   mem_total_mib, mem_reserved_mib, mem_used_mib, no_memory 1
 *   cc 90, ecc, mig, persistence (-1: not supported), power_mw
 *   power_usual_mw           the limit the card is sold with
 *   pcie_gen, pcie_gen_max, pcie_gen_card, pcie_width, pcie_width_max
 *   nvlinks N                links of the GPU; 0: not supported
 *   nvlink_down_L 1          link L is down
 *   nvlink_to_L I            link L leads to GPU I; without it, to a switch
 *   level_I L                topology level from this GPU to GPU I
 *   p2p_I S, read_I S        peer status from this GPU to GPU I: over NVLink, and to read
 *   procs N, proc_pid, proc_mib, proc_name, procs_error E
 *   recovery A (-1: unknown field), rows_pending 1, rows_failed 1, ecc_errors N
 *   fabric S, fabric_status E (0: no NVSwitch; 3: up), clock_reasons BITS
 *
 * -DOLD_DRIVER leaves out what drivers before R450 do not export.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))
enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };

typedef struct { char busIdLegacy[16]; unsigned domain, bus, device, pciDeviceId, pciSubSystemId; char busId[32]; } PciInfo;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory_v2;
typedef struct { unsigned pid; unsigned long long usedGpuMemory; unsigned gpuInstanceId, computeInstanceId; } ProcessInfo;
typedef struct device *Device;

typedef struct { unsigned fieldId, scopeId; long long timestamp, latencyUsec; unsigned valueType; int nvmlReturn; union { double d; unsigned ui; unsigned long long ull; } value; } FieldValue;
typedef struct { unsigned version; unsigned char clusterUuid[16]; int status; unsigned cliqueId, state, healthMask; } FabricInfo;

/* pynvml's structs must have these sizes: PciInfo, Memory, Memory_v2, ProcessInfo, FieldValue, FabricInfo. */
API const unsigned stub_sizes[6] = { sizeof(PciInfo), sizeof(Memory), sizeof(Memory_v2), sizeof(ProcessInfo), sizeof(FieldValue), sizeof(FabricInfo) };

static char keys[512][64], values[512][128];
static int lines = -1;

static void load(void) {
  char line[256];
  const char *path = getenv("FAKE_NVML");
  if (path == NULL) path = "/etc/fake-nvml.conf"; /* a host has no variable for everybody */
  FILE *file = path ? fopen(path, "r") : NULL;
  lines = 0;
  if (!file) return;
  while (lines < 512 && fgets(line, sizeof line, file))
    if (line[0] != '#' && sscanf(line, "%63s %127[^\n]", keys[lines], values[lines]) == 2) lines++;
  fclose(file);
}

static const char *text(int gpu, const char *key, const char *otherwise) {
  char own[80];
  if (lines < 0) load();
  snprintf(own, sizeof own, "%d.%s", gpu, key);
  for (int i = lines - 1; i >= 0; i--) if (!strcmp(keys[i], own)) return values[i];
  for (int i = lines - 1; i >= 0; i--) if (!strcmp(keys[i], key)) return values[i];
  return otherwise;
}

static long long number(int gpu, const char *key, long long otherwise) {
  const char *found = text(gpu, key, NULL);
  return found ? atoll(found) : otherwise;
}

static long long numbered(int gpu, const char *key, int at, long long otherwise) {
  char name[48];
  snprintf(name, sizeof name, "%s_%d", key, at);
  return number(gpu, name, otherwise);
}

static int index_of(Device device) { return (int)(long)device - 1; }

static int failure(Device device, int late) {
  int error = number(index_of(device), "error", 0);
  return error ? error : late ? number(index_of(device), "late_error", 0) : 0;
}
#define ANSWER(device) do { int e = failure(device, 0); if (e) return e; } while (0)
#define ANSWER_LATE(device) do { int e = failure(device, 1); if (e) return e; } while (0)

API int nvmlInitWithFlags(unsigned flags) { (void)flags; load(); return number(-1, "init_error", 0); }
API int nvmlShutdown(void) { return SUCCESS; }

API const char *nvmlErrorString(int error) {
  switch (error) {
    case 0: return "Success";
    case 2: return "Invalid Argument";
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case 13: return "Function Not Found";
    case 15: return "GPU is lost";
    case 16: return "GPU requires reset";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
  }
}

API int nvmlSystemGetDriverVersion(char *out, unsigned size) { snprintf(out, size, "%s", text(-1, "driver", "580.65.06")); return SUCCESS; }
API int nvmlSystemGetCudaDriverVersion_v2(int *out) { *out = number(-1, "cuda", 13000); return SUCCESS; }
API int nvmlSystemGetProcessName(unsigned pid, char *out, unsigned size) {
  const char *name = text(-1, "proc_name", NULL);
  (void)pid;
  if (!name) return 6; /* not found */
  snprintf(out, size, "%s", name);
  return SUCCESS;
}

API int nvmlDeviceGetCount_v2(unsigned *out) { *out = number(-1, "count", 1); return SUCCESS; }
API int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *out) {
  if (index >= number(-1, "count", 1)) return INVALID_ARGUMENT;
  *out = (Device)(long)(index + 1);
  return number(index, "handle_error", 0);
}
API int nvmlDeviceGetName(Device device, char *out, unsigned size) { ANSWER(device); snprintf(out, size, "%s", text(index_of(device), "name", "NVIDIA H200")); return SUCCESS; }
API int nvmlDeviceGetUUID(Device device, char *out, unsigned size) {
  const char *uuid = text(index_of(device), "uuid", NULL);
  ANSWER(device);
  if (uuid) snprintf(out, size, "%s", uuid);
  else snprintf(out, size, "GPU-%08x-0000-0000-0000-%012x", 0xfa4e0000u + index_of(device), index_of(device));
  return SUCCESS;
}

static void place(int gpu, PciInfo *out) {
  memset(out, 0, sizeof *out);
  out->bus = 0x10 + gpu * 0x10;
  out->pciDeviceId = 0x233510de;
  snprintf(out->busId, sizeof out->busId, "00000000:%02X:00.0", out->bus);
  snprintf(out->busIdLegacy, sizeof out->busIdLegacy, "0000:%02X:00.0", out->bus);
}
API int nvmlDeviceGetPciInfo_v3(Device device, PciInfo *out) { ANSWER(device); place(index_of(device), out); return SUCCESS; }

API int nvmlDeviceGetMemoryInfo(Device device, Memory *out) {
  int gpu = index_of(device);
  ANSWER_LATE(device);
  if (number(gpu, "no_memory", 0)) return NOT_SUPPORTED;
  out->total = number(gpu, "mem_total_mib", 143771) << 20;
  out->used = (number(gpu, "mem_used_mib", 0) + number(gpu, "mem_reserved_mib", 600)) << 20;
  out->free = out->total - out->used;
  return SUCCESS;
}
#ifndef OLD_DRIVER
API int nvmlDeviceGetMemoryInfo_v2(Device device, Memory_v2 *out) {
  int gpu = index_of(device);
  ANSWER_LATE(device);
  if (out->version != (sizeof *out | 2u << 24)) return 25; /* argument version mismatch */
  if (number(gpu, "no_memory", 0)) return NOT_SUPPORTED;
  out->total = number(gpu, "mem_total_mib", 143771) << 20;
  out->reserved = number(gpu, "mem_reserved_mib", 600) << 20;
  out->used = number(gpu, "mem_used_mib", 0) << 20;
  out->free = out->total - out->used - out->reserved;
  return SUCCESS;
}
API int nvmlDeviceGetMigMode(Device device, unsigned *now, unsigned *pending) {
  ANSWER_LATE(device);
  if (number(index_of(device), "mig", 0) < 0) return NOT_SUPPORTED;
  *now = *pending = number(index_of(device), "mig", 0);
  return SUCCESS;
}
#endif
API int nvmlDeviceGetCudaComputeCapability(Device device, int *major, int *minor) {
  int cc = number(index_of(device), "cc", 90);
  ANSWER_LATE(device);
  *major = cc / 10;
  *minor = cc % 10;
  return SUCCESS;
}
API int nvmlDeviceGetEccMode(Device device, unsigned *now, unsigned *pending) {
  ANSWER_LATE(device);
  if (number(index_of(device), "ecc", 1) < 0) return NOT_SUPPORTED;
  *now = *pending = number(index_of(device), "ecc", 1);
  return SUCCESS;
}
API int nvmlDeviceGetPersistenceMode(Device device, unsigned *out) { ANSWER_LATE(device); *out = number(index_of(device), "persistence", 1); return SUCCESS; }
API int nvmlDeviceGetEnforcedPowerLimit(Device device, unsigned *out) { ANSWER_LATE(device); *out = number(index_of(device), "power_mw", 700000); return SUCCESS; }
API int nvmlDeviceGetMaxClockInfo(Device device, unsigned kind, unsigned *out) {
  ANSWER_LATE(device);
  *out = kind == 2 ? number(index_of(device), "mem_clock", 3201) : 1980;
  return SUCCESS;
}
API int nvmlDeviceGetMemoryBusWidth(Device device, unsigned *out) { ANSWER_LATE(device); *out = number(index_of(device), "bus_width", 6144); return SUCCESS; }
API int nvmlDeviceGetPowerManagementDefaultLimit(Device device, unsigned *out) { ANSWER_LATE(device); *out = number(index_of(device), "power_usual_mw", 700000); return SUCCESS; }
API int nvmlDeviceGetGpuMaxPcieLinkGeneration(Device device, unsigned *out) { ANSWER_LATE(device); *out = number(index_of(device), "pcie_gen_card", 5); return SUCCESS; }
API int nvmlDeviceGetCurrPcieLinkGeneration(Device device, unsigned *out) { ANSWER_LATE(device); *out = number(index_of(device), "pcie_gen", 5); return SUCCESS; }
API int nvmlDeviceGetMaxPcieLinkGeneration(Device device, unsigned *out) { ANSWER_LATE(device); *out = number(index_of(device), "pcie_gen_max", 5); return SUCCESS; }
API int nvmlDeviceGetCurrPcieLinkWidth(Device device, unsigned *out) { ANSWER_LATE(device); *out = number(index_of(device), "pcie_width", 16); return SUCCESS; }
API int nvmlDeviceGetMaxPcieLinkWidth(Device device, unsigned *out) { ANSWER_LATE(device); *out = number(index_of(device), "pcie_width_max", 16); return SUCCESS; }

API int nvmlDeviceGetFieldValues(Device device, int count, FieldValue *values) {
  int gpu = index_of(device);
  ANSWER_LATE(device);
  for (int i = 0; i < count; i++) {
    int known = values[i].fieldId == 230 && number(gpu, "recovery", 0) >= 0;
    values[i].nvmlReturn = known ? SUCCESS : INVALID_ARGUMENT;
    values[i].valueType = 1; /* unsigned int */
    values[i].value.ui = known ? number(gpu, "recovery", 0) : 0;
  }
  return SUCCESS;
}
#ifndef OLD_DRIVER
API int nvmlDeviceGetRemappedRows(Device device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
  int gpu = index_of(device);
  ANSWER_LATE(device);
  *pending = number(gpu, "rows_pending", 0);
  *failed = number(gpu, "rows_failed", 0);
  *corrected = 0;
  *uncorrected = *pending || *failed;
  return SUCCESS;
}
API int nvmlDeviceGetGpuFabricInfoV(Device device, FabricInfo *out) {
  int on_switch = number(index_of(device), "nvlinks", 18) && numbered(index_of(device), "nvlink_to", 0, -1) < 0;
  ANSWER_LATE(device);
  if (out->version != (sizeof *out | 2u << 24)) return 25; /* argument version mismatch */
  out->state = number(index_of(device), "fabric", on_switch ? 3 : 0);
  out->status = number(index_of(device), "fabric_status", 0);
  return SUCCESS;
}
API int nvmlDeviceGetCurrentClocksEventReasons(Device device, unsigned long long *out) { ANSWER_LATE(device); *out = number(index_of(device), "clock_reasons", 1); return SUCCESS; }
#endif
API int nvmlDeviceGetTotalEccErrors(Device device, unsigned kind, unsigned counter, unsigned long long *out) {
  ANSWER_LATE(device);
  if (number(index_of(device), "ecc", 1) < 1) return NOT_SUPPORTED;
  *out = kind == 1 && counter == 0 ? number(index_of(device), "ecc_errors", 0) : 0;
  return SUCCESS;
}

API int nvmlDeviceGetNvLinkState(Device device, unsigned link, unsigned *out) {
  unsigned links = number(index_of(device), "nvlinks", 18);
  ANSWER_LATE(device);
  if (!links) return NOT_SUPPORTED;
  if (link >= links) return INVALID_ARGUMENT;
  *out = !numbered(index_of(device), "nvlink_down", link, 0);
  return SUCCESS;
}
API int nvmlDeviceGetNvLinkRemotePciInfo_v2(Device device, unsigned link, PciInfo *out) {
  int peer = numbered(index_of(device), "nvlink_to", link, -1);
  ANSWER_LATE(device);
  place(peer < 0 ? 200 : peer, out); /* 200: the switch */
  return SUCCESS;
}
#ifndef OLD_DRIVER
API int nvmlDeviceGetNvLinkRemoteDeviceType(Device device, unsigned link, unsigned *out) {
  ANSWER_LATE(device);
  *out = numbered(index_of(device), "nvlink_to", link, -1) < 0 ? 2 : 0; /* a switch, a GPU */
  return SUCCESS;
}
#endif
API int nvmlDeviceGetTopologyCommonAncestor(Device a, Device b, unsigned *out) {
  ANSWER_LATE(a);
  ANSWER_LATE(b);
  *out = numbered(index_of(a), "level", index_of(b), index_of(a) / 4 == index_of(b) / 4 ? 40 : 50);
  return SUCCESS;
}
API int nvmlDeviceGetP2PStatus(Device a, Device b, unsigned capability, unsigned *out) {
  ANSWER_LATE(a);
  ANSWER_LATE(b);
  if (capability == 0) { /* NVML_P2P_CAPS_INDEX_READ */
    *out = numbered(index_of(a), "read", index_of(b), 0);
    return SUCCESS;
  }
  if (capability != 2) return INVALID_ARGUMENT; /* NVML_P2P_CAPS_INDEX_NVLINK */
  *out = numbered(index_of(a), "p2p", index_of(b), number(index_of(a), "nvlinks", 18) ? 0 : 5);
  return SUCCESS;
}

#ifndef OLD_DRIVER
API int nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned *count, ProcessInfo *out) {
  int gpu = index_of(device);
  unsigned running = number(gpu, "procs", 0), room = *count;
  ANSWER_LATE(device);
  if (number(gpu, "procs_error", 0)) return number(gpu, "procs_error", 0);
  *count = running;
  if (room < running || (running && !out)) return INSUFFICIENT_SIZE;
  for (unsigned i = 0; i < running; i++) {
    memset(&out[i], 0, sizeof out[i]);
    out[i].pid = number(gpu, "proc_pid", 4242) + i;
    out[i].usedGpuMemory = number(gpu, "proc_mib", 1000) < 0 ? -1ull : (unsigned long long)number(gpu, "proc_mib", 1000) << 20;
    out[i].gpuInstanceId = out[i].computeInstanceId = 0xFFFFFFFF;
  }
  return SUCCESS;
}
API int nvmlDeviceGetGraphicsRunningProcesses_v3(Device device, unsigned *count, ProcessInfo *out) {
  (void)out;
  ANSWER_LATE(device);
  *count = 0;
  return number(index_of(device), "procs_error", 0);
}
#endif
