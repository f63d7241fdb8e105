/** vLLM's `SchedulerStats`: what the engine holds, and what has happened since the last ones. */

import type { EngineStats } from '../../engine/engine-core.ts';

type Totals = Pick<EngineStats, 'numPrefixQueries' | 'numPrefixQueryTokens' | 'numPrefixHitTokens'>;

export type Counts = Readonly<{ numRunning: number; numWaiting: number; kvCacheUsage: number }>;

/** `numHeld`: requests that wait outside of the engine, for the end of a pause. */
export function countsOf(stats: EngineStats, numHeld: number): Counts {
  const { numRunning, numWaiting, numWaitingForRemoteKvs, numUsedBlocks, numFreeBlocks } = stats;
  return {
    numRunning,
    numWaiting: numWaiting + numWaitingForRemoteKvs + numHeld,
    kvCacheUsage: numUsedBlocks / (numUsedBlocks + numFreeBlocks),
  };
}

export class SchedulerStats {
  #last: Totals = { numPrefixQueries: 0, numPrefixQueryTokens: 0, numPrefixHitTokens: 0 };
  #wasReset = false;

  /** The prefix cache was reset. */
  noteReset(): void {
    this.#wasReset = true;
  }

  /** Every key that is left out stands at vLLM's default. */
  take(stats: EngineStats, counts: Counts): Readonly<Record<string, unknown>> {
    const last = this.#last;
    const reset = this.#wasReset;
    this.#last = stats;
    this.#wasReset = false;
    return {
      ...countFields(counts),
      prefix_cache_stats: {
        reset,
        requests: stats.numPrefixQueries - last.numPrefixQueries,
        queries: stats.numPrefixQueryTokens - last.numPrefixQueryTokens,
        hits: stats.numPrefixHitTokens - last.numPrefixHitTokens,
      },
    };
  }
}

/** The fields that the coordinator balances by. */
export function countFields({ numRunning, numWaiting, kvCacheUsage }: Counts): Readonly<Record<string, number>> {
  return { num_running_reqs: numRunning, num_waiting_reqs: numWaiting, kv_cache_usage: kvCacheUsage };
}
