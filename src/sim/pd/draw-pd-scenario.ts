/** The storm of a seed, with a prefill engine in front. */

import { pdRowsWays } from '../../handover/handed-rows.ts';
import { Draw, drawEngine, drawFaults, drawScenario } from '../draw-scenario.ts';
import type { Scenario, ScenarioRequest } from '../scenario.ts';
import { LOAD_FAILURES, type LinkTiming, type ProxyFailure } from './pd-scenario.ts';

/**
 * The same on every machine and for every design. Requests, decode engine and its faults are those of
 * `drawScenario(seed)`.
 */
export function drawPdScenario(seed: number): Scenario {
  const base = drawScenario(seed);
  const draw = new Draw(seed, 'pd');
  // An id names a request on both sides.
  const requests = base.requests.map((request, i): ScenarioRequest => ({ ...request, id: `r${i}` }));
  const directShare = draw.pick([0, 0.2, 0.5]);
  const queueDepth = draw.pick([1, 2, 3]);
  // What is drawn beside the rest leaves the rest as it is.
  const beside = new Draw(seed, 'pd-beside');
  const numRanks = beside.chance(0.08) ? 2 : 1;
  const proxy = drawProxy(beside);
  const readTicks = beside.chance(0.7) ? 0 : beside.pick([20, 200, 1000]);
  const rowlessShare = beside.pick([0, 0, 0.3]);
  const prompts = requests.map((request) => ({ ...request, maxTokens: 1 }));
  return {
    ...base,
    hasEpochs: draw.chance(0.6),
    requests,
    pd: {
      engine: drawEngine(draw, queueDepth, prompts, base.engine),
      queueDepth,
      ringDepth: draw.int(1, queueDepth + 1),
      numRanks,
      faults: draw.chance(0.5) ? [] : drawFaults(seed + 1, draw, requests, numRanks),
      rows: draw.pick(pdRowsWays),
      onLoadFailure: draw.pick(LOAD_FAILURES),
      direct: requests.filter(() => draw.chance(directShare)).map(({ id }) => id),
      leaseTicks: draw.pick([100, 1000, 10_000]),
      loadTicks: draw.pick([150, 600, 5000]),
      link: drawLink(draw),
      readTicks,
      rowless: requests.filter(({ rows }) => rows && beside.chance(rowlessShare)).map(({ id }) => id),
      ...(proxy === null ? {} : { proxy }),
    },
  };
}

function drawProxy(draw: Draw): ProxyFailure | null {
  if (draw.chance(0.8)) return null;
  return { lostShare: draw.pick([0, 0.3, 1]), patienceTicks: draw.pick([100, 500, 2000, 10_000]) };
}

function drawLink(draw: Draw): LinkTiming {
  const isSlow = draw.chance(0.3);
  const isLossy = draw.chance(0.3);
  const isGarbled = draw.chance(0.2);
  return {
    delay: draw.pick([1, 10, 100]),
    jitter: draw.pick([0, 20, 200]),
    slowShare: isSlow ? draw.pick([0.1, 0.5]) : 0,
    slowFactor: draw.int(2, 30),
    lostShare: isLossy ? draw.pick([0.1, 0.5]) : 0,
    corruptShare: isGarbled ? draw.pick([0.1, 0.5]) : 0,
  };
}
