/**
 * Defects that engines really had, each as a small patch of a design or its surroundings. A campaign that does not kill
 * one of them has a hole in its oracle. Numbers are those of the list of known defects in docs/simulation.md.
 */

import { RoutedExpertsError } from '../../contract/errors.ts';
import { LiveRequests } from '../../engine/live-requests.ts';
import { ReadbackRing } from '../../worker/pipeline/readback-ring.ts';
import { mutated, testedDesignByName, type Mutation, type TestedDesign } from '../tested-design.ts';
import { AppendingEngineHalf } from './appending-engine-half.ts';
import { captureMutants } from './capture-mutants.ts';
import {
  CountsOneTooMany,
  ForgetsOnAbort,
  ForgetsOnPreemption,
  KeepsStaleOutput,
  LeaksOnAbort,
  LocksAtEnd,
  MakesUpExternalRows,
  ReadsFreedBlocks,
  ReadsSlotsOfExternalKv,
  wrapping,
  ZerosForMissing,
} from './engine-mutants.ts';
import type { Mutant } from './mutant.ts';
import { offloadMutants } from './offload-mutants.ts';
import { prefixMutants } from './prefix-mutants.ts';
import { pdMutants } from './pd-mutants.ts';
import { stageMutants } from './stage-mutants.ts';
import { scheduleMutants } from './schedule-mutants.ts';
import {
  CountsPadding,
  draftModelInLayerZero,
  KeepsRejected,
  monolithicRouter,
  namedInSchedulerOrder,
  PredictsFinish,
  WrapsIds,
} from './worker-mutants.ts';

/** Frees the blocks of a request twice if it was aborted while steps were in flight. */
function installDoubleFree(): () => void {
  const original = LiveRequests.prototype.abort;
  LiveRequests.prototype.abort = function abort(this: LiveRequests, request) {
    const blocks = request.numInFlightTokens > 0 ? [...request.blockIds] : [];
    const output = original.call(this, request);
    this.kv.pool.freeTable(blocks);
    return output;
  };
  return () => {
    LiveRequests.prototype.abort = original;
  };
}

/** Frees a ring slot at once, before the map of its step has ended. */
function installEarlyRelease(): () => void {
  const { acquire, release } = ReadbackRing.prototype;
  ReadbackRing.prototype.acquire = function acquireAndRelease(this: ReadbackRing) {
    const slot = acquire.call(this);
    if (slot !== null) release.call(this, slot);
    return slot;
  };
  ReadbackRing.prototype.release = () => undefined;
  return () => Object.assign(ReadbackRing.prototype, { acquire, release });
}

const appending =
  (rewinds: boolean): NonNullable<Mutation['engineHalf']> =>
  (_half, model) =>
    new AppendingEngineHalf(model, rewinds);

