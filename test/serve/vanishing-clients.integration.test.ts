// Clients that go away, or do not read: nothing of theirs is left behind (L7), and what they do not take is not made.

import { once } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ModelConfig } from '../../src/contract/config.ts';
import type { Server } from '../../src/serve/server.ts';
import {
  closeAfterTest,
  decodeSglang,
  eventsOf,
  expectNothingLeft,
  expectOracle,
  httpRequest,
  post,
  rawConnection,
  readAll,
  startServer,
  wire,
} from './helpers.ts';

const completions = '/v1/completions';
const withRows = { vllm_xargs: { return_routed_experts: true }, ignore_eos: true };

let server: Server;

beforeAll(async () => {
  server = await startServer({ limits: { maxConcurrent: 4096 }, engine: { numBlocks: 1025, maxModelLen: 1024 } });
});

afterAll(() => server.close(0));

async function metric(of: Server, name: string): Promise<number> {
  const text = await (await fetch(`${of.url}/metrics`)).text();
  const line = text.split('\n').find((each) => each.startsWith(`${name}{`))!;
  return Number(line.slice(line.lastIndexOf(' ') + 1));
}

test('1,000 clients connect and vanish, each at another moment', async () => {
  const request = (i: number): string => {
    const prompt = Array.from({ length: 1 + (i % 40) }, (_, p) => (i + p * 7) % 97);
    return httpRequest(completions, { prompt, max_tokens: 500, stream: i % 2 === 0, ...withRows });
  };
  const vanish = async (i: number): Promise<void> => {
    const socket = await rawConnection(server);
    const bytes = request(i);
    const kind = i % 5;
    if (kind === 1) socket.write(bytes.slice(0, 30));
    if (kind === 2) socket.write(bytes.slice(0, -20));
    if (kind === 3) await new Promise((resolve) => socket.write(bytes, resolve));
    if (kind === 4) {
      socket.write(httpRequest(completions, { prompt: [i % 97], max_tokens: 500, stream: true, ...withRows }));
      await once(socket, 'data');
    }
    if (i % 3 === 0) socket.resetAndDestroy();
    else socket.destroy();
  };
  for (let from = 0; from < 1000; from += 50) {
    await Promise.all(Array.from({ length: 50 }, (_, i) => vanish(from + i)));
  }
  await expectNothingLeft(server);
  expect(await metric(server, 'routed_experts:http_requests_active')).toBe(0);
  const { status, body } = await post(server, completions, { prompt: 'x', max_tokens: 3 });
  expect([status, body.usage!.completion_tokens]).toEqual([200, 3]);
});

test('a short soak: after a warm-up, memory does not grow', async () => {
  setFlagsFromString('--expose-gc');
  const collectGarbage = runInNewContext('gc') as () => void;
  const usedBytes = (): number => {
    collectGarbage();
    // Not `external`: it follows the clients' parsers and sockets, which are in this process too.
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  // oxlint-disable-next-line unicorn/consistent-function-scoping -- uses the suite's server
  const round = async (seed: number): Promise<void> => {
    const streams = Array.from({ length: 16 }, async (_, i) => {
      const prompt = Array.from({ length: 60 }, (__, p) => (seed * 13 + i * 5 + p) % 97);
      const response = await fetch(server.url + completions, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ prompt, max_tokens: 40, stream: true, ...withRows }),
      });
      expect(eventsOf(await response.text()).at(-1)).toBe('[DONE]');
    });
    await Promise.all(streams);
  };
  /** The least of a few looks: a buffer on its way at the moment of one is no growth. */
  const usedAfter = async (firstSeed: number): Promise<number> => {
    let least = Infinity;
    for (let look = 0; look < 3; look++) {
      for (let seed = firstSeed; seed < firstSeed + 6; seed++) await round(seed + look * 6);
      await expectNothingLeft(server);
      least = Math.min(least, usedBytes());
    }
    return least;
  };
  // A leak grows in every window; caches and compiled code grow in one and then no more.
  const used = [await usedAfter(0), await usedAfter(18), await usedAfter(36)];
  const growthMiB = used.slice(1).map((bytes, i) => (bytes - used[i]!) / 2 ** 20);
  expect(Math.min(...growthMiB)).toBeLessThan(3);
});

/** Rows of 1 KiB that cost little to compute. */
const wide: ModelConfig = { name: 'wide', numLayers: 128, numExperts: 8, topK: 8, vocabSize: 97, gateWidth: 8 };
const wideRequest = {
  prompt: Array.from({ length: 1500 }, (_, i) => (i * 31) % 97),
  n: 6,
  max_tokens: 4,
  ignore_eos: true,
  return_token_ids: true,
  vllm_xargs: { return_routed_experts: true, routed_experts_format: 'sglang' },
};
/** int32, in base64. */
const wideAnswerBytes = (6 * 1503 * 128 * 8 * 4 * 4) / 3;

test('a client that does not read holds its answer back, then is cut off', async () => {
  const slow = closeAfterTest(await startServer({ host: { model: wide }, limits: { stallMs: 700 } }));
  const socket = await rawConnection(slow);
  socket.pause();
  socket.write(httpRequest(completions, wideRequest));
  await expect
    .poll(() => metric(slow, 'routed_experts:row_bytes_total'), { interval: 20, timeout: 10_000 })
    .toBeGreaterThan(0);
  expect(slow.numActive).toBe(6);
  await expectNothingLeft(slow);
  expect(await metric(slow, 'routed_experts:row_bytes_total')).toBeLessThan(wideAnswerBytes / 2);
  const text = await readAll(socket);
  expect(text.length).toBeLessThan(wideAnswerBytes / 2);
});

test('a client that reads slowly gets everything, and the engine serves others meanwhile', async () => {
  const slow = closeAfterTest(await startServer({ host: { model: wide } }));
  const socket = await rawConnection(slow);
  socket.pause();
  socket.write(httpRequest(completions, wideRequest).replace('host: test', 'host: test\r\nconnection: close'));
  await expect
    .poll(() => metric(slow, 'routed_experts:row_bytes_total'), { interval: 20, timeout: 10_000 })
    .toBeGreaterThan(0);
  const other = await post(slow, completions, { prompt: 'x', max_tokens: 5, ignore_eos: true });
  expect(other.body.usage!.completion_tokens).toBe(5);
  expect(slow.numActive).toBe(6);
  const text = await readAll(socket);
  const chunks = text.slice(text.indexOf('\r\n\r\n') + 4);
  const { choices } = wire(JSON.parse(unchunk(chunks)));
  expect(choices.length).toBe(6);
  const choice = choices[0]!;
  expectOracle(wideRequest.prompt, choice.token_ids, decodeSglang(choice.meta_info, 128, 8), 0, wide);
  await expectNothingLeft(slow);
});

/** The body of a chunked response. */
function unchunk(text: string): string {
  const parts: string[] = [];
  for (let at = 0; ;) {
    const lineEnd = text.indexOf('\r\n', at);
    const length = Number.parseInt(text.slice(at, lineEnd), 16);
    if (length === 0) return parts.join('');
    parts.push(text.slice(lineEnd + 2, lineEnd + 2 + length));
    at = lineEnd + 4 + length;
  }
}
