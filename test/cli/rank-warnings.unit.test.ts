// Ranks that share what each would have for itself: a reader is told.

import { expect, test } from 'vitest';
import type { BenchOptions } from '../../src/cli/bench/bench-options.ts';
import { rankWarnings } from '../../src/cli/bench/rank-warnings.ts';

const machine = { numCpus: 4, numGpus: 2, hasSelectLayer: true };

function warnings(session: object, on: Partial<typeof machine> = {}, size: number = 1): string[] {
  const options = { session: { numRanks: 2, ...session }, dataParallel: { size, dispatch: 'modular' } };
  return rankWarnings(options as unknown as BenchOptions, { ...machine, ...on }, false);
}

test('ranks of all engines share processors, but on the clock', () => {
  const text = 'ranks share processors: 6 ranks on 4 processors wait for each other';
  expect(warnings({ device: 'cpu' }, {}, 3)).toEqual([text]);
  expect(warnings({ device: 'cpu' }, {}, 2)).toEqual([]);
  expect(warnings({ device: 'clock' }, {}, 3)).toEqual([]);
});

test('ranks share a GPU; where the layer is missing that would find the others, it says what to install', () => {
  const gpus = ['a', 'b'];
  expect(warnings({ device: 'webgpu', gpus })).toEqual([]);
  expect(warnings({ device: 'webgpu', gpus: ['b'] })).toEqual(['ranks share GPUs: 2 ranks on 1 of them']);
  expect(warnings({ device: 'webgpu' }, { numGpus: 1, hasSelectLayer: false })).toEqual([
    'ranks share GPUs: 2 ranks on 1 of them',
  ]);
  expect(warnings({ device: 'webgpu' }, { hasSelectLayer: false })).toEqual([
    expect.stringMatching(/^ranks share GPUs: 2 ranks on 1 of them; this host has 2: .*mesa-vulkan-drivers\)$/),
  ]);
  expect(warnings({ device: 'webgpu', numRanks: 1 }, { hasSelectLayer: false })).toEqual([]);
});
