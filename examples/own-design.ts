// A capture design of one's own: through the storm, which checks every law at every step, and then in an engine.
//
//     node --conditions=routed-experts-source examples/own-design.ts      in a checkout
//     node examples/own-design.ts                                         where the package is installed

import { createEngine } from 'routed-experts';
import { drawScenario, reportRun, runSeeds, shrink, testedDesignOf } from 'routed-experts/sim';
import * as overlay from './designs/overlay.ts';

const tested = testedDesignOf(overlay);
const { scenarios, steps, violations, declared } = runSeeds(tested, { from: 1, to: 301, twice: false, stopAfter: 1 });
console.log(`${overlay.name}: ${violations.length} of ${scenarios} storms broke a law, in ${steps} steps`);
for (const [law, { seeds }] of Object.entries(declared))
  console.log(`it gives ${law} up, as declared: ${seeds} storms`);
for (const { seed, law, what } of violations) {
  console.log(`seed ${seed}: ${law}: ${what}`);
  const smallest = shrink(drawScenario(seed), tested);
  if (smallest !== null) console.log(reportRun(smallest.scenario, tested).join('\n'));
}
if (violations.length > 0) process.exit(1);

// Functions cannot go to the worker's thread: it imports the module by itself.
const design = new URL('./designs/overlay.ts', import.meta.url);
const engine = await createEngine({ model: 'gpt-oss-20b', device: 'cpu', design });
try {
  const { rows } = await engine.generate([17, 4711, 42], { maxTokens: 4, returnRoutedExperts: true });
  console.log(`${rows?.count} rows, ${rows?.missing.length} gaps`);
} finally {
  await engine.close();
}