export const mutants: readonly Mutant[] = [
  {
    number: 1,
    name: 'freed-block-read',
    defect: 'slot rows are read after the block was given to another request',
    source: 'vllm#39568 (the reason for its schedule-time snapshot)',
    base: 'shm-flock',
    mutation: { engineHalf: wrapping(ReadsFreedBlocks) },
  },
  {
    number: 2,
    name: 'staging-overwritten',
    defect: 'a staging buffer is used again before it was read, with two steps in flight',
    source: 'TensorRT-LLM#18397 (review)',
    base: 'deltas',
    mutation: { install: installEarlyRelease },
  },
  {
    number: 3,
    name: 'scheduler-order',
    defect: 'rows in the worker’s order are read in the scheduler’s',
    source: 'vllm#39568 (offsets are prefix sums in the worker’s order)',
    base: 'deltas',
    mutation: { output: namedInSchedulerOrder },
  },
  {
    number: 4,
    name: 'appended-twice',
    defect: 'positions that are computed again after a preemption are appended a second time',
    source: 'another engine: 71 rows for a sequence of 39 tokens',
    base: 'deltas',
    mutation: { engineHalf: appending(false) },
  },
  {
    number: 5,
    name: 'lost-on-preemption',
    defect: 'a preemption drops the rows that have arrived',
    source: 'the opposite mistake to number 4',
    base: 'deltas',
    mutation: { engineHalf: wrapping(ForgetsOnPreemption) },
  },
  {
    number: 6,
    name: 'lost-on-abort',
    defect: 'an abort drops the rows that have arrived',
    source: 'vllm block-store, newest variant: an abort returns no rows',
    base: 'deltas',
    mutation: { engineHalf: wrapping(ForgetsOnAbort) },
  },
  {
    number: 7,
    name: 'leak-on-abort',
    defect: 'what is held for a request aborted in flight is never released',
    source: 'vllm#39568 (127 snapshots over 300 runs)',
    base: 'deltas',
    mutation: { engineHalf: wrapping(LeaksOnAbort) },
  },
  {
    number: 8,
    name: 'zeros-for-hits',
    defect: 'rows of prefix-cached tokens are delivered as zeros',
    source: 'RFC vllm#38079 (no rows of tokens that were not computed)',
    base: 'deltas/computed-only',
    mutation: { engineHalf: wrapping(ZerosForMissing) },
  },
  {
    number: 9,
    name: 'stale-external-rows',
    defect: 'KV from another engine is taken over, and its rows are what its slots held before',
    source: 'vllm#39568 (review)',
    base: 'slot-store',
    mutation: { inPd: true, engineHalf: wrapping(ReadsSlotsOfExternalKv) },
  },
  {
    number: 10,
    name: 'padding-counted',
    defect: 'padding rows of a captured graph are counted',
    source: 'padding of CUDA graphs and sequence parallelism',
    base: 'deltas',
    mutation: { workerHalf: (half) => new CountsPadding(half) },
  },
  {
    number: 11,
    name: 'rejected-kept',
    defect: 'rows of rejected drafts are kept',
    source: 'vllm#39568 (slices the start of the span where drafts were scheduled)',
    base: 'deltas',
    mutation: { engineHalf: appending(true), workerHalf: (half) => new KeepsRejected(half) },
  },
  {
    number: 12,
    name: 'draft-in-layer-zero',
    defect: 'the draft model’s rows overwrite layer 0',
    source: 'vllm#48622',
    base: 'deltas',
    mutation: { kernels: draftModelInLayerZero },
  },
  {
    number: 13,
    name: 'ids-wrap',
    defect: 'ids of more than 256 experts are kept in a byte',
    source: 'vllm#39568 (u8 rows)',
    base: 'deltas',
    mutation: { workerHalf: (half, { model }) => new WrapsIds(half, model) },
  },
  {
    number: 14,
    name: 'monolithic-zeros',
    defect: 'a monolithic router runs no hook, and rows are all zero',
    source: 'vllm#44116',
    base: 'deltas',
    mutation: { kernels: monolithicRouter },
  },
  {
    number: 15,
    name: 'finish-predicted',
    defect: 'a finish that the worker predicts misses EOS and stop tokens',
    source: 'vllm#39917, reverted by #42434',
    base: 'block-store',
    mutation: { workerHalf: (half, context) => new PredictsFinish(half, context) },
  },
  {
    number: 16,
    name: 'one-too-many',
    defect: 'prompt and output rows, one too many',
    source: 'the row law: the last sampled token is never an input',
    base: 'deltas',
    mutation: { engineHalf: wrapping(CountsOneTooMany) },
  },
  {
    number: 17,
    name: 'double-free',
    defect: 'the blocks of a request aborted in flight are freed twice',
    source: 'vLLM’s step order: aborts are drained between execute and update',
    base: 'deltas',
    mutation: { install: installDoubleFree },
  },
  {
    number: 18,
    name: 'stale-after-reset',
    defect: 'an output that a cache reset made stale is delivered',
    source: 'vLLM’s reset_prefix_cache(reset_running_requests)',
    base: 'deltas',
    mutation: { engineHalf: wrapping(KeepsStaleOutput) },
  },
  {
    number: 19,
    name: 'decode-prompt-rows',
    defect: 'the decode engine hands out rows of its own for prompt tokens that the prefill engine computed',
    source: 'vllm#45419 (why a proxy has to splice)',
    base: 'deltas',
    mutation: { inPd: true, engineHalf: (half, model) => new MakesUpExternalRows(half, model) },
  },
  {
    number: 20,
    name: 'slow-lock-holder',
    defect: 'the holder of a file lock is alive and slow, and the scheduler’s step stands still as long',
    source: 'vllm#28284, RFC vllm#38079',
    base: 'deltas',
    mutation: { engineHalf: (half, _model, _engine, lock) => new LocksAtEnd(half, lock) },
  },
  ...prefixMutants,
  ...pdMutants,
  ...scheduleMutants,
  ...captureMutants,
  ...offloadMutants,
  ...stageMutants,
];

/** Not a mutant: the half that two mutants are made of, without the defect. It must survive. */
export const CONTROL: TestedDesign = mutated(
  testedDesignByName('deltas'),
  'control/appending',
  { engineHalf: appending(true) },
  [{ law: 'L1', reason: 'rows that are being computed again are not there yet', missing: 'aborted' }],
);

const PREFIX = 'mutant/';

export function mutantDesign(mutant: Mutant): TestedDesign {
  const base = testedDesignByName(mutant.base);
  return mutated(base, `${PREFIX}${mutant.name}`, mutant.mutation);
}

/** The tested design of a name; `mutant/` and a mutant's name count as one. Throws UNKNOWN_NAME. */
export function findTestedDesign(name: string): TestedDesign {
  if (!name.startsWith(PREFIX)) return testedDesignByName(name);
  const mutant = mutants.find((each) => each.name === name.slice(PREFIX.length));
  if (mutant !== undefined) return mutantDesign(mutant);
  throw RoutedExpertsError.of(
    'UNKNOWN_NAME',
    'mutant',
    name,
    mutants.map((each) => `${PREFIX}${each.name}`),
  );
}
