// Layers over stages in a row: tokens and rows are those of one rank with all layers, whatever the split (L2). A wrong
// block table of one stage alone changes the tokens. What cannot be split is refused by name.

import { describe, expect, test } from 'vitest';
import { rowAt } from '../../../src/capture/routed-rows.ts';
import type { ModelConfig } from '../../../src/contract/config.ts';
import type { KernelSetFactory } from '../../../src/kernels/model/kernel-set.ts';
import { modelPreset } from '../../../src/kernels/model/model-presets.ts';
import { oracle } from '../../../src/kernels/model/oracle.ts';
import { Header } from '../../../src/kernels/model/step-input.ts';
import { wgslKernels } from '../../../src/kernels/model/wgsl-kernels.ts';
import { evenSplit, stagesOf } from '../../../src/worker/pipeline/stages/stage-plan.ts';
import { serveOnStages, type Served } from './inline-stages.ts';

/** Layers 2, 3 and 5 of six have a router. */
const dense = modelPreset('tiny-dense');
const grouped: ModelConfig = { ...modelPreset('tiny-grouped'), numLayers: 4 };
const prompts = Array.from({ length: 5 }, (_, i) => Array.from({ length: 9 + 7 * i }, (__, p) => (p * (i + 3)) % 97));
const serving = { prompts, maxTokens: 6, engine: { maxNumBatchedTokens: 24, numBlocks: 40 } };

const tokensOf = (served: readonly Served[]): number[][] => served.map(({ tokens }) => tokens);

function expectOracle(model: ModelConfig, served: readonly Served[]): void {
  for (const [i, { tokens, rows }] of served.entries()) {
    const all = [...prompts[i]!, ...tokens];
    const { rows: expected, nextTokens } = oracle(model, all);
    expect(tokens).toEqual([...nextTokens.subarray(prompts[i]!.length - 1, all.length - 1)]);
    expect([rows.count, rows.missing]).toEqual([all.length - 1, []]);
    const width = model.numLayers * model.topK;
    for (let p = 0; p < rows.count; p++) {
      expect([...rowAt(rows, p)!]).toEqual([...expected.subarray(p * width, (p + 1) * width)]);
    }
  }
}

test.each<readonly [string, ModelConfig, readonly number[]]>([
  ['one stage', dense, [6]],
  ['two', dense, [3, 3]],
  ['two, the first without a router', dense, [2, 4]],
  ['two, the last without a router', grouped, [3, 1]],
  ['four, uneven, two of them without a router', dense, [1, 1, 3, 1]],
  ['four, one layer each', grouped, [1, 1, 1, 1]],
])('%s: the tokens and rows of the oracle', async (_, model, split) => {
  expectOracle(model, await serveOnStages(model, split, serving));
});

/** From the fourth pass on a change of the block table does not reach the device. */
const missesChanges: KernelSetFactory = (model, shape, info) => {
  const set = wgslKernels(model, shape, info);
  let numPasses = 0;
  const reference = ([input, ...others]: readonly Uint32Array[], grid: readonly [number, number, number]): void => {
    numPasses += 1;
    const changed = input!.slice();
    if (numPasses > 3) changed[Header.numTableUpdates] = 0;
    set.attendWrite.kernel.reference([changed, ...others], grid);
  };
  const kernel = { ...set.attendWrite.kernel, name: 'attend-write/misses-changes', reference };
  return { ...set, attendWrite: { ...set.attendWrite, kernel } };
};

test.each([0, 1])('a wrong block table of stage %i alone changes tokens, and rows from there on', async (broken) => {
  const right = await serveOnStages(grouped, [2, 2], serving);
  const kernelsOf = (stage: number): KernelSetFactory => (stage === broken ? missesChanges : wgslKernels);
  const wrong = await serveOnStages(grouped, [2, 2], { ...serving, kernelsOf });
  expect(tokensOf(wrong)).not.toEqual(tokensOf(right));
  const half = (grouped.numLayers * grouped.topK) / 2;
  const columns = (served: readonly Served[], from: number): number[][] =>
    served.flatMap(({ rows }, i) => prompts[i]!.map((_, p) => [...rowAt(rows, p)!.subarray(from, from + half)]));
  const isSame = (from: number): boolean => String(columns(wrong, from)) === String(columns(right, from));
  expect([isSame(0), isSame(half)]).toEqual([broken === 1, false]);
});

test.each([0, 1])('rows that stage %i does not deliver are missing, and no other row is wrong', async (lost) => {
  const loses = (stage: number, stepId: number): boolean => stage === lost && stepId % 5 === 2;
  const served = await serveOnStages(grouped, [2, 2], { ...serving, loses });
  const width = grouped.numLayers * grouped.topK;
  let numMissing = 0;
  for (const [i, { tokens, rows }] of served.entries()) {
    const expected = oracle(grouped, [...prompts[i]!, ...tokens]).rows;
    for (let p = 0; p < rows.count; p++) {
      const row = rowAt(rows, p);
      if (row === null) numMissing += 1;
      else expect([...row]).toEqual([...expected.subarray(p * width, (p + 1) * width)]);
    }
  }
  expect(numMissing).toBeGreaterThan(5);
});

describe('the plan', () => {
  test.each([
    [6, 2, [3, 3]],
    [6, 4, [1, 2, 2, 1]],
    [61, 2, [31, 30]],
    [61, 4, [15, 15, 16, 15]],
    [61, 8, [7, 7, 8, 8, 8, 8, 8, 7]],
    [3, 3, [1, 1, 1]],
  ])('%i layers over %i stages: %o, vLLM’s way', (numLayers, numStages, split) => {
    expect(evenSplit({ ...modelPreset('tiny'), numLayers }, numStages)).toEqual(split);
  });

  test('each stage has its own columns, and dense layers have none', () => {
    const stages = stagesOf(dense, [1, 3, 2]);
    expect(stages.map(({ firstLayer, numLayers }) => [firstLayer, numLayers])).toEqual([
      [0, 0],
      [0, 2],
      [2, 1],
    ]);
    expect(stages.map(({ ends }) => [ends.receives, ends.sends])).toEqual([
      [false, true],
      [true, true],
      [true, false],
    ]);
  });

  test('more stages than layers, an empty stage and layers left over are refused', () => {
    expect(() => evenSplit(dense, 7)).toThrow('--pipeline-parallel (pipelineParallel) is 7; give stages in [1, 6]');
    expect(() => stagesOf(dense, [0, 6])).toThrow(
      '--pipeline-split (pipelineSplit) is 0,6; give layers of each stage, 1 at least',
    );
    expect(() => stagesOf(dense, [3, 2])).toThrow('together the 6 of tiny-dense');
  });
});
