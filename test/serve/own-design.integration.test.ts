/** A design of the caller's own behind the server: its rows, and what a client is told of one that breaks. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import type { DesignReference } from '../../src/contract/config.ts';
import { closeAfterTest, decodeNpy, eventsOf, expectNothingLeft, post, startServer } from './helpers.ts';

const PATH = '/v1/completions';
const MINE = pathToFileURL(join(import.meta.dirname, '..', 'host', 'designs', 'mine.ts')).href as DesignReference;
const BROKEN = pathToFileURL(join(import.meta.dirname, '..', 'capture', 'guard', 'broken-design.ts')).href;
const folder = mkdtempSync(join(tmpdir(), 'own-design-'));
afterAll(() => rmSync(folder, { recursive: true }));

const plain = { prompt: [1, 2, 3, 4], max_tokens: 4, ignore_eos: true };
const asking = { ...plain, vllm_xargs: { return_routed_experts: true } };

test('its rows are served', async () => {
  const server = await startServer({ host: { design: MINE } }).then(closeAfterTest);
  const { status, body } = await post(server, PATH, asking);
  expect([status, decodeNpy(body.choices[0]!.routed_experts).shape[0]]).toEqual([200, 7]);
  await expectNothingLeft(server);
});

test('one that breaks its contract: 500 with design and hook, whole and streamed; others are served', async () => {
  const file = join(folder, 'throws.mjs');
  writeFileSync(
    file,
    `import { brokenParts } from '${BROKEN}';\nexport default brokenParts({ half: 'workerHalf', hook: 'collect' });\n`,
  );
  const design = pathToFileURL(file).href as DesignReference;
  const server = await startServer({ host: { design } }).then(closeAfterTest);
  const streamed = await fetch(server.url + PATH, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...asking, stream: true }),
  });
  expect(eventsOf(await streamed.text()).at(-2)).toContain('"code":"design_failed"');
  const whole = await post(server, PATH, asking);
  expect([whole.status, whole.body]).toMatchObject([500, { error: { code: 'design_failed' } }]);
  expect(JSON.stringify(whole.body)).toContain('broke its contract in workerHalf.collect: it threw Error: boom');
  expect((await post(server, PATH, plain)).status).toBe(200);
  await expectNothingLeft(server);
});
