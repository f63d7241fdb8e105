/** The storm of a seed, on a pipeline of stages. */

import type { ModelConfig } from '../../contract/config.ts';
import { countModelLayers } from '../../kernels/model/model-layers.ts';
import { Draw, drawScenario } from '../draw-scenario.ts';
import { STEP_PHASES, type Fault } from '../fault.ts';
import type { Scenario } from '../scenario.ts';

/**
 * The same on every machine and for every design. Requests, pool and faults are those of `drawScenario(seed)`; layers,
 * stages and what happens between them are drawn from streams of their own. The scheduler is synchronous, without
 * drafts, as it is with stages.
 */
export function drawStageScenario(seed: number): Scenario {
  const base = drawScenario(seed);
  const draw = new Draw(seed, 'stages');
  const numStages = draw.pick([2, 2, 2, 3, 4]);
  const model = drawLayers(base.model, draw, numStages);
  const queueDepth = draw.chance(0.8) ? numStages : draw.int(1, numStages);
  const numRanks = draw.chance(0.08) ? 2 : 1;
  const isSlow = draw.chance(0.3);
  return {
    ...base,
    model,
    engine: {
      ...base.engine,
      asyncScheduling: false,
      numSpeculativeTokens: 0,
      pipelineParallelSize: numStages,
    },
    queueDepth,
    ringDepth: draw.chance(0.6) ? queueDepth + 1 : draw.int(1, queueDepth),
    numRanks,
    faults: [...base.faults, ...drawKills(draw, base, numStages * numRanks)],
    stages: {
      split: drawSplit(countModelLayers(model), draw, numStages),
      slowStage: draw.int(0, numStages - 1),
      slowFactor: isSlow ? draw.int(2, 10) : 1,
      handOver: draw.pick([0, 1, 20, 150]),
      handOverJitter: draw.pick([0, 0, 30, 400]),
    },
  };
}

/** Some layers are dense, in front or anywhere; enough of them that each stage has one layer at least. */
function drawLayers(base: ModelConfig, draw: Draw, numStages: number): ModelConfig {
  const numLayers = draw.int(1, 5);
  const least = Math.max(0, numStages - numLayers);
  const numDense = least + draw.pick([0, 0, 1, 3]);
  if (numDense === 0) return { ...base, numLayers };
  const all = Array.from({ length: numLayers + numDense }, (_, layer) => layer);
  const isInFront = draw.chance(0.5);
  const dense = new Set(isInFront ? all.slice(0, numDense) : []);
  while (dense.size < numDense) dense.add(draw.pick(all));
  return { ...base, numLayers, denseLayers: all.filter((layer) => dense.has(layer)) };
}

function drawSplit(numLayers: number, draw: Draw, numStages: number): number[] {
  const split = Array<number>(numStages).fill(1);
  for (let left = numLayers - numStages; left > 0; left -= 1) split[draw.int(0, numStages - 1)]! += 1;
  return split;
}

/** Ranks of stages behind the first, which the faults of one engine do not know. */
function drawKills(draw: Draw, { requests }: Scenario, numRanks: number): Fault[] {
  if (!draw.chance(0.15)) return [];
  const lastStep = 4 + requests.length * 3;
  return Array.from({ length: draw.int(1, 2) }, () => ({
    when: { step: draw.int(0, lastStep), phase: draw.pick(STEP_PHASES) },
    kind: 'kill',
    rank: draw.int(0, numRanks - 1),
  }));
}
