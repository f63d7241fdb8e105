/** The workers of a bench: one executor per design, started once and used for all of the design's runs. */

import type { CaptureEngineHalf } from '../../contract/capture.ts';
import type { DesignName, PrefixRows } from '../../contract/config.ts';
import type { DesignResources } from '../../capture/designs.ts';
import { designByName } from '../../capture/designs.ts';
import { createSharedRows, sharedRowsBytes } from '../../capture/shm-flock/posix-shared-rows.ts';
import type { SharedRows } from '../../capture/shm-flock/shared-rows.ts';
import type { Executor } from '../../worker/executor.ts';
import { sharedMemoryName } from '../../worker/design-resources.ts';
import type { ThreadExecutorConfig } from '../../worker/thread-executor.ts';
import { ThreadExecutor } from '../../worker/thread-executor.ts';

export type SessionConfig = Omit<ThreadExecutorConfig, 'design' | 'sharedMemory'> &
  Readonly<{
    /** Policy of `deltas`; absent = its default. */
    prefixRows?: PrefixRows;
  }>;

/** A fresh engine half for each run; shared memory lives as long as the session. */
export class DesignSession {
  readonly design: DesignName;
  readonly executor: Executor;
  readonly #config: SessionConfig;
  readonly #resources: DesignResources;
  readonly #close: () => void;

  private constructor(
    design: DesignName,
    config: SessionConfig,
    executor: Executor,
    resources: DesignResources,
    close: () => void,
  ) {
    this.design = design;
    this.executor = executor;
    this.#config = config;
    this.#resources = resources;
    this.#close = close;
  }

  /** Rejects with NO_ADAPTER, UNKNOWN_NAME, SHARED_MEMORY, BAD_VALUE; nothing is left behind then. */
  static async start(design: DesignName, config: SessionConfig): Promise<DesignSession> {
    const sharedMemory = design === 'shm-flock' ? sharedMemoryName() : null;
    const workerConfig = { ...config, design, sharedMemory };
    const shared =
      sharedMemory === null ? null : createSharedRows(sharedMemory, sharedRowsBytes(config.model, config.engine));
    try {
      const executor = await ThreadExecutor.start(workerConfig);
      shared?.unlink();
      return new DesignSession(design, config, executor, { sharedRows: () => lent(shared!) }, () => shared?.close());
    } catch (error) {
      shared?.close();
      throw error;
    }
  }

  engineHalf(): CaptureEngineHalf | null {
    const { model, engine, prefixRows } = this.#config;
    const resources = prefixRows === undefined ? this.#resources : { ...this.#resources, prefixRows };
    return designByName(this.design).engineHalf(model, engine, resources);
  }

  async close(): Promise<void> {
    await this.executor.shutdown();
    this.#close();
  }
}

/** The same rows for another engine half, which must not close them. */
function lent(shared: SharedRows): SharedRows {
  return {
    get rows() {
      return shared.rows;
    },
    lock: () => shared.lock(),
    unlock: () => shared.unlock(),
    close: () => {},
  };
}
