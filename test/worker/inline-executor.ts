/** Runs steps on a model runner in the test's own thread. */

import type { DeviceInfo } from '../../src/contract/device.ts';
import type { RoutedExpertsError } from '../../src/contract/errors.ts';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import type { SchedulerOutput } from '../../src/contract/scheduler-output.ts';
import type { Executor, TransferCounts, WorkerLiveCounts } from '../../src/worker/executor.ts';
import type { ModelRunner } from '../../src/worker/model-runner.ts';

export class InlineExecutor implements Executor {
  readonly devices: readonly DeviceInfo[];
  /** Stays pending: a lost device shows in the next step. */
  readonly lost: Promise<RoutedExpertsError> = new Promise(() => {});
  readonly #runner: ModelRunner;
  #closed: Promise<void> | null = null;

  constructor(runner: ModelRunner, device: DeviceInfo) {
    this.#runner = runner;
    this.devices = [device];
  }

  execute(step: SchedulerOutput): Promise<ModelRunnerOutput> {
    return this.#runner.execute(step);
  }

  recycle(output: ModelRunnerOutput): void {
    if (output.routedExpertDeltas !== null) this.#runner.recycle(output.routedExpertDeltas.rows.buffer as ArrayBuffer);
  }

  readKv(blockIds: readonly number[]): Promise<Uint32Array> {
    return this.#runner.readKv(Uint32Array.from(blockIds));
  }

  writeKv(blockIds: readonly number[], keys: Uint32Array<ArrayBuffer>): Promise<void> {
    return this.#runner.writeKv(Uint32Array.from(blockIds), keys);
  }

  transferCounts(): TransferCounts {
    const { all, capture } = this.#runner.readbackBytes();
    return { deviceToHost: all, captureDeviceToHost: capture, acrossThreads: 0 };
  }

  liveCounts(): Promise<WorkerLiveCounts> {
    return Promise.resolve({ ...this.#runner.liveCounts(), lentBuffers: 0 });
  }

  shutdown(): Promise<void> {
    this.#closed ??= this.#runner.close();
    return this.#closed;
  }
}
