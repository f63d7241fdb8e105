/**
 * The `clock` device: answers are those of the `cpu` device, computed when a submission is handed in; when they can be
 * read says a clock, as if a GPU had computed them. In between the thread sleeps and no core is burnt.
 */

import type { ClockTimes } from '../../../contract/config.ts';
import type {
  BoundKernel,
  BufferUsage,
  CommandRecorder,
  DeadlineCounts,
  Device,
  DeviceBuffer,
  DeviceInfo,
  Kernel,
  ReadOptions,
} from '../../../contract/device.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import { stepTimeText } from './clock-times.ts';
import { CpuDevice } from '../cpu-device.ts';
import { QueueClock } from './queue-clock.ts';

/** The rest of a wait, which a timer of the event loop would overshoot. */
const SLEPT_MS = 1.5;

export class ClockDevice implements Device {
  readonly info: DeviceInfo;
  readonly lost: Promise<string>;
  readonly #cpu = new CpuDevice();
  readonly #clock: QueueClock;
  readonly #asleep = new Int32Array(new SharedArrayBuffer(4));
  /** Settles with the latest read: reads end in their order. */
  #reads: Promise<unknown> = Promise.resolve();
  readonly #readback = new WeakSet<DeviceBuffer>();

  constructor(times: ClockTimes) {
    this.#clock = new QueueClock(times);
    this.lost = this.#cpu.lost;
    this.info = {
      ...this.#cpu.info,
      kind: 'clock',
      description: `clock (modelled time: a step takes ${stepTimeText(times)}; TypeScript reference kernels)`,
      hasTimestamps: false,
    };
  }

  takeDeadlines(): DeadlineCounts {
    return this.#clock.takeDeadlines();
  }

  createBuffer(label: string, byteLength: number, usage: BufferUsage): DeviceBuffer {
    const buffer = this.#cpu.createBuffer(label, byteLength, usage);
    if (usage === 'readback') this.#readback.add(buffer);
    return buffer;
  }

  bind(kernel: Kernel, buffers: readonly DeviceBuffer[]): Promise<BoundKernel> {
    return this.#cpu.bind(kernel, buffers);
  }

  write(buffer: DeviceBuffer, byteOffset: number, data: Uint32Array): void {
    this.#cpu.write(buffer, byteOffset, data);
  }

  submit(record: (commands: CommandRecorder) => void): void {
    const submittedAt = performance.now();
    let passTokens: number | null = null;
    let readbackBytes = 0;
    this.#cpu.submit((commands) =>
      record({
        dispatch: (bound, x, y, z) => commands.dispatch(bound, x, y, z),
        copy: (source, sourceOffset, target, targetOffset, byteLength) => {
          if (this.#readback.has(target)) readbackBytes += byteLength;
          commands.copy(source, sourceOffset, target, targetOffset, byteLength);
        },
        beginPass: (numTokens) => {
          passTokens = (passTokens ?? 0) + numTokens;
        },
      }),
    );
    this.#clock.submit({ submittedAt, passTokens, readbackBytes });
  }

  read<T>(
    buffer: DeviceBuffer,
    byteLength: number,
    consume: (bytes: Uint8Array) => T,
    { blocksThread = false }: ReadOptions = {},
  ): Promise<T> {
    const deadline = this.#clock.readableAt;
    // The capture designs that block take a turn of their own: no other read is under way.
    if (blocksThread) this.#sleepUntil(deadline);
    const read = this.#reads.then(async () => {
      for (let left = deadline - performance.now(); left > SLEPT_MS; left = deadline - performance.now()) {
        await new Promise((resolve) => setTimeout(resolve, left - SLEPT_MS));
      }
      this.#sleepUntil(deadline);
      this.#clock.handedOut(deadline, performance.now());
      return this.#cpu.read(buffer, byteLength, consume);
    });
    this.#reads = read.catch(() => {});
    return read;
  }

  time(): Promise<number> {
    return Promise.reject(RoutedExpertsError.of('INVARIANT', 'the clock device has no timestamps'));
  }

  async destroy(): Promise<void> {
    await this.#reads;
    await this.#cpu.destroy();
  }

  /** Stops the thread, without burning its core. */
  #sleepUntil(deadline: number): void {
    const left = deadline - performance.now();
    if (left > 0) Atomics.wait(this.#asleep, 0, 0, left);
  }
}
