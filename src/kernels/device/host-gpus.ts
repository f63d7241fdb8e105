/**
 * The GPUs of this host, one by one. Dawn tells adapters apart by name alone, so that the second of two equal GPUs is
 * never found. Mesa's device-select layer puts the GPU of a PCI address first instead; it reads the address from the
 * environment when a Vulkan instance is created. Knows files and the environment, not adapters.
 */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import koffi from 'koffi';
import { RoutedExpertsError } from '../../contract/errors.ts';

/** As `0000:00:07.0`. */
export type PciAddress = string;

/** What is looked at, and what is set; a test gives its own. */
export type Host = Readonly<{
  entries: (folder: string) => readonly string[];
  read: (file: string) => string;
  exists: (file: string) => boolean;
  /** `null` takes it away. */
  setEnvironment: (name: string, value: string | null) => void;
}>;

/** `model`: the same for equal GPUs. */
export type HostGpu = Readonly<{ address: PciAddress; model: string }>;

const PCI_DEVICES = '/sys/bus/pci/devices';
/** Display controllers. A server's management controller has one, too: those of other vendors are not meant. */
const DISPLAY_CLASS = /^0x03/;
/** NVIDIA, AMD, Intel. */
const VENDORS = ['0x10de', '0x1002', '0x8086'];

const LAYER_FOLDERS = ['/usr/share', '/usr/local/share', '/etc'].map((folder) => `${folder}/vulkan/implicit_layer.d`);
const LAYER_FILE = 'VkLayer_MESA_device_select.json';

export const INSTALL_LAYER =
  'install Mesa’s Vulkan device-select layer (Debian, Ubuntu: apt-get install mesa-vulkan-drivers)';

const host: Host = {
  entries: (folder) => (existsSync(folder) ? readdirSync(folder) : []),
  read: (file) => readFileSync(file, 'utf8').trim(),
  exists: existsSync,
  // A thread's `process.env` is a copy that C does not see.
  setEnvironment: (name, value) => {
    const libc = koffi.load(null);
    if (value === null) libc.func('int unsetenv(const char *name)')(name);
    else libc.func('int setenv(const char *name, const char *value, int overwrite)')(name, value, 1);
  },
};

/** Ordered by address; empty where the system does not list its PCI devices. */
export function hostGpus({ entries, read }: Host = host): readonly HostGpu[] {
  return entries(PCI_DEVICES)
    .toSorted()
    .flatMap((address) => {
      const of = (what: string): string => read(join(PCI_DEVICES, address, what));
      const vendor = of('vendor');
      if (!DISPLAY_CLASS.test(of('class')) || !VENDORS.includes(vendor)) return [];
      return [{ address, model: `${vendor}:${of('device')}` }];
    });
}

/** Whether a GPU can be selected. */
export function hasSelectLayer({ exists }: Host = host): boolean {
  return LAYER_FOLDERS.some((folder) => exists(join(folder, LAYER_FILE)));
}

/**
 * The next Vulkan instance of this process, in whatever thread, has that GPU first; `null`: the one that the user's
 * environment says. Between this and the creation of the instance nothing else may be selected.
 */
export function selectGpu(address: PciAddress | null, { setEnvironment }: Host = host): void {
  const selected = address === null ? (process.env['DRI_PRIME'] ?? null) : `pci-${address.replaceAll(/[:.]/g, '_')}`;
  setEnvironment('DRI_PRIME', selected);
}

/**
 * The GPUs that ranks are spread over: rank r runs on number r modulo theirs. `wanted`: places among those of the host;
 * `null` = all, if they are equal and can be told apart. Empty: every rank runs on the best. Throws BAD_VALUE.
 */
export function gpusForRanks(wanted: readonly number[] | null, on: Host = host): readonly PciAddress[] {
  const gpus = hostGpus(on);
  if (wanted === null) {
    const areEqual = new Set(gpus.map(({ model }) => model)).size === 1;
    return gpus.length > 1 && areEqual && hasSelectLayer(on) ? gpus.map(({ address }) => address) : [];
  }
  const refused = (why: string): RoutedExpertsError =>
    RoutedExpertsError.of('BAD_VALUE', '--gpus', wanted.join(','), why);
  const chosen = wanted.map((place) => {
    const gpu = gpus[place];
    if (gpu === undefined) throw refused(`numbers below ${gpus.length}, the GPUs of this host (see "devices")`);
    return gpu.address;
  });
  if (gpus.length === 1) return [];
  if (hasSelectLayer(on)) return chosen;
  throw refused(`none, or ${INSTALL_LAYER}: without it one GPU is not told from another`);
}
