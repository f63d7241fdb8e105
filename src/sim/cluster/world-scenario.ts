/** What the world of a cluster's engine is told: sizes that fit its requests, and nothing that a storm draws. */

import type { EngineConfig } from '../../contract/config.ts';
import { validateEngineConfig } from '../../engine/engine-config.ts';
import type { Scenario, Timing } from '../scenario.ts';
import type { ClusterOptions } from './cluster-options.ts';

const NO_TIMING: Timing = {
  pass: 0,
  passJitter: 0,
  map: 0,
  mapJitter: 0,
  wire: 0,
  engine: 0,
  update: 0,
  respawn: 0,
  slowPassShare: 0,
  slowPassFactor: 1,
  lateMapShare: 0,
  lateMapFactor: 1,
};

/** `numRanks`: those that run for real. Requests and times come from the cluster. */
export function worldScenario(options: ClusterOptions, numRanks: number): Scenario {
  const { seed, model, queueDepth } = options;
  return {
    seed,
    model,
    engine: engineConfigOf(options),
    queueDepth,
    ringDepth: queueDepth + 1,
    numRanks,
    maxRestarts: 0,
    hasEpochs: false,
    readsAtOnce: true,
    timing: NO_TIMING,
    requests: [],
    faults: [],
  };
}

/** Throws BAD_VALUE. */
export function engineConfigOf(options: ClusterOptions): EngineConfig {
  const { prompt, output, concurrency, queueDepth, maxNumBatchedTokens, served } = options;
  if (served !== null) return served.engine;
  const blockSize = 16;
  const maxModelLen = prompt.to + output.to + 1;
  const engine: EngineConfig = {
    blockSize,
    numBlocks: 1 + concurrency * (Math.ceil(maxModelLen / blockSize) + 1),
    maxNumSeqs: concurrency,
    maxNumBatchedTokens,
    maxModelLen,
    policy: 'fcfs',
    asyncScheduling: queueDepth > 1,
    enablePrefixCaching: true,
    enableChunkedPrefill: true,
    longPrefillTokenThreshold: 0,
    reserveFullIsl: true,
    watermark: 0,
    numSpeculativeTokens: 0,
  };
  validateEngineConfig(engine);
  return engine;
}
