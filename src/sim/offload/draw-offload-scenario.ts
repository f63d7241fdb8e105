/** The storm of a seed, with KV that goes to host memory and files and comes back. */

import { Draw, drawScenario } from '../draw-scenario.ts';
import type { Fault } from '../fault.ts';
import type { Scenario } from '../scenario.ts';
import type { CopyTiming, OffloadScenario, VirtualFiles } from './offload-scenario.ts';

/**
 * The same on every machine and for every design. Requests, engine and faults are those of `drawScenario(seed)`, but
 * for what makes blocks come and go: prefixes that are cached, asked for again, and hold the pool too tight.
 */
export function drawOffloadScenario(seed: number): Scenario {
  const base = drawScenario(seed);
  const draw = new Draw(seed, 'offload');
  const offload: OffloadScenario = {
    hostBlocks: draw.pick([1, 3, 8, 30, 100]),
    mostCopies: draw.chance(0.7) ? base.queueDepth : 1,
    copy: drawTiming(draw),
    failedCopyShare: draw.chance(0.2) ? draw.pick([0.05, 0.5]) : 0,
    files: draw.chance(0.5) ? drawFiles(draw) : null,
  };
  const isTight = draw.chance(0.7);
  const hasEpochs = draw.chance(0.5);
  const repeats = draw.chance(0.7) ? draw.int(1, 2) : 0;
  const span = draw.pick([1000, 3000, 8000]);
  const abortShare = draw.chance(0.3) ? draw.pick([0.2, 0.5]) : 0;
  const requests = [...base.requests];
  const aborts: Fault[] = [];
  // Prompts come again, when others have taken their blocks: first those without rows, then those with, and the other
  // way round.
  for (let round = 1; round <= repeats; round += 1) {
    for (const [i, request] of base.requests.entries()) {
      if (request.prompt.length === 0) continue;
      const rows = draw.chance(0.3) ? !request.rows : request.rows;
      const [id, at] = [`r${i}/${round}`, request.at + round * span];
      requests.push({ ...request, id, at, rows });
      if (draw.chance(abortShare)) aborts.push({ when: { at: at + draw.int(1, 400) }, kind: 'abort', ids: [id] });
    }
  }
  return {
    ...base,
    hasEpochs,
    requests,
    faults: [...base.faults, ...aborts],
    engine: {
      ...base.engine,
      enablePrefixCaching: base.engine.enablePrefixCaching || draw.chance(0.9),
      numBlocks: isTight ? tightPool(base, draw) : base.engine.numBlocks,
    },
    offload,
  };
}

/** Room for the largest request and a little more, unless the pool is smaller already. */
function tightPool({ engine, requests }: Scenario, draw: Draw): number {
  const { blockSize, maxModelLen, numSpeculativeTokens, numBlocks } = engine;
  const largest = Math.max(
    ...requests.map(({ prompt, maxTokens }) => Math.min(prompt.length + maxTokens + numSpeculativeTokens, maxModelLen)),
  );
  return Math.min(numBlocks, 1 + Math.ceil(largest / blockSize) + draw.int(1, 4));
}

function drawTiming(draw: Draw): CopyTiming {
  const isSlow = draw.chance(0.3);
  return {
    ticks: draw.pick([1, 10, 100, 500]),
    jitter: draw.pick([0, 20, 200]),
    slowShare: isSlow ? draw.pick([0.1, 0.5]) : 0,
    slowFactor: draw.int(2, 20),
  };
}

function drawFiles(draw: Draw): VirtualFiles {
  return {
    blocks: draw.pick([1, 4, 20, 200]),
    timing: drawTiming(draw),
    failedWriteShare: draw.chance(0.2) ? draw.pick([0.2, 1]) : 0,
    failedReadShare: draw.chance(0.3) ? draw.pick([0.2, 1]) : 0,
  };
}
