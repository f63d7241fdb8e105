/**
 * Draws a scenario for each seed, by swarm: a seed draws not only how strong a fault is but which faults exist at all,
 * and shapes pool, budgets and lengths so that some seeds are cramped and others roomy. Uniform scenarios would all be
 * alike and never reach the edges.
 */

import type { EngineConfig, ModelConfig } from '../contract/config.ts';
import { Oracle } from '../kernels/model/oracle.ts';
import { random, type Random } from '../workload/random.ts';
import { STEP_PHASES, type Fault, type Moment } from './fault.ts';
import type { Scenario, ScenarioRequest, Timing } from './scenario.ts';
import { routerOf } from './virtual/sim-kernels.ts';

const model = (numLayers: number, numExperts: number, topK: number, vocabSize: number): ModelConfig => ({
  name: `sim-${numLayers}x${numExperts}`,
  numLayers,
  numExperts,
  topK,
  vocabSize,
  gateWidth: 8,
});

/** Ids of `SMALL` and `ODD` fit one byte; those of `WIDE` need two. */
const SMALL = model(2, 8, 2, 29);
const ODD = model(3, 5, 1, 13);
const WIDE = model(1, 300, 2, 29);

export class Draw {
  readonly #stream: Random;

  constructor(seed: number, name: string) {
    this.#stream = random(seed, `sim/${name}`);
  }

  /** Draws a whole number in [least, most]. */
  int(least: number, most: number): number {
    return least + this.#stream.below(most - least + 1);
  }

  chance(share: number): boolean {
    return this.#stream.nextFloat() < share;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.#stream.below(choices.length)]!;
  }
}

/** Draws the scenario of a seed: the same on every machine and for every design. */
export function drawScenario(seed: number): Scenario {
  const draw = new Draw(seed, 'swarm');
  const routed = draw.chance(0.03) ? WIDE : draw.chance(0.1) ? ODD : SMALL;
  const queueDepth = draw.pick([1, 2, 2, 2, 3]);
  const requests = drawRequests(seed, routed, draw);
  const engine = drawEngine(draw, queueDepth, requests);
  const ringDepth = draw.chance(0.5) ? queueDepth + 1 : draw.int(1, queueDepth);
  const numRanks = draw.chance(0.06) ? 2 : 1;
  const scenario: Scenario = {
    seed,
    model: routed,
    engine,
    queueDepth,
    ringDepth,
    numRanks,
    maxRestarts: draw.chance(0.1) ? draw.int(0, 1) : 100,
    hasEpochs: draw.chance(0.15),
    readsAtOnce: draw.chance(0.8),
    timing: drawTiming(draw),
    requests,
    faults: drawFaults(seed, draw, requests, numRanks),
  };
  return underPressure(scenario, new Draw(seed, 'pressure'));
}

/** Four of ten storms are shaped for situations that independent draws hardly ever produce. */
function underPressure(scenario: Scenario, draw: Draw): Scenario {
  const share = draw.int(1, 10);
  if (share <= 2) return rankPressure(scenario, draw);
  if (share === 3) return resetPressure(scenario, draw);
  return share === 4 ? draftPressure(scenario, draw) : scenario;
}

/**
 * Every other request has a long prompt, computed in chunks. The requests between outrank it, take its blocks with
 * their last chunk, while the step that runs both is being planned, and are soon over. Then it looks for what is left
 * of its prefix, and so do its twins.
 */
