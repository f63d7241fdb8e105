/** The log says at start, once and in plain words, when rows will be declared missing. */

import { expect, test } from 'vitest';
import type { PrefixRows } from '../../src/contract/config.ts';
import type { KvExchangeOptions } from '../../src/serve/kv/kv-exchange.ts';
import { closeAfterTest, smallKv, startServer } from './helpers.ts';

async function warningsOf(kv: KvExchangeOptions | null, prefixRows: PrefixRows = 'complete'): Promise<string[]> {
  const lines: string[] = [];
  const log = { write: (line: string) => void lines.push(line) };
  closeAfterTest(await startServer({ logLevel: 'info', log, host: { kv, prefixRows } }));
  const logged = lines.map((line) => JSON.parse(line) as { level: number; msg: string });
  return logged.filter(({ level }) => level === 40).map(({ msg }) => msg);
}

test('rows that a proxy has to splice in', async () => {
  const splice = { ...smallKv, rows: 'splice' } as const;
  for (const role of ['decode', 'both'] as const) {
    const warnings = await warningsOf({ ...splice, role });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(/^--pd-rows splice: .*declared missing, unless a proxy splices them in/);
  }
  expect(await warningsOf({ ...splice, role: 'prefill' })).toEqual([]);
});

test('a policy that takes over KV without its rows', async () => {
  const warnings = await warningsOf(smallKv, 'share');
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toMatch(/^--prefix-rows share: .*declared missing/);
});

test('nothing to say where rows come with the KV, or no KV comes from elsewhere', async () => {
  expect(await warningsOf(smallKv)).toEqual([]);
  expect(await warningsOf(null, 'share')).toEqual([]);
});
