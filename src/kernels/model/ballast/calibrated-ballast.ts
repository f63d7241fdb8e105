/**
 * Stretches a forward pass by a wanted time: a kernel that only takes time, and the count that makes it take as long as
 * wanted.
 */

import type { BoundKernel, CommandRecorder, Device, DeviceBuffer, Kernel } from '../../../contract/device.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';

const CALIBRATION_MS = 4;
const CALIBRATION_ROUNDS = 3;
const FIRST_ITERATIONS = 4096;
const MAX_ITERATIONS = 2 ** 31;

export class Ballast {
  readonly #bound: BoundKernel;
  readonly #buffer: DeviceBuffer;
  readonly iterations: number;

  private constructor(bound: BoundKernel, buffer: DeviceBuffer, iterations: number) {
    this.#bound = bound;
    this.#buffer = buffer;
    this.iterations = iterations;
  }

  /**
   * Measures the device's speed, for some tens of milliseconds, and fixes the count for `ms` milliseconds. Throws
   * `BAD_VALUE` for a time that is negative, not finite, or over a minute.
   */
  static async create(device: Device, kernel: Kernel, ms: number): Promise<Ballast> {
    if (!(ms > 0 && ms <= 60_000))
      throw RoutedExpertsError.of('BAD_VALUE', 'ballastMs', ms, 'milliseconds in [0, 60000]');
    const buffer = device.createBuffer('ballast', 16, 'storage');
    const probe = device.createBuffer('ballast-probe', 16, 'readback');
    const bound = await device.bind(kernel, [buffer]);
    const iterations = await calibrate(device, bound, buffer, probe, ms);
    device.write(buffer, 0, Uint32Array.of(iterations));
    probe.destroy();
    return new Ballast(bound, buffer, iterations);
  }

  record(commands: CommandRecorder): void {
    commands.dispatch(this.#bound, 1);
  }

  destroy(): void {
    this.#buffer.destroy();
  }
}

async function calibrate(
  device: Device,
  bound: BoundKernel,
  buffer: DeviceBuffer,
  probe: DeviceBuffer,
  wantedMs: number,
): Promise<number> {
  const measure = async (iterations: number): Promise<number> => {
    device.write(buffer, 0, Uint32Array.of(iterations));
    if (device.info.hasTimestamps) return (await device.time((commands) => commands.dispatch(bound, 1))) / 1e6;
    const start = performance.now();
    device.submit((commands) => {
      commands.dispatch(bound, 1);
      commands.copy(buffer, 0, probe, 0, 8);
    });
    await device.read(probe, 8, () => 0);
    return performance.now() - start;
  };
  // The shortest of a few rounds: whatever else the machine does only ever adds time.
  const shortest = async (iterations: number): Promise<number> => {
    let ms = Infinity;
    for (let round = 0; round < CALIBRATION_ROUNDS; round++) ms = Math.min(ms, await measure(iterations));
    return ms;
  };
  let iterations = FIRST_ITERATIONS;
  let ms = await shortest(iterations);
  while (ms < CALIBRATION_MS && iterations < MAX_ITERATIONS / 4) {
    iterations *= 4;
    ms = await shortest(iterations);
  }
  return Math.max(1, Math.min(MAX_ITERATIONS, Math.round((wantedMs / ms) * iterations)));
}
