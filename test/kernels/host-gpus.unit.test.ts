// A rank per GPU where a host has several: which there are, which ranks get, and what is missing to tell them apart.

import { describe, expect, test } from 'vitest';
import { gpusForRanks, hasSelectLayer, hostGpus, selectGpu, type Host } from '../../src/kernels/device/host-gpus.ts';

const LAYER = '/usr/share/vulkan/implicit_layer.d/VkLayer_MESA_device_select.json';
const [FIRST, SECOND, INTEGRATED] = ['0000:00:07.0', '0000:00:08.0', '0000:00:01.0'];

/** Class, vendor and device by address. */
const devices: Readonly<Record<string, readonly [pciClass: string, vendor: string, device: string]>> = {
  [SECOND]: ['0x030200', '0x10de', '0x2335'],
  [FIRST]: ['0x030200', '0x10de', '0x2335'],
  // A server's management controller, a network card, an NVSwitch.
  '0000:00:02.0': ['0x030000', '0x1a03', '0x2000'],
  '0000:00:03.0': ['0x020000', '0x15b3', '0x101e'],
  '0000:00:09.0': ['0x068000', '0x10de', '0x22a3'],
  [INTEGRATED]: ['0x030000', '0x8086', '0x46a6'],
};
const server = Object.keys(devices).filter((address) => address !== INTEGRATED);

function hostOf(addresses: readonly string[], files: readonly string[] = [LAYER]) {
  const environment: Record<string, string | null> = {};
  const host: Host = {
    entries: (folder) => (folder === '/sys/bus/pci/devices' ? addresses : []),
    read: (file) => {
      const [, address, what] = /devices\/([^/]+)\/(.*)$/.exec(file)!;
      return devices[address!]![['class', 'vendor', 'device'].indexOf(what!)]!;
    },
    exists: (file) => files.includes(file),
    setEnvironment: (name, value) => (environment[name] = value),
  };
  return { host, environment };
}

const twoGpus = hostOf(server).host;
const withoutLayer = hostOf(server, []).host;

test('the GPUs of a host are its display controllers of GPU vendors, by address', () => {
  expect(hostGpus(twoGpus).map(({ address }) => address)).toEqual([FIRST, SECOND]);
  expect(hostGpus(hostOf([]).host)).toEqual([]);
  expect([hasSelectLayer(twoGpus), hasSelectLayer(withoutLayer)]).toEqual([true, false]);
});

test('a GPU is selected by its address, as the layer reads it', () => {
  const { host, environment } = hostOf([]);
  selectGpu(SECOND, host);
  expect(environment).toEqual({ DRI_PRIME: 'pci-0000_00_08_0' });
  selectGpu(null, host);
  expect(environment).toEqual({ DRI_PRIME: process.env['DRI_PRIME'] ?? null });
});

describe('ranks', () => {
  test('are spread over all GPUs, if these are equal and can be told apart', () => {
    expect(gpusForRanks(null, twoGpus)).toEqual([FIRST, SECOND]);
    expect(gpusForRanks(null, withoutLayer)).toEqual([]);
    expect(gpusForRanks(null, hostOf([FIRST]).host)).toEqual([]);
    expect(gpusForRanks(null, hostOf([INTEGRATED, FIRST]).host)).toEqual([]);
  });

  test('run on those that were asked for', () => {
    expect(gpusForRanks([1], twoGpus)).toEqual([SECOND]);
    expect(gpusForRanks([1, 0], twoGpus)).toEqual([SECOND, FIRST]);
    expect(gpusForRanks([0], hostOf([FIRST], []).host)).toEqual([]);
  });

  test('cannot be given a GPU that there is not, or that is never found', () => {
    const absent = '--gpus is 0,2; give numbers below 2, the GPUs of this host (see "devices")';
    expect(() => gpusForRanks([0, 2], twoGpus)).toThrow(absent);
    for (const wanted of [[0, 1], [0]])
      expect(() => gpusForRanks(wanted, withoutLayer)).toThrow('apt-get install mesa-vulkan-drivers');
  });
});
