// Without capture a worker allocates nothing for rows on their way from the router to the host (L5).

import { expect, test } from 'vitest';
import { designByName } from '../../src/capture/designs.ts';
import type { DesignName, WorkerConfig } from '../../src/contract/config.ts';
import type { BufferUsage, DeviceBuffer } from '../../src/contract/device.ts';
import { CpuDevice } from '../../src/kernels/device/cpu-device.ts';
import { wgslKernels } from '../../src/kernels/model/wgsl-kernels.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { ModelRunner } from '../../src/worker/model-runner.ts';
import { memorySharedRows } from '../capture/memory-shared-rows.ts';
import { BASE_ENGINE } from '../capture/scenarios.ts';

/** Notes what is allocated. */
class NotingDevice extends CpuDevice {
  readonly allocated: Map<string, number> = new Map();

  override createBuffer(label: string, byteLength: number, usage: BufferUsage): DeviceBuffer {
    this.allocated.set(label, byteLength);
    return super.createBuffer(label, byteLength, usage);
  }
}

async function allocatedBy(design: DesignName): Promise<ReadonlyMap<string, number>> {
  const device = new NotingDevice();
  const config: WorkerConfig = {
    rank: 0,
    numRanks: 1,
    model: modelPreset('tiny'),
    engine: BASE_ENGINE,
    design,
    device: 'cpu',
    adapter: null,
    queueDepth: 1,
    ballastMs: 0,
    sharedMemory: null,
    fault: null,
  };
  const runner = await ModelRunner.create(device, config, wgslKernels, designByName(design), memorySharedRows(0));
  await runner.close();
  return device.allocated;
}

test('off has no buffers for packed rows, and reads back sampled tokens alone', async () => {
  const [off, deltas] = [await allocatedBy('off'), await allocatedBy('deltas')];
  const ofDeltasAlone = [...deltas.keys()].filter((label) => !off.has(label));
  expect(ofDeltasAlone).toEqual(['packRows', 'packed', 'expandedRows']);
  const smaller = [...off].filter(([label, bytes]) => deltas.get(label) !== bytes);
  const slot = deltas.get('readback/0')! - deltas.get('packed')!;
  expect(smaller).toEqual([
    ['readback/0', slot],
    ['readback/1', slot],
  ]);
});
