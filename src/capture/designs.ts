/**
 * The table that names the built-in capture designs. The engine and the runner are handed a half; nobody but their
 * makers reads this.
 */

import type { CaptureEngineHalf, CaptureWorkerContext, CaptureWorkerHalf } from '../contract/capture.ts';
import type { DesignName, EngineConfig, ModelConfig, PrefixRows } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import { BlockStoreEngineHalf } from './block-store/engine-half.ts';
import { BlockStoreWorkerHalf } from './block-store/worker-half.ts';
import { DeltasEngineHalf } from './deltas/engine-half.ts';
import { DeltasWorkerHalf } from './deltas/worker-half.ts';
import { HostCacheEngineHalf } from './host-cache/engine-half.ts';
import { HostCacheWorkerHalf } from './host-cache/worker-half.ts';
import { ShmFlockEngineHalf } from './shm-flock/engine-half.ts';
import type { SharedRows } from './shm-flock/shared-rows.ts';
import { ShmFlockWorkerHalf } from './shm-flock/worker-half.ts';
import { SlotStoreEngineHalf } from './slot-store/engine-half.ts';
import { SlotStoreWorkerHalf } from './slot-store/worker-half.ts';

/** What some built-in designs need of their surroundings; made only if the design asks. */
export type DesignResources = Readonly<{
  sharedRows: () => SharedRows;
  /** Policy of `deltas`; absent = `complete`. */
  prefixRows?: PrefixRows;
}>;

/**
 * Rows that a design may report missing: all of them; those of positions that an admission found in the prefix cache;
 * those of a request that was aborted, that a stop token or EOS ended, or that ended while it held no blocks.
 */
export type MissingRows = 'all' | 'prefix-hit' | 'aborted' | 'stopped' | 'ended-without-blocks';

/**
 * A law that a design breaks by nature, and why. The contract suite accepts a missing row only if `missing` explains
 * it, and wants to see each gap; one that takes a fault which only the simulator injects says so.
 */
export type DeclaredGap = Readonly<{
  law: `L${number}`;
  reason: string;
  missing?: MissingRows;
  shows?: 'in simulation';
}>;

/** A capture design: built in, or exported by a module of the caller's own. */
export type Design = Readonly<{
  name: string;
  /** Where it comes from. */
  source?: string;
  summary?: string;
  gaps: readonly DeclaredGap[];
  /** `null`: the engine captures nothing. */
  engineHalf: (model: ModelConfig, engine: EngineConfig, resources: DesignResources) => CaptureEngineHalf | null;
  workerHalf: (context: CaptureWorkerContext, resources: DesignResources) => CaptureWorkerHalf | null;
}>;

type BuiltInDesign = Design & Readonly<{ name: DesignName }>;

const off: BuiltInDesign = {
  name: 'off',
  source: '–',
  summary: 'no capture: the zero line',
  gaps: [{ law: 'L1', reason: 'returns no rows at all', missing: 'all' }],
  engineHalf: () => null,
  workerHalf: () => null,
};

const shmFlock: BuiltInDesign = {
  name: 'shm-flock',
  source: 'vllm#28284',
  summary: 'shared memory and a file lock, read when a request stops: the baseline',
  gaps: [
    { law: 'L5', reason: 'stores every step and reads every finished request, whoever opted in' },
    {
      law: 'L6',
      reason:
        'blocking device reads; in the scheduler’s step a copy as long as the request, and a lock: a slow holder stops it',
    },
    { law: 'L1', reason: 'an aborted request’s rows are not read: reported missing', missing: 'aborted' },
    {
      law: 'L1',
      reason: 'a last token that arrives after a preemption finds no block table to read by: reported missing',
      missing: 'ended-without-blocks',
    },
  ],
  engineHalf: (model, engine, { sharedRows }) => new ShmFlockEngineHalf(model, engine, sharedRows()),
  workerHalf: (context, { sharedRows }) => new ShmFlockWorkerHalf(context, context.rank === 0 ? sharedRows() : null),
};

const hostCache: BuiltInDesign = {
  name: 'host-cache',
  source: 'vllm#39917',
  summary: 'a cache per request in the worker, emitted when the worker predicts the end: reverted',
  gaps: [
    { law: 'L6', reason: 'the last output copies all rows of the request in the scheduler’s step' },
    { law: 'L1', reason: 'the worker does not foresee EOS or a stop token: no rows', missing: 'stopped' },
    { law: 'L1', reason: 'the worker does not foresee an abort: no rows', missing: 'aborted' },
    { law: 'L1', reason: 'rows of tokens that a cached block spared were never computed', missing: 'prefix-hit' },
    {
      law: 'L9',
      reason:
        'the worker keeps rows of an output that a cache reset threw away; where a later hit spares the position, they stay',
      shows: 'in simulation',
    },
  ],
  engineHalf: (model, engine) => new HostCacheEngineHalf(model, engine),
  workerHalf: (context) => new HostCacheWorkerHalf(context),
};

const slotStore: BuiltInDesign = {
  name: 'slot-store',
  source: 'vllm#39568',
  summary: 'a table by KV slot in the scheduler, rows with every output: today’s released vLLM',
  gaps: [
    { law: 'L5', reason: 'stores the rows of every step: any block may be hit later by a request that asks' },
    { law: 'L6', reason: 'the first output copies the prompt’s rows in the scheduler’s step' },
    {
      law: 'L1',
      reason: 'chunks before the last emit nothing: aborted before its first token, a request has no rows',
      missing: 'aborted',
    },
  ],
  engineHalf: (model, engine) => new SlotStoreEngineHalf(model, engine),
  workerHalf: (context) => new SlotStoreWorkerHalf(context),
};

const blockStore: BuiltInDesign = {
  name: 'block-store',
  source: 'vllm RFC #45221, #45635',
  summary: 'immutable blocks of rows by KV block hash in the worker: vLLM’s newest',
  gaps: [
    { law: 'L5', reason: 'stores the rows of every step: any block may be hit later by a request that asks' },
    { law: 'L6', reason: 'the step that ends a prompt brings all of its rows at once' },
    { law: 'L1', reason: 'an aborted request’s rows are not handed out: reported missing', missing: 'aborted' },
    {
      law: 'L9',
      reason:
        'blocks of one hash share the rows of whichever was published first: where passes over equal tokens differ, rows may be of another’s KV',
      shows: 'in simulation',
    },
  ],
  engineHalf: (model, engine) => new BlockStoreEngineHalf(model, engine),
  workerHalf: (context) => new BlockStoreWorkerHalf(context),
};

const deltas: BuiltInDesign = {
  name: 'deltas',
  source: 'RFC vllm#38079',
  summary: 'opted-in rows leave with the output of the step that computed them: the default',
  gaps: [],
  engineHalf: (model, engine, { prefixRows }) => new DeltasEngineHalf(model, engine, prefixRows),
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