function rankPressure(scenario: Scenario, draw: Draw): Scenario {
  const { model: routed, requests: drawn } = scenario;
  const chunk = draw.int(3, 6);
  const requests: ScenarioRequest[] = [];
  let at = 0;
  const count = draw.int(3, 7);
  for (let i = 0; i < count; i += 1) {
    const request = drawn[i % drawn.length]!;
    const isLong = i % 2 === 0;
    const length = isLong ? draw.int(2 * chunk, 4 * chunk) : draw.int(chunk + 1, 2 * chunk);
    const prompt =
      isLong && i > 0 && draw.chance(0.5)
        ? requests[i - 2]!.prompt
        : Array.from({ length }, () => draw.int(0, routed.vocabSize - 1));
    requests.push({
      ...request,
      at,
      id: i < drawn.length ? request.id : `r${i}`,
      prompt,
      maxTokens: isLong ? request.maxTokens : 1,
      minTokens: 0,
      rowsFrom: Math.min(request.rowsFrom, prompt.length - 1),
      priority: count - i,
    });
    at += isLong ? draw.int(50, 300) : draw.int(200, 1200);
  }
  const engine: EngineConfig = {
    ...scenario.engine,
    blockSize: draw.pick([1, 1, 2, 3]),
    policy: 'priority',
    enableChunkedPrefill: true,
    maxModelLen: Math.max(scenario.engine.maxModelLen, 4 * chunk + 12),
    maxNumBatchedTokens: 4 * chunk,
    longPrefillTokenThreshold: chunk,
    maxNumSeqs: 6,
  };
  return { ...scenario, requests, engine: tightened(engine, requests, draw) };
}

/** Requests that a cache reset preempted are preempted again while outputs from before the reset are in flight. */
function resetPressure(scenario: Scenario, draw: Draw): Scenario {
  const { requests, engine, faults } = scenario;
  const resets = Array.from({ length: draw.int(4, 12) }, (): Fault => {
    const when = { step: draw.int(1, 4 + requests.length * 4), phase: draw.pick(STEP_PHASES) };
    return { when, kind: 'reset-cache', preempt: true };
  });
  return {
    ...scenario,
    queueDepth: 3,
    requests: requests.map((request) => ({ ...request, at: request.at % 100 })),
    engine: { ...tightened(engine, requests, draw), asyncScheduling: true, maxNumSeqs: 6 },
    faults: [...faults, ...resets],
  };
}

/** Drafts reach the model's length, and a budget leaves some of their requests out of a step. */
function draftPressure(scenario: Scenario, draw: Draw): Scenario {
  const { requests } = scenario;
  const longest = Math.max(...requests.map(({ prompt }) => prompt.length));
  const engine: EngineConfig = {
    ...scenario.engine,
    numSpeculativeTokens: draw.int(1, 3),
    asyncScheduling: draw.chance(0.8),
    enableChunkedPrefill: true,
    maxNumBatchedTokens: draw.int(2, 8),
    longPrefillTokenThreshold: draw.pick([0, 0, 2, 3]),
    maxModelLen: Math.max(1, longest) + draw.int(1, 8),
    maxNumSeqs: draw.int(2, 6),
  };
  const leastBlocks = 1 + blocksOfLargest(requests, engine) + draftBlocks(engine);
  return { ...scenario, engine: { ...engine, numBlocks: Math.max(engine.numBlocks, leastBlocks) } };
}

/** The same engine with room for little more than its largest request. */
function tightened(engine: EngineConfig, requests: readonly ScenarioRequest[], draw: Draw): EngineConfig {
  const numBlocks = 1 + blocksOfLargest(requests, engine) + draftBlocks(engine) + draw.int(0, 2);
  return { ...engine, numBlocks: Math.max(2, numBlocks), reserveFullIsl: false, watermark: 0 };
}

type PoolShape = Pick<EngineConfig, 'blockSize' | 'maxModelLen'>;

/** Returns how many blocks the inputs of a request need. */
function blocksOf({ prompt, maxTokens }: ScenarioRequest, { blockSize, maxModelLen }: PoolShape): number {
  return Math.ceil(Math.min(prompt.length + maxTokens - 1, maxModelLen) / blockSize);
}

function blocksOfLargest(requests: readonly ScenarioRequest[], shape: PoolShape): number {
  return Math.max(...requests.map((request) => blocksOf(request, shape)));
}

/** Returns how many more blocks the drafts of a step can need. */
function draftBlocks({
  numSpeculativeTokens,
  blockSize,
}: Pick<EngineConfig, 'numSpeculativeTokens' | 'blockSize'>): number {
  return Math.ceil(numSpeculativeTokens / blockSize);
}

