/**
 * The small worlds: two requests, up to four steps, and every pair of things that can befall them, at queue depth 1 and
 * 2.
 */

import type { Fault } from '../../src/sim/fault.ts';
import type { Scenario, ScenarioRequest } from '../../src/sim/scenario.ts';

/** What can befall: each alone, and each two of them in either order. */
const EVENTS = {
  'abort first': (at) => ({ when: { at }, kind: 'abort', ids: ['a'] }),
  'abort second': (at) => ({ when: { at }, kind: 'abort', ids: ['b'] }),
  preempt: (at) => ({ when: { at }, kind: 'reset-cache', preempt: true }),
  'lose worker': (at) => ({ when: { at }, kind: 'kill', rank: 0 }),
} as const satisfies Record<string, (at: number) => Fault>;

type EventName = keyof typeof EVENTS;

export type SmallWorld = Readonly<{ name: string; scenario: Scenario }>;

/** @param numEvents how many events each world has: 1 or 2 */
export function smallWorlds(queueDepth: 1 | 2, numEvents: 1 | 2): SmallWorld[] {
  const names = Object.keys(EVENTS) as EventName[];
  const sequences: EventName[][] =
    numEvents === 1 ? names.map((name) => [name]) : names.flatMap((a) => names.map((b) => [a, b]));
  return (['roomy', 'tight'] as const).flatMap((pool) =>
    sequences.map((events) => ({
      name: `depth ${queueDepth}, ${pool} pool: ${events.join(', then ')}`,
      scenario: scenarioOf(queueDepth, pool, events),
    })),
  );
}

/** Both are there from the start. The second hits the first block of the first, in the same step even. */
function requestOf(id: string, prompt: readonly number[]): ScenarioRequest {
  return {
    at: 0,
    id,
    prompt,
    maxTokens: 2,
    minTokens: 0,
    eos: null,
    stops: [],
    rows: true,
    rowsFrom: 0,
    priority: 0,
    salt: null,
  };
}

function scenarioOf(queueDepth: number, pool: 'roomy' | 'tight', events: readonly EventName[]): Scenario {
  const prompt = pool === 'roomy' ? [1, 2, 3] : [1, 2];
  return {
    seed: 1,
    model: { name: 'small-world', numLayers: 2, numExperts: 8, topK: 2, vocabSize: 29, gateWidth: 8 },
    engine: {
      // Tight: both fit while neither samples; the second is preempted as soon as the first grows.
      blockSize: pool === 'roomy' ? 2 : 1,
      numBlocks: pool === 'roomy' ? 9 : 5,
      maxNumSeqs: 2,
      maxNumBatchedTokens: 8,
      maxModelLen: 8,
      policy: 'fcfs',
      asyncScheduling: queueDepth > 1,
      enablePrefixCaching: true,
      enableChunkedPrefill: true,
      longPrefillTokenThreshold: 0,
      reserveFullIsl: false,
      watermark: 0,
      numSpeculativeTokens: 0,
    },
    queueDepth,
    ringDepth: queueDepth,
    numRanks: 1,
    maxRestarts: 2,
    hasEpochs: false,
    readsAtOnce: true,
    timing: {
      pass: 1,
      passJitter: 0,
      map: 1,
      mapJitter: 0,
      wire: 0,
      engine: 0,
      update: 0,
      respawn: 1,
      slowPassShare: 0,
      slowPassFactor: 1,
      lateMapShare: 0,
      lateMapFactor: 1,
    },
    requests: [requestOf('a', prompt), requestOf('b', prompt)],
    faults: events.map((name, i) => EVENTS[name](1 + i)),
  };
}
