/**
 * The table that names the built-in capture designs. The engine and the runner are handed a half; only the code that
 * makes them reads this table.
 */

import type { CaptureEngineHalf, CaptureWorkerContext, CaptureWorkerHalf } from '../contract/capture.ts';
import type { DesignName, EngineConfig, ModelConfig, PrefixRows, ShmFlockSwitches } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import { BlockStoreEngineHalf } from './block-store/engine-half.ts';
import { BlockStoreWorkerHalf } from './block-store/worker-half.ts';
import { DEFAULT_PREFIX_ROWS, prefixRowsPolicies } from './deltas/prefix-rows.ts';
import { ComputedOnlyEngineHalf } from './deltas/prefix-rows/computed-only.ts';
import { PrefixRowsEngineHalf } from './deltas/prefix-rows/engine-half.ts';
import { DeltasWorkerHalf } from './deltas/worker-half.ts';
import { HostCacheEngineHalf } from './host-cache/engine-half.ts';
import { HostCacheWorkerHalf } from './host-cache/worker-half.ts';
import { ShmFlockEngineHalf } from './shm-flock/engine-half.ts';
import type { SharedRows } from './shm-flock/shared-rows.ts';
import { ShmFlockWorkerHalf, UnsavedWorkerHalf } from './shm-flock/worker-half.ts';
import { SlotStoreEngineHalf } from './slot-store/engine-half.ts';
import { SlotStoreWorkerHalf } from './slot-store/worker-half.ts';

/** What some built-in designs need of their surroundings; made only if the design asks. */
export type DesignResources = Readonly<{
  sharedRows: () => SharedRows;
  /** Policy of `deltas`; absent = `complete`. */
  prefixRows?: PrefixRows;
  /** Of `shm-flock`; absent = both on. */
  shmFlock?: ShmFlockSwitches;
}>;

/**
 * Rows that a design may report missing: all of them; those of positions that an admission found in the prefix cache;
 * those of a request that was aborted, that a stop token or EOS ended, or that ended while it held no blocks.
 */
export type MissingRows = 'all' | 'prefix-hit' | 'aborted' | 'stopped' | 'ended-without-blocks';

/**
 * A law that a design breaks by nature, and why. The contract suite accepts a missing row only if `missing` explains
 * it, and fails if a gap never shows. A gap that takes a fault which only the simulator injects says so.
 */
export type DeclaredGap = Readonly<{
  law: `L${number}`;
  reason: string;
  missing?: MissingRows;
  /** `with offloading`: the design keeps the law unless KV is kept outside the device. */
  shows?: 'in simulation' | 'with offloading';
}>;

/** Those gaps that excuse something, with KV kept outside the device or without. */
export function gapsThatApply(
  gaps: readonly DeclaredGap[],
  { isOffloading }: Readonly<{ isOffloading: boolean }>,
): readonly DeclaredGap[] {
  return isOffloading ? gaps : gaps.filter(({ shows }) => shows !== 'with offloading');
}

/** A capture design: built in, or exported by a module of the caller's own. */
export type Design = Readonly<{
  name: string;
  /** Where it comes from. */
  source?: string;
  summary?: string;
  /**
   * Why the parts of pipeline stages cannot be joined for it. `null`: they can, by the spans in its payload's index, or
   * there are none. Absent, of a design of the caller's own: nobody knows what its payload says.
   */
  refusesStages?: string | null;
  gaps: readonly DeclaredGap[];
  /** `null`: the engine captures nothing. */
  engineHalf: (model: ModelConfig, engine: EngineConfig, resources: DesignResources) => CaptureEngineHalf | null;
  workerHalf: (context: CaptureWorkerContext, resources: DesignResources) => CaptureWorkerHalf | null;
}>;

type BuiltInDesign = Design & Readonly<{ name: DesignName }>;

/** Of designs whose rows lie by KV slot: what vLLM's refusal of the combination is for. */
const STALE_SLOTS: readonly DeclaredGap[] = (['L2', 'L3', 'L4', 'L9'] as const).map((law) => ({
  law,
  reason:
    'a block that comes back from host memory gets another slot, and the rows of that slot are those of a block before',
  shows: 'with offloading',
}));

const off: BuiltInDesign = {
  name: 'off',
  refusesStages: null,
  source: '–',
  summary: 'no capture: the zero line',
  gaps: [{ law: 'L1', reason: 'returns no rows at all', missing: 'all' }],
  engineHalf: () => null,
  workerHalf: () => null,
};

const shmFlock: BuiltInDesign = {
  name: 'shm-flock',
  refusesStages: 'as its source does: rank 0 alone writes its table, and has the layers of the first stage only',
  source: 'vllm#28284',
  summary: 'shared memory and a file lock, read when a request stops: the baseline',
  gaps: [
    { law: 'L5', reason: 'every step is stored and every finished request is read, opted in or not' },
    {
      law: 'L6',
      reason:
        'device reads block; the scheduler’s step waits for a lock, for as long as a slow holder has it, and copies ' +
        'all rows of the request',
    },
    { law: 'L1', reason: 'the rows of an aborted request are not read; they are reported missing', missing: 'aborted' },
    {
      law: 'L1',
      reason:
        'a request whose last token arrives after a preemption has no block table to read by; its rows are missing',
      missing: 'ended-without-blocks',
    },
    ...STALE_SLOTS,
  ],
  engineHalf: (model, engine, { sharedRows, shmFlock: switches }) =>
    new ShmFlockEngineHalf(model, engine, sharedRows(), switches),
  workerHalf: (context, { sharedRows, shmFlock: switches }) =>
    switches?.save === false
      ? new UnsavedWorkerHalf(context)
      : new ShmFlockWorkerHalf(context, context.rank === 0 ? sharedRows() : null),
};