/** `like`: the engine that shares its blocks with this one. */
export function drawEngine(
  draw: Draw,
  queueDepth: number,
  requests: readonly ScenarioRequest[],
  like?: EngineConfig,
): EngineConfig {
  const blockSize = like?.blockSize ?? draw.pick([1, 2, 2, 3, 4, 4, 5, 8]);
  const maxModelLen = like?.maxModelLen ?? draw.int(16, 44);
  const enableChunkedPrefill = draw.chance(0.85);
  const numSpeculativeTokens = draw.chance(0.3) ? draw.int(1, 3) : 0;
  const asyncScheduling = queueDepth > 1 ? draw.chance(0.9) : draw.chance(0.2);
  // The pool has from one block too few for the largest request to room for all.
  const shape: PoolShape = { blockSize, maxModelLen };
  const largest = blocksOfLargest(requests, shape);
  const all = requests.reduce((sum, request) => sum + blocksOf(request, shape), 0);
  const usable = draw.chance(0.06)
    ? largest - 1
    : draw.chance(0.3)
      ? largest + draw.int(0, 2)
      : draw.int(largest, Math.max(largest, all + 2));
  return {
    blockSize,
    numBlocks: Math.max(2, usable + draftBlocks({ numSpeculativeTokens, blockSize }) + 1),
    maxNumSeqs: draw.int(1, 6),
    maxNumBatchedTokens: enableChunkedPrefill ? draw.int(1, draw.pick([4, 12, 32])) : maxModelLen,
    maxModelLen,
    policy: draw.chance(0.7) ? 'fcfs' : 'priority',
    asyncScheduling,
    enablePrefixCaching: draw.chance(0.85),
    enableChunkedPrefill,
    longPrefillTokenThreshold: draw.chance(0.2) ? draw.int(1, 6) : 0,
    reserveFullIsl: draw.chance(0.5),
    watermark: draw.chance(0.1) ? 0.1 : 0,
    numSpeculativeTokens,
  };
}

function drawRequests(seed: number, routed: ModelConfig, swarm: Draw): ScenarioRequest[] {
  const draw = new Draw(seed, 'requests');
  const { vocabSize } = routed;
  const token = (): number => draw.int(0, vocabSize - 1);
  const count = swarm.int(1, swarm.pick([3, 5, 8]));
  const longestPrompt = swarm.pick([4, 12, 20]);
  const longestOutput = swarm.pick([2, 6, 12]);
  const span = swarm.pick([0, 200, 1000, 3000]);
  const optInShare = swarm.pick([0, 0.3, 0.7, 1, 1]);
  const stopShare = swarm.pick([0, 0.3, 0.8]);
  const sharing = swarm.pick([0, 0.5, 0.9]);
  const clones = swarm.pick([0, 0.2, 0.5]);
  const duplicates = swarm.chance(0.1) ? 0.3 : 0;
  const salts = swarm.chance(0.15) ? 0.4 : 0;
  const bad = swarm.chance(0.06) ? 0.3 : 0;
  const families = Array.from({ length: 2 }, () => Array.from({ length: longestPrompt }, token));
  const requests: ScenarioRequest[] = [];
  for (let i = 0; i < count; i += 1) {
    const twin = requests.length > 0 && draw.chance(clones) ? draw.pick(requests) : null;
    const shared = draw.chance(sharing) ? draw.pick(families).slice(0, draw.int(1, longestPrompt)) : [];
    const tail = Array.from({ length: draw.int(shared.length > 0 ? 0 : 1, longestPrompt) }, token);
    const prompt = twin?.prompt ?? [...shared, ...tail];
    const maxTokens = draw.int(1, longestOutput);
    const stops = draw.chance(stopShare) ? drawStops(draw, routed, prompt, maxTokens) : null;
    const isBad = draw.chance(bad);
    requests.push({
      at: twin !== null && draw.chance(0.5) ? twin.at : draw.int(0, span),
      id: requests.length > 0 && draw.chance(duplicates) ? draw.pick(requests).id : `r${i}`,
      prompt: isBad && draw.chance(0.3) ? [] : prompt,
      maxTokens,
      minTokens: draw.chance(0.2) ? draw.int(0, maxTokens) : 0,
      eos: stops !== null && draw.chance(0.5) ? stops[0]! : null,
      stops: stops ?? [],
      rows: draw.chance(optInShare),
      rowsFrom: isBad ? draw.int(0, prompt.length) : draw.chance(0.25) ? draw.int(0, prompt.length - 1) : 0,
      priority: draw.int(0, 2),
      salt: draw.chance(salts) ? draw.pick(['a', 'b']) : null,
    });
  }
  return requests;
}

