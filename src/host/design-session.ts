/**
 * The workers of one design, with their devices, and what its two halves share: started once, for any number of engines
 * one after the other.
 */

import type { Design } from '../capture/designs.ts';
import type { CreatedSharedRows } from '../capture/shm-flock/posix-shared-rows.ts';
import { createSharedRows, sharedRowsBytes } from '../capture/shm-flock/posix-shared-rows.ts';
import type { SharedRows } from '../capture/shm-flock/shared-rows.ts';
import type { CaptureEngineHalf } from '../contract/capture.ts';
import type { DesignReference, PrefixRows } from '../contract/config.ts';
import { prepareAdapters } from '../kernels/device/open-device.ts';
import { loadDesign } from '../worker/design-module.ts';
import { sharedMemoryName } from '../worker/design-resources.ts';
import { ThreadExecutor, type ThreadExecutorConfig } from '../worker/thread/thread-executor.ts';

export type SessionConfig = Omit<ThreadExecutorConfig, 'design' | 'sharedMemory'> &
  Readonly<{
    /** Policy of `deltas`; absent = its default. */
    prefixRows?: PrefixRows;
  }>;

type Workers = Readonly<{ executor: ThreadExecutor; shared: CreatedSharedRows | null }>;

/** Each set of workers has shared memory of its own: what the ones before wrote died with their KV. */
export class DesignSession {
  readonly design: Design;
  readonly reference: DesignReference;
  readonly config: SessionConfig;
  #workers: Workers;

  private constructor(design: Design, reference: DesignReference, config: SessionConfig, workers: Workers) {
    this.design = design;
    this.reference = reference;
    this.config = config;
    this.#workers = workers;
  }

  /**
   * Rejects with NO_ADAPTER, UNKNOWN_NAME, BAD_DESIGN, DESIGN_FAILED, SHARED_MEMORY, BAD_VALUE; nothing is left behind
   * then.
   */
  static async start(reference: DesignReference, config: SessionConfig): Promise<DesignSession> {
    const design = await loadDesign(reference);
    return new DesignSession(design, reference, config, await startWorkers(reference, config));
  }

  get executor(): ThreadExecutor {
    return this.#workers.executor;
  }

  /** For one engine. It goes on with the workers of a restart. Throws DESIGN_FAILED. */
  engineHalf(): CaptureEngineHalf | null {
    const { model, engine, prefixRows } = this.config;
    const sharedRows = (): SharedRows => lent(() => this.#workers.shared!);
    const resources = prefixRows === undefined ? { sharedRows } : { sharedRows, prefixRows };
    return this.design.engineHalf(model, engine, resources);
  }

  /**
   * New workers, without a fault to inject, for those that were lost and shut down. Rejects as `start` does; it may be
   * tried again.
   */
  async restart(): Promise<ThreadExecutor> {
    const workers = await startWorkers(this.reference, { ...this.config, fault: null });
    this.#workers.shared?.close();
    this.#workers = workers;
    return workers.executor;
  }

  async close(): Promise<void> {
    await this.#workers.executor.shutdown();
    this.#workers.shared?.close();
  }
}

let adaptersReady: Promise<void> | null = null;

async function startWorkers(design: DesignReference, config: SessionConfig): Promise<Workers> {
  if (config.device === 'webgpu') await (adaptersReady ??= prepareAdapters());
  const sharedMemory = design === 'shm-flock' ? sharedMemoryName() : null;
  const shared =
    sharedMemory === null ? null : createSharedRows(sharedMemory, sharedRowsBytes(config.model, config.engine));
  try {
    const executor = await ThreadExecutor.start({ ...config, design, sharedMemory });
    shared?.unlink();
    return { executor, shared };
  } catch (error) {
    shared?.close();
    throw error;
  }
}

/** For an engine half, which must not close what the next one needs. */
function lent(current: () => SharedRows): SharedRows {
  return {
    get rows() {
      return current().rows;
    },
    lock: () => current().lock(),
    unlock: () => current().unlock(),
    close: () => {},
  };
}
