/** The examples run as they stand in the repository, without a build. */

import { execFile } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const folder = join(import.meta.dirname, '..', '..', 'examples');
const EXPECTED: Readonly<Record<string, string>> = {
  'generate.ts': '8 rows of 24 layers × 4 experts, 0 gaps',
  'own-design.ts': 'overlay: 0 of 300 storms broke a law',
  'rollout.ts': '47 rows of the first turn again, 0 differ',
  'router.ts': '0 of 800 choices are wrong',
};

test('there is an expectation for each', () => {
  const examples = readdirSync(folder).filter((name) => name.endsWith('.ts'));
  expect(examples.sort()).toEqual(Object.keys(EXPECTED).sort());
});

test.each(Object.entries(EXPECTED))('%s', async (name, text) => {
  const file = join(folder, name);
  expect(readFileSync(file, 'utf8').trimEnd().split('\n').length).toBeLessThan(40);
  const args = ['--conditions=routed-experts-source', file];
  const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 60_000 });
  expect(stdout).toContain(text);
});

test('the docs show the design of one’s own as it stands', () => {
  const docs = readFileSync(join(folder, '..', 'docs', 'simulation.md'), 'utf8');
  expect(docs).toContain(`\`\`\`ts\n${readFileSync(join(folder, 'designs', 'overlay.ts'), 'utf8')}\`\`\`\n`);
});