/**
 * Draws stop tokens that the request will really sample, so that it stops at a chosen output: the first, the last, or
 * one between.
 */
function drawStops(draw: Draw, routed: ModelConfig, prompt: readonly number[], maxTokens: number): number[] {
  const oracle = new Oracle(routerOf(routed));
  const at = draw.pick([0, maxTokens - 1, draw.int(0, maxTokens - 1)]);
  let next = 0;
  for (const token of prompt) next = oracle.push(token);
  for (let i = 0; i < at; i += 1) next = oracle.push(next);
  return draw.chance(0.3) ? [next, draw.int(0, routed.vocabSize - 1)] : [next];
}

function drawTiming(draw: Draw): Timing {
  const isSlow = draw.chance(0.2);
  const isLate = draw.chance(0.3);
  return {
    pass: 60,
    passJitter: draw.pick([0, 20, 100]),
    map: draw.pick([1, 10, 80]),
    mapJitter: draw.pick([0, 20, 200]),
    wire: draw.pick([0, 5, 40]),
    engine: draw.pick([0, 5, 60]),
    // 1000 stands for an event loop that is held up: workers run ahead of it as far as the queue lets them.
    update: draw.pick([0, 5, 60, 1000]),
    respawn: draw.pick([1, 200, 1000]),
    slowPassShare: isSlow ? draw.pick([0.1, 0.5]) : 0,
    slowPassFactor: draw.int(2, 20),
    lateMapShare: isLate ? draw.pick([0.1, 0.5]) : 0,
    lateMapFactor: draw.int(2, 20),
  };
}

export function drawFaults(seed: number, swarm: Draw, requests: readonly ScenarioRequest[], numRanks: number): Fault[] {
  const draw = new Draw(seed, 'faults');
  const killedRanks = new Draw(seed, 'killed-ranks');
  const lastStep = 4 + requests.length * 3;
  const moment = (): Moment =>
    draw.chance(0.15) ? { at: draw.int(0, 3000) } : { step: draw.int(0, lastStep), phase: draw.pick(STEP_PHASES) };
  const faults: Fault[] = [];
  if (swarm.chance(0.35)) {
    for (let i = swarm.int(1, 4); i > 0; i -= 1) {
      const ids = [draw.pick(requests).id];
      if (draw.chance(0.2)) ids.push(draw.pick(requests).id);
      if (draw.chance(0.1)) ids.push('nobody', ids[0]!);
      const when = moment();
      faults.push({ when, kind: 'abort', ids });
      // The client aborts twice.
      if (draw.chance(0.15)) faults.push({ when, kind: 'abort', ids });
    }
  }
  if (swarm.chance(0.15)) {
    for (let i = swarm.int(1, 3); i > 0; i -= 1) {
      faults.push({ when: moment(), kind: 'reset-cache', preempt: draw.chance(0.8) });
    }
  }
  if (swarm.chance(0.12)) {
    for (let i = swarm.int(1, 2); i > 0; i -= 1) {
      faults.push({ when: moment(), kind: 'kill', rank: killedRanks.int(0, numRanks - 1) });
    }
  }
  if (swarm.chance(0.05)) {
    faults.push({ when: moment(), kind: 'slow-lock-holder', ticks: draw.pick([700, 5000, 50_000]) });
  }
  return faults;
}
