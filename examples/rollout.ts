// A rollout loop of two turns: the second turn's prompt is the whole first turn and a few tokens more. It hits the
// prefix cache, computes the new tokens only, and still returns the rows of the whole conversation.
//
//     node --conditions=routed-experts-source examples/rollout.ts      in a checkout
//     node examples/rollout.ts                                         where the package is installed

import { createEngine } from 'routed-experts';
import { compareRows } from 'routed-experts/rows';

const engine = await createEngine({ model: 'qwen3-30b-a3b', device: 'cpu' });
const sampling = { maxTokens: 8, returnRoutedExperts: true };
try {
  const question = Array.from({ length: 40 }, (_, i) => 1000 + i);
  const first = await engine.generate(question, sampling);

  const toolAnswer = [31, 32, 33, 34];
  const conversation = [...question, ...first.tokenIds, ...toolAnswer];
  const second = await engine.generate(conversation, sampling);
  console.log(`second turn: ${second.numCachedTokens} of ${conversation.length} prompt tokens were cached`);

  const { rows } = second;
  if (first.rows === null || rows === null) throw new Error('the requests asked for rows, and there are none');
  console.log(`rows of positions [${rows.start}, ${rows.start + rows.count}), ${rows.missing.length} gaps`);

  const { numCompared, numDifferent, onlyRight } = compareRows(first.rows, rows);
  console.log(`${numCompared} rows of the first turn again, ${numDifferent} differ`);
  console.log(`positions that only the second turn has: ${onlyRight.map((range) => range.join(' to ')).join(', ')}`);
  if (numDifferent > 0 || rows.missing.length > 0) throw new Error('the second turn lost rows of the first');
} finally {
  await engine.close();
}