const hostCache: BuiltInDesign = {
  name: 'host-cache',
  refusesStages: 'as its source does: each worker hands out what its own cache holds, by its own prediction of the end',
  source: 'vllm#39917',
  summary: 'a cache per request in the worker, emitted when the worker predicts the end: reverted',
  gaps: [
    { law: 'L6', reason: 'the last output copies all rows of the request in the scheduler’s step' },
    {
      law: 'L1',
      reason: 'the worker does not foresee EOS or a stop token; the request has no rows',
      missing: 'stopped',
    },
    { law: 'L1', reason: 'the worker does not foresee an abort; the request has no rows', missing: 'aborted' },
    {
      law: 'L1',
      reason: 'tokens that a cached block spares the request are not computed; their rows are missing',
      missing: 'prefix-hit',
    },
    {
      law: 'L9',
      reason:
        'the worker keeps the rows of an output that a cache reset threw away; they stay where a later hit spares ' +
        'the position',
      shows: 'in simulation',
    },
  ],
  engineHalf: (model, engine) => new HostCacheEngineHalf(model, engine),
  workerHalf: (context) => new HostCacheWorkerHalf(context),
};

const slotStore: BuiltInDesign = {
  name: 'slot-store',
  refusesStages:
    'as its source does (--enable-return-routed-experts with PP > 1): its table has rows of all layers, or none',
  source: 'vllm#39568',
  summary: 'a table by KV slot in the scheduler, rows with every output: today’s released vLLM',
  gaps: [
    { law: 'L5', reason: 'the rows of every step are stored; a request that asks may hit any block later' },
    { law: 'L6', reason: 'the first output copies the prompt’s rows in the scheduler’s step' },
    {
      law: 'L1',
      reason: 'chunks before the last emit nothing; a request that is aborted before its first token has no rows',
      missing: 'aborted',
    },
    ...STALE_SLOTS,
  ],
  engineHalf: (model, engine) => new SlotStoreEngineHalf(model, engine),
  workerHalf: (context) => new SlotStoreWorkerHalf(context),
};

const blockStore: BuiltInDesign = {
  name: 'block-store',
  refusesStages:
    'as its source does (--enable-return-routed-experts with PP > 1): a block is published whole, by one worker',
  source: 'vllm RFC #45221, #45635',
  summary: 'immutable blocks of rows by KV block hash in the worker: vLLM’s newest',
  gaps: [
    { law: 'L5', reason: 'the rows of every step are stored; a request that asks may hit any block later' },
    { law: 'L6', reason: 'the step that ends a prompt brings all of its rows at once' },
    {
      law: 'L1',
      reason: 'the rows of an aborted request are not handed out; they are reported missing',
      missing: 'aborted',
    },
    {
      law: 'L9',
      reason:
        'blocks of one hash share the rows of the one that was published first; where passes over equal tokens ' +
        'differ, a request may get rows of KV that it did not read',
      shows: 'in simulation',
    },
  ],
  engineHalf: (model, engine) => new BlockStoreEngineHalf(model, engine),
  workerHalf: (context) => new BlockStoreWorkerHalf(context),
};

const deltas: BuiltInDesign = {
  name: 'deltas',
  refusesStages: null,
  source: 'RFC vllm#38079',
  summary: 'opted-in rows leave with the output of the step that computed them: the default',
  gaps: [],
  engineHalf: (model, engine, { prefixRows = DEFAULT_PREFIX_ROWS }) =>
    prefixRows === 'computed-only'
      ? new ComputedOnlyEngineHalf(model, engine)
      : new PrefixRowsEngineHalf(model, engine, prefixRowsPolicies[prefixRows]),
  workerHalf: (context) => new DeltasWorkerHalf(context),
};

/** The built-in designs by their names; the default is `deltas`. */
export const designs: Readonly<Record<DesignName, BuiltInDesign>> = {
  off,
  'shm-flock': shmFlock,
  deltas,
  'host-cache': hostCache,
  'slot-store': slotStore,
  'block-store': blockStore,
};

/** In the order of the table: the zero line first. */
export const designNames: readonly DesignName[] = Object.keys(designs) as DesignName[];

/** A built-in design. Throws UNKNOWN_NAME, with the names there are. */
export function designByName(name: string): BuiltInDesign {
  const design = Object.hasOwn(designs, name) ? designs[name as DesignName] : undefined;
  if (design !== undefined) return design;
  throw RoutedExpertsError.of('UNKNOWN_NAME', 'design', name, [...designNames, 'the path of a module (./mine.ts)']);
}

/** Throws STAGES_REFUSED for a design whose rows cannot be put together from those of pipeline stages. */
export function requireStages({ name, refusesStages }: Design): void {
  if (refusesStages === null) return;
  const unknown = 'the index of its payload is its own, and nobody else can join what several stages return';
  throw RoutedExpertsError.of('STAGES_REFUSED', name, refusesStages ?? unknown);
}
