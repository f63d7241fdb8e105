// Generates a few tokens on the TypeScript kernels and prints the experts that each token was routed to.
//
//     node --conditions=routed-experts-source examples/generate.ts      in a checkout
//     node examples/generate.ts                                         where the package is installed

import { createEngine, rowAt } from 'routed-experts';

const engine = await createEngine({ model: 'gpt-oss-20b', device: 'cpu' });
try {
  const prompt = [17, 4711, 42, 1234, 99];
  const { tokenIds, rows, finishReason } = await engine.generate(prompt, {
    maxTokens: 4,
    returnRoutedExperts: true,
  });
  console.log(`${tokenIds.length} tokens (${finishReason}): ${tokenIds.join(' ')}`);
  if (rows === null) throw new Error('the request asked for rows, and there are none');
  console.log(`${rows.count} rows of ${rows.numLayers} layers × ${rows.topK} experts, ${rows.missing.length} gaps`);
  for (let position = rows.start; position < rows.start + rows.count; position++) {
    const firstLayer = rowAt(rows, position)!.subarray(0, rows.topK);
    console.log(`position ${position}, first layer: experts ${firstLayer.join(', ')}`);
  }
} finally {
  await engine.close();
}
