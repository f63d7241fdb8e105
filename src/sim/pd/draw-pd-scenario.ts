/** The storm of a seed, with a prefill engine in front. */

import { Draw, drawEngine, drawFaults, drawScenario } from '../draw-scenario.ts';
import type { Scenario, ScenarioRequest } from '../scenario.ts';
import { LOAD_FAILURES, ROW_WAYS, type LinkTiming } from './pd-scenario.ts';

/** The same on every machine and for every design. Requests, decode engine and its faults are those of `drawScenario(seed)`. */
export function drawPdScenario(seed: number): Scenario {
  const base = drawScenario(seed);
  const draw = new Draw(seed, 'pd');
  // An id names a request on both sides.
  const requests = base.requests.map((request, i): ScenarioRequest => ({ ...request, id: `r${i}` }));
  const directShare = draw.pick([0, 0.2, 0.5]);
  const queueDepth = draw.pick([1, 2, 3]);
  const prompts = requests.map((request) => ({ ...request, maxTokens: 1 }));
  return {
    ...base,
    hasEpochs: draw.chance(0.6),
    requests,
    pd: {
      engine: drawEngine(draw, queueDepth, prompts, base.engine),
      queueDepth,
      ringDepth: draw.int(1, queueDepth + 1),
      faults: draw.chance(0.5) ? [] : drawFaults(seed + 1, draw, requests),
      rows: draw.pick(ROW_WAYS),
      onLoadFailure: draw.pick(LOAD_FAILURES),
      direct: requests.filter(() => draw.chance(directShare)).map(({ id }) => id),
      leaseTicks: draw.pick([100, 1000, 10_000]),
      loadTicks: draw.pick([150, 600, 5000]),
      link: drawLink(draw),
    },
  };
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
