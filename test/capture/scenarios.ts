/**
 * What the contract suite puts a design through: engine configurations and what happens to the requests, drawn from a
 * seed.
 */

import type { EngineConfig } from '../../src/contract/config.ts';

export type Scenario = Readonly<{
  name: string;
  engine: Partial<EngineConfig>;
  numRequests: number;
  /** Tokens, both ends included. */
  promptLength: readonly [least: number, most: number];
  maxTokens: readonly [least: number, most: number];
  /** Chances that a request has each property. */
  optIn: number;
  sharesPrefix: number;
  hasPromptStart: number;
  hasStopTokens: number;
  /** Chances of each event between two calls of the engine. */
  abort: number;
  resetCache: number;
  loseWorkers: number;
  /** The worker's answer comes with its requests in another order. */
  shufflesWorkerOrder: boolean;
  /** Without this the scenario has missed its point: counted over all its seeds, at least one each. */
  mustHappen: readonly (keyof Happened)[];
}>;

/** How often a run went where it hurts. */
export type Happened = {
  preemptions: number;
  prefixHits: number;
  prefillChunks: number;
  aborts: number;
  abortsInFlight: number;
  rejectedDrafts: number;
  acceptedDrafts: number;
  resets: number;
  losses: number;
  stops: number;
  reordered: number;
};

export const BASE_ENGINE: EngineConfig = {
  blockSize: 4,
  numBlocks: 64,
  maxNumSeqs: 5,
  maxNumBatchedTokens: 32,
  maxModelLen: 64,
  policy: 'fcfs',
  asyncScheduling: false,
  enablePrefixCaching: true,
  enableChunkedPrefill: true,
  longPrefillTokenThreshold: 0,
  reserveFullIsl: false,
  watermark: 0,
  numSpeculativeTokens: 0,
};

const plain: Scenario = {
  name: 'plain',
  engine: {},
  numRequests: 7,
  promptLength: [1, 14],
  maxTokens: [1, 10],
  optIn: 1,
  sharesPrefix: 0,
  hasPromptStart: 0,
  hasStopTokens: 0,
  abort: 0,
  resetCache: 0,
  loseWorkers: 0,
  shufflesWorkerOrder: false,
  mustHappen: [],
};

/** A pool that five requests overrun. */
const tinyPool: Partial<EngineConfig> = { numBlocks: 11 };

export const scenarios: readonly Scenario[] = [
  plain,
  { ...plain, name: 'nobody opted in', optIn: 0, sharesPrefix: 0.5, engine: tinyPool, mustHappen: ['preemptions'] },
  { ...plain, name: 'preempt', engine: tinyPool, maxTokens: [4, 14], mustHappen: ['preemptions'] },
  {
    ...plain,
    name: 'preempt by priority',
    engine: { ...tinyPool, policy: 'priority' },
    numRequests: 9,
    maxTokens: [4, 14],
    sharesPrefix: 0.6,
    mustHappen: ['preemptions', 'prefixHits'],
  },
  {
    ...plain,
    name: 'preempt without prefix cache',
    engine: { ...tinyPool, enablePrefixCaching: false },
    maxTokens: [4, 14],
    mustHappen: ['preemptions'],
  },
  {
    ...plain,
    name: 'abort',
    engine: { numBlocks: 16, maxNumBatchedTokens: 12 },
    abort: 0.08,
    mustHappen: ['aborts', 'abortsInFlight'],
  },
  { ...plain, name: 'prefix hit', sharesPrefix: 0.9, mustHappen: ['prefixHits'] },
  {
    ...plain,
    name: 'chunked prefill',
    engine: { maxNumBatchedTokens: 7 },
    promptLength: [8, 30],
    mustHappen: ['prefillChunks'],
  },
  {
    ...plain,
    name: 'spec rejection',
    engine: { numSpeculativeTokens: 2, numBlocks: 17 },
    maxTokens: [4, 14],
    mustHappen: ['rejectedDrafts', 'acceptedDrafts'],
  },
  {
    ...plain,
    name: 'reset with running requests',
    engine: { numBlocks: 24 },
    resetCache: 0.06,
    sharesPrefix: 0.5,
    mustHappen: ['resets'],
  },
  { ...plain, name: 'worker order shuffled', shufflesWorkerOrder: true, mustHappen: ['reordered'] },
  {
    ...plain,
    name: 'mixed opt-in',
    engine: { ...tinyPool, maxNumSeqs: 3 },
    optIn: 0.5,
    sharesPrefix: 0.7,
    mustHappen: ['prefixHits', 'preemptions'],
  },
  { ...plain, name: 'prompt start', hasPromptStart: 1, engine: { maxNumBatchedTokens: 9 }, sharesPrefix: 0.3 },
  { ...plain, name: 'workers lost', loseWorkers: 0.05, sharesPrefix: 0.3, mustHappen: ['losses'] },
  { ...plain, name: 'stop tokens', hasStopTokens: 1, maxTokens: [6, 14], mustHappen: ['stops'] },
  {
    ...plain,
    name: 'everything',
    engine: { numSpeculativeTokens: 2, numBlocks: 14, maxNumBatchedTokens: 12, policy: 'priority' },
    numRequests: 9,
    optIn: 0.7,
    sharesPrefix: 0.6,
    hasPromptStart: 0.4,
    hasStopTokens: 0.3,
    abort: 0.03,
    resetCache: 0.02,
    loseWorkers: 0.01,
    shufflesWorkerOrder: true,
    mustHappen: ['preemptions', 'prefixHits', 'aborts', 'rejectedDrafts'],
  },
];

export type SchedulingMode = Readonly<{ name: string; asyncScheduling: boolean; depth: number }>;

export const modes: readonly SchedulingMode[] = [
  { name: 'sync', asyncScheduling: false, depth: 1 },
  { name: 'async depth 2', asyncScheduling: true, depth: 2 },
  { name: 'async depth 3', asyncScheduling: true, depth: 3 },
];
