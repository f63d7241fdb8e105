/**
 * The workers of one design, with their devices, and what its two halves share: started once, for any number of engines
 * one after the other.
 */

import { requireStages, type Design } from '../capture/designs.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { CreatedSharedRows } from '../capture/shm-flock/posix-shared-rows.ts';
import { createSharedRows, sharedRowsBytes } from '../capture/shm-flock/posix-shared-rows.ts';
import type { SharedRows } from '../capture/shm-flock/shared-rows.ts';
import type { CaptureEngineHalf } from '../contract/capture.ts';
import { withLayersOf, type WithLayers } from '../capture/row-layers.ts';
import type { DesignReference, ModelConfig, PrefixRows, RowsLayers } from '../contract/config.ts';
import { prepareAdapters } from '../kernels/device/open-device.ts';
import { loadDesign } from '../worker/design-module.ts';
import { sharedMemoryName } from '../worker/design-resources.ts';
import { RankGrid } from '../worker/pipeline/lockstep/rank-grid.ts';
import { stagesOf } from '../worker/pipeline/stages/stage-plan.ts';
import { EngineMember } from '../worker/thread/engine-member.ts';
import { newLockstep, watchedRows } from '../worker/thread/shared-lockstep.ts';
import { ThreadExecutor, type ThreadExecutorConfig } from '../worker/thread/thread-executor.ts';
import type { KvOffloadOptions } from './kv-tier/offload-options.ts';

export type SessionConfig = Omit<ThreadExecutorConfig, 'design' | 'sharedMemory'> &
  Readonly<{
    /** Policy of `deltas`; absent = its default. */
    prefixRows?: PrefixRows;
    /** Where KV blocks go that the prefix cache gives up; absent = nowhere. */
    kvOffload?: KvOffloadOptions;
    /** The layers that rows count; absent = `routers`. */
    rowsLayers?: RowsLayers;
    /**
     * The ranks run in lockstep, and none waits for the others for longer than this, in ms; absent = they do not,
     * unless `lockstep` names the group of several engines that they are in.
     */
    collectiveTimeoutMs?: number;
  }>;

type Workers = Readonly<{ executor: ThreadExecutor; shared: SharedMemory | null }>;

/** `rows`: as the engine half sees them. */
type SharedMemory = Readonly<{ created: CreatedSharedRows; rows: SharedRows }>;

/** Each set of workers has shared memory of its own: what the ones before wrote died with their KV. */
export class DesignSession {
  readonly design: Design;
  readonly reference: DesignReference;
  readonly config: SessionConfig;
  /** Among other engines; `null`: the engine is alone. */
  readonly group: EngineMember | null;
  /** Gives rows the axis that the session was asked for. */
  readonly withLayers: WithLayers;
  /** What each pipeline stage has of the model; without stages the model. */
  readonly stageModels: readonly ModelConfig[];
  #workers: Workers;

  private constructor(design: Design, reference: DesignReference, config: SessionConfig, workers: Workers) {
    this.design = design;
    this.reference = reference;
    this.config = config;
    const { model, lockstep, numRanks, rowsLayers = 'routers', pipelineSplit } = config;
    this.stageModels =
      pipelineSplit === undefined ? [model] : stagesOf(model, pipelineSplit).map((stage) => stage.model);
    this.withLayers = withLayersOf(config.model, rowsLayers);
    this.group = lockstep !== undefined && lockstep.numEngines > 1 ? new EngineMember(lockstep, numRanks) : null;
    this.#workers = workers;
  }

  /**
   * Rejects with NO_ADAPTER, UNKNOWN_NAME, BAD_DESIGN, DESIGN_FAILED, SHARED_MEMORY, BAD_VALUE; nothing is left behind
   * then.
   */
  static async start(reference: DesignReference, config: SessionConfig): Promise<DesignSession> {
    const design = await loadDesign(reference);
    requirePipeline(config, design);
    return new DesignSession(design, reference, config, await startWorkers(reference, config));
  }

  get executor(): ThreadExecutor {
    return this.#workers.executor;
  }

  /** For one engine. It goes on with the workers of a restart. Throws DESIGN_FAILED. */
  engineHalf(): CaptureEngineHalf | null {
    const { model, engine, prefixRows, shmFlock } = this.config;
    const sharedRows = (): SharedRows => lent(() => this.#workers.shared!.rows);
    return this.design.engineHalf(model, engine, {
      sharedRows,
      ...(prefixRows === undefined ? {} : { prefixRows }),
      ...(shmFlock === undefined ? {} : { shmFlock }),
    });
  }

  /**
   * New workers, without a fault to inject, for those that were lost and shut down. Rejects as `start` does; it may be
   * tried again.
   */
  async restart(): Promise<ThreadExecutor> {
    const workers = await startWorkers(this.reference, { ...this.config, fault: null });
    this.#workers.shared?.created.close();
    this.#workers = workers;
    return workers.executor;
  }

  async close(): Promise<void> {
    this.group?.close();
    await this.#workers.executor.shutdown();
    this.#workers.shared?.created.close();
  }
}

let adaptersReady: Promise<void> | null = null;

async function startWorkers(design: DesignReference, config: SessionConfig): Promise<Workers> {
  if (config.device === 'webgpu') await (adaptersReady ??= prepareAdapters());
  const { numRanks } = config;
  const lockstep = lockstepOf(config);
  const sharedMemory = design === 'shm-flock' ? sharedMemoryName() : null;
  const created =
    sharedMemory === null ? null : createSharedRows(sharedMemory, sharedRowsBytes(config.model, config.engine));
  try {
    const executor = await ThreadExecutor.start({ ...config, ...lockstep, design, sharedMemory });
    created?.unlink();
    const shared = created && { created, rows: watchedRows(created, { ...lockstep, numRanks }, null) };
    return { executor, shared };
  } catch (error) {
    created?.close();
    throw error;
  }
}

/** Throws BAD_VALUE and STAGES_REFUSED for what does not go with stages. */
function requirePipeline(config: SessionConfig, design: Design): void {
  const { pipelineSplit, engine, lockstep, collectiveTimeoutMs, routing } = config;
  const numStages = pipelineSplit?.length ?? 1;
  if ((engine.pipelineParallelSize ?? 1) !== numStages) {
    throw RoutedExpertsError.of(
      'BAD_VALUE',
      '--pipeline-split (pipelineSplit)',
      pipelineSplit?.join(','),
      'layers for each stage',
    );
  }
  if (pipelineSplit === undefined) return;
  requireStages(design);
  if (lockstep !== undefined || collectiveTimeoutMs !== undefined) {
    const wanted = '1 with ranks in lockstep and with data-parallel engines: a barrier is of all layers';
    throw RoutedExpertsError.of('BAD_VALUE', '--pipeline-parallel (pipelineParallel)', numStages, wanted);
  }
  if (routing?.kind === 'replay') {
    const wanted = '1 with a recording, whose rows have all layers';
    throw RoutedExpertsError.of('BAD_VALUE', '--pipeline-parallel (pipelineParallel)', numStages, wanted);
  }
}

/** Each set of workers that is a group by itself has one of its own. */
function lockstepOf({ lockstep, numRanks, collectiveTimeoutMs }: SessionConfig): Pick<SessionConfig, 'lockstep'> {
  if (lockstep !== undefined) return { lockstep };
  if (collectiveTimeoutMs === undefined) return {};
  const grid = new RankGrid({ dataParallel: 1, pipelineParallel: 1, tensorParallel: numRanks });
  return { lockstep: newLockstep(grid, { collectiveTimeoutMs }) };
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
