/** `routerKernels` of the library: every way to route gives the oracle's rows (L2), and another name is refused. */

import { expect, test } from 'vitest';
import { createEngine, toArray } from '../../src/index.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { oracle } from '../../src/kernels/model/oracle.ts';

const PROMPT = Array.from({ length: 40 }, (_, i) => (i * 7) % 97);

test.each(['auto', 'fused', 'gated'] as const)('%s: the rows of the oracle', async (routerKernels) => {
  const engine = await createEngine({ model: 'tiny-grouped', routerKernels, engine: { maxModelLen: 128 } });
  try {
    const { tokenIds, rows } = await engine.generate(PROMPT, { maxTokens: 8, returnRoutedExperts: true });
    const expected = oracle(modelPreset('tiny-grouped'), [...PROMPT, ...tokenIds.slice(0, -1)]);
    expect([...toArray(rows!, 0xff)]).toEqual([...expected.rows]);
  } finally {
    await engine.close();
  }
});

test('another name is refused with those that there are', async () => {
  await expect(createEngine({ model: 'tiny', routerKernels: 'split' as never })).rejects.toMatchObject({
    code: 'UNKNOWN_NAME',
    message: expect.stringMatching(/routerKernels "split".*auto, fused, gated/),
  });
});
