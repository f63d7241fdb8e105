/** What a bench runs on: the flags, and what this machine has. */

import type { ClockTimes, DeviceKind } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { DEFAULT_CLOCK_TIMES, stepTimeText, type StepTime } from '../../kernels/device/clock/clock-times.ts';
import { listDevices } from '../../kernels/device/open-device.ts';

/** `auto`: the best GPU; without one the clock, and the software adapter for a check of the shaders. */
export type WantedDevice = DeviceKind | 'auto';

/**
 * `pace`: what its times are worth. `gpu`: they are its own; `clock`: modelled; `software`: of an adapter or of kernels
 * that compute on the cores which the engine runs on.
 */
export type BenchDevice = Readonly<{
  kind: DeviceKind;
  adapter: string | null;
  pace: 'gpu' | 'clock' | 'software';
  /** Of `clock`. */
  clockTimes: ClockTimes | null;
  /** Whether the shaders run, untimed, on the software adapter. */
  checksShaders: boolean;
}>;

export type DeviceFlags = Readonly<{
  device: WantedDevice;
  adapter?: string;
  stepTime?: StepTime;
  ballastMs?: number;
}>;

/** Throws BAD_VALUE for flags that exclude each other. */
export async function benchDevice(flags: DeviceFlags, list: typeof listDevices = listDevices): Promise<BenchDevice> {
  const { device, adapter, stepTime, ballastMs } = flags;
  const isClock = device === 'clock' || device === 'auto';
  if (adapter !== undefined && device !== 'webgpu' && device !== 'auto') {
    throw RoutedExpertsError.of(
      'BAD_VALUE',
      '--adapter',
      adapter,
      `none with --device ${device}, which uses no adapter`,
    );
  }
  if (stepTime !== undefined && !isClock) throw unfit(stepTime, device);
  if (device === 'cpu') return { kind: 'cpu', adapter: null, pace: 'software', clockTimes: null, checksShaders: false };
  const adapters = device === 'clock' ? [] : (await list()).filter(({ kind }) => kind === 'webgpu');
  const named = adapter?.toLowerCase();
  const found = adapters.find(({ description }) => named === undefined || description.toLowerCase().includes(named));
  const isGpu = found !== undefined && !found.isSoftware;
  if (device === 'webgpu' || isGpu || adapter !== undefined) {
    if (stepTime !== undefined) throw unfit(stepTime, 'webgpu');
    const pace = isGpu ? 'gpu' : 'software';
    return { kind: 'webgpu', adapter: adapter ?? null, pace, clockTimes: null, checksShaders: false };
  }
  if (ballastMs !== undefined && ballastMs > 0) {
    throw RoutedExpertsError.of(
      'BAD_VALUE',
      '--ballast-ms',
      ballastMs,
      '--step-time instead: the clock has no ballast',
    );
  }
  const clockTimes = { ...DEFAULT_CLOCK_TIMES, ...stepTime };
  return { kind: 'clock', adapter: null, pace: 'clock', clockTimes, checksShaders: found !== undefined };
}

function unfit(stepTime: StepTime, device: DeviceKind): RoutedExpertsError {
  const why = `none with --device ${device}, which takes the time that it takes; or give --device clock`;
  return RoutedExpertsError.of('BAD_VALUE', '--step-time', stepTimeText(stepTime), why);
}
