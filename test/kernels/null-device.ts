/**
 * Dawn's null backend: WGSL and pipelines are checked on any machine, nothing is computed. For a test file as a whole.
 */

import { afterAll, beforeAll, expect } from 'vitest';
import type { Device, Kernel } from '../../src/contract/device.ts';
import { openNullAdapter } from '../../src/kernels/device/gpu.ts';

export type NullDevice = Readonly<{
  /** Compiles, binds and dispatches once, so that bindings are checked against the pipeline, too. */
  validate: (kernel: Kernel) => Promise<void>;
  /** A device whose error scopes do not end empty is lost. */
  expectNotLost: () => void;
}>;

/** Opens the device before the file's tests and destroys it after them. */
export function nullDevice(): NullDevice {
  let device: Device;
  let lost: string | null = null;
  beforeAll(async () => {
    device = await (await openNullAdapter()).openDevice();
    void device.lost.then((reason) => {
      lost = reason;
    });
  });
  afterAll(async () => {
    await device.destroy();
  });
  return {
    validate: async (kernel) => {
      const buffers = kernel.bindings.map((_, i) => device.createBuffer(`${kernel.name} ${i}`, 256, 'storage'));
      const bound = await device.bind(kernel, buffers);
      device.submit((commands) => commands.dispatch(bound, 1, 1));
      for (const buffer of buffers) buffer.destroy();
    },
    expectNotLost: () => expect(lost).toBe(null),
  };
}
