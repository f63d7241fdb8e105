/**
 * The one file that imports `webgpu`: instances, adapters, and who keeps them alive. An instance that is
 * garbage-collected while a device of it lives takes the process down, so each open adapter is held in `live` until its
 * device is gone.
 */

import { create } from 'webgpu';
import type { Device } from '../../contract/device.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { prepareAdapters, replaceDriversBySwiftShader } from './vulkan-environment.ts';
import { WebGpuDevice } from './webgpu-device.ts';
import { isSoftwareName, webGpuInfo } from './webgpu-info.ts';

/** Timestamps in steps of 65,536 ns would hide every kernel. */
const DAWN_FLAGS = ['disable-dawn-features=timestamp_quantization'];

export type AdapterName = Readonly<{ name: string; backend: string; isSoftware: boolean }>;

/** An adapter with all that must outlive its device. */
export class OpenAdapter {
  readonly name: string;
  readonly backend: string;
  readonly isSoftware: boolean;
  readonly adapter: GPUAdapter;
  readonly instance: GPU;

  constructor(instance: GPU, adapter: GPUAdapter, { name, backend, isSoftware }: AdapterName) {
    this.instance = instance;
    this.adapter = adapter;
    this.name = name;
    this.backend = backend;
    this.isSoftware = isSoftware;
    live.add(this);
  }

  /** The device of the adapter, which releases it when it is destroyed. */
  async openDevice(): Promise<Device> {
    const { name, backend, isSoftware } = this;
    const { features, limits } = this.adapter;
    const wanted: readonly GPUFeatureName[] = ['subgroups', 'timestamp-query'];
    try {
      const gpu = await this.adapter.requestDevice({
        requiredFeatures: wanted.filter((feature) => features.has(feature)),
        requiredLimits: {
          maxBufferSize: limits.maxBufferSize,
          maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
        },
      });
      const description = `${name} (${isSoftware ? 'CPU, software' : backend})`;
      return new WebGpuDevice(gpu, webGpuInfo(gpu, { description, isSoftware }), this);
    } catch (error) {
      this.release();
      throw error;
    }
  }

  /** Only after the device was destroyed and the event loop had its turn. */
  release(): void {
    live.delete(this);
  }
}

const live = new Set<OpenAdapter>();

/** Best first: a GPU, then lavapipe, then any other software. */
function rank({ name, isSoftware }: AdapterName): number {
  if (!isSoftware) return 0;
  if (/llvmpipe|lavapipe/i.test(name)) return 1;
  return /swiftshader/i.test(name) ? 2 : 3;
}

const LISTED = /backend: '([^']*)', name: '([^']*)'/g;

/**
 * Every adapter that there is, best first. Dawn enumerates only in its answer to a name that no adapter has.
 */
export async function listAdapters(): Promise<readonly AdapterName[]> {
  await prepareAdapters();
  const found = await enumerate();
  return found.length === 0 && (await replaceDriversBySwiftShader()) ? enumerate() : found;
}

async function enumerate(): Promise<readonly AdapterName[]> {
  let text = '';
  try {
    await create([...DAWN_FLAGS, 'adapter=\u0001']).requestAdapter();
  } catch (error) {
    text = String(error);
  }
  const adapters: AdapterName[] = [];
  for (const [, backend = '', name = ''] of text.matchAll(LISTED)) {
    if (backend === 'null' || adapters.some((known) => known.name === name && known.backend === backend)) continue;
    adapters.push({ name, backend, isSoftware: isSoftwareName(name) });
  }
  return adapters.sort((a, b) => rank(a) - rank(b));
}

/**
 * Opens the best adapter whose name contains `wanted`, in any case; `null`: the best there is. An adapter that does not
 * open (a driver too old for Dawn) is passed over. Throws `UNKNOWN_NAME` if no name fits, `NO_ADAPTER` if none opens.
 */
export async function openAdapter(wanted: string | null): Promise<OpenAdapter> {
  const tried = [...(await prepareAdapters())];
  const all = await listAdapters();
  const fitting = all.filter(({ name }) => wanted === null || name.toLowerCase().includes(wanted.toLowerCase()));
  if (fitting.length === 0 && wanted !== null && all.length > 0) {
    throw RoutedExpertsError.of(
      'UNKNOWN_NAME',
      'adapter',
      wanted,
      all.map(({ name }) => name),
    );
  }
  for (const candidate of fitting) {
    const instance = create([...DAWN_FLAGS, `backend=${candidate.backend}`, `adapter=${candidate.name}`]);
    const adapter = await instance.requestAdapter().catch(() => null);
    if (adapter !== null) return new OpenAdapter(instance, adapter, candidate);
    tried.push(`${candidate.name} (${candidate.backend}), which does not open`);
  }
  throw RoutedExpertsError.of('NO_ADAPTER', tried);
}

/** Dawn's null backend: compiles and validates everything, runs nothing, and is there on every machine. For tests. */
export async function openNullAdapter(): Promise<OpenAdapter> {
  const instance = create(['backend=null']);
  const adapter = await instance.requestAdapter();
  if (adapter === null) throw RoutedExpertsError.of('NO_ADAPTER', ["Dawn's null backend"]);
  return new OpenAdapter(instance, adapter, { name: 'null backend', backend: 'null', isSoftware: true });
}
