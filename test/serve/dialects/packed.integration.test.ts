// Rows in as few bits as ids need: as base64 in JSON, as raw bytes, compressed, and once for choices and turns that
// share them; read by the library, and by the Python client where NumPy is.

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { crc32 } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { toArray } from '../../../src/capture/routed-rows.ts';
import type { RoutedRows } from '../../../src/contract/routed-rows.ts';
import { decompressZstd } from '../../../src/rows/files/zstd.ts';
import { readPackedAnswer } from '../../../src/rows/packed/read-answer.ts';
import { readPacked } from '../../../src/rows/packed/read-packed.ts';
import type { Server } from '../../../src/serve/server.ts';
import { decodePacked, expectNothingLeft, expectOracle, startServer, tiny, type WireChoice } from '../helpers.ts';
import type { Json } from './consumers.ts';

const PYTHON = fileURLToPath(new URL('../../../clients/python', import.meta.url));
const numpy = spawnSync('python3', ['-c', 'import numpy; print(numpy.__version__)'], { encoding: 'utf8' });
if (numpy.status !== 0) console.warn('skipped: python3 with NumPy is not here, and the Python client is not run');

let server: Server;

beforeAll(async () => {
  server = await startServer();
});

afterAll(async () => {
  await expectNothingLeft(server);
  await server.close(0);
});

const prompt = Array.from({ length: 30 }, (_, i) => (i * 7) % 97);
const asked = (format: string | null, more: object = {}): object => ({
  prompt,
  max_tokens: 12,
  ignore_eos: true,
  return_token_ids: true,
  vllm_xargs: { return_routed_experts: true, ...(format === null ? {} : { routed_experts_format: format }), ...more },
});

async function fetchBytes(body: object, accept: string): Promise<Readonly<{ status: number; bytes: Buffer }>> {
  const headers = { 'content-type': 'application/json', accept };
  const response = await fetch(`${server.url}/v1/completions`, { method: 'POST', headers, body: JSON.stringify(body) });
  return { status: response.status, bytes: Buffer.from(await response.arrayBuffer()) };
}

async function choicesOf(body: object): Promise<readonly WireChoice[]> {
  const { bytes } = await fetchBytes(body, 'application/json');
  return (JSON.parse(bytes.toString()) as { choices: WireChoice[] }).choices;
}

function expectRows(rows: RoutedRows, output: readonly number[]): void {
  const shape = [rows.count, rows.numLayers, rows.topK];
  expectOracle(prompt, output, { shape, ids: Array.from(toArray(rows, 255)) });
}

const RAW = 'application/octet-stream';

function sizeOfRows(all: Buffer): number {
  return all.length - 8 - all.readUInt32LE(4);
}

describe('packed rows', () => {
  test('in JSON, bit by bit as they are described', async () => {
    const [choice] = await choicesOf(asked('packed'));
    const bytes = Buffer.from(choice!.routed_experts, 'base64');
    expect(bytes[4]).toBe(3);
    expectOracle(prompt, choice!.token_ids, decodePacked(bytes));
  });

  test('compressed', async () => {
    const [choice] = await choicesOf(asked('packed-zstd'));
    const bytes = Buffer.from(choice!.routed_experts, 'base64');
    expectRows(readPacked(bytes, { decompress: decompressZstd }).rows, choice!.token_ids);
    expect(() => readPacked(bytes)).toThrow(/compressed/);
  });

  test('raw: the same answer with bytes behind it; rows of the prompt stand there once for n choices', async () => {
    const { bytes } = await fetchBytes({ ...asked(null), n: 3 }, RAW);
    const { answer, rows } = readPackedAnswer(bytes);
    const { choices } = answer as { choices: WireChoice[] };
    expect(rows.length).toBe(3);
    for (const [i, choice] of choices.entries()) {
      expect(choice.routed_experts).toEqual({ part: i });
      expectRows(rows[i]!, choice.token_ids);
    }
    const { bytes: single } = await fetchBytes(asked(null), RAW);
    const numPromptBytes = Math.ceil((prompt.length * tiny.numLayers * tiny.topK * 3) / 8);
    expect(sizeOfRows(bytes)).toBeLessThanOrEqual(3 * sizeOfRows(single) - 2 * (numPromptBytes - 1));
  });

  test('a turn whose client has the rows before it gets the others; one that has wrong ones gets all', async () => {
    const [first] = await choicesOf(asked('packed'));
    const known = readPacked(Buffer.from(first!.routed_experts, 'base64')).rows;
    const ids = toArray(known, 255).subarray(0, 25 * tiny.numLayers * tiny.topK) as Uint8Array;
    const have = { end: 25, crc32: crc32(ids) };
    const { bytes } = await fetchBytes(asked('packed', { routed_experts_known: have }), RAW);
    const { answer, rows } = readPackedAnswer(bytes, { known });
    const { choices } = answer as { choices: WireChoice[] };
    expectRows(rows[0]!, choices[0]!.token_ids);
    expect(() => readPackedAnswer(bytes)).toThrow(/give known/);
    const wrong = { ...have, crc32: (have.crc32 ^ 1) >>> 0 };
    const { bytes: all } = await fetchBytes(asked('packed', { routed_experts_known: wrong }), RAW);
    expectRows(readPackedAnswer(all).rows[0]!, choices[0]!.token_ids);
    expect(all.length).toBeGreaterThan(bytes.length);
  });

  test.each([
    [asked('npy'), 'routed_experts_format'],
    [{ ...asked(null), stream: true }, 'stream'],
  ])('raw bytes with what contradicts them: an error (%#)', async (body, param) => {
    const { status, bytes } = await fetchBytes(body, RAW);
    expect([status, (JSON.parse(bytes.toString()) as { error: Json }).error['param']]).toEqual([400, param]);
  });

  test('bytes that break off anywhere are an error, and so is a block too many', async () => {
    const { bytes } = await fetchBytes(asked(null), RAW);
    for (let end = 0; end < bytes.length; end += 3) {
      if (end === 8 + bytes.readUInt32LE(4)) continue;
      expect(() => readPackedAnswer(bytes.subarray(0, end))).toThrow(/no rows in the form "rxa1"/);
    }
    const again = Buffer.concat([bytes.subarray(0, -4), Buffer.of(1, 0, 0, 0, 7), bytes.subarray(-4)]);
    expect(() => readPackedAnswer(again)).toThrow(/more blocks/);
  });

  test.skipIf(numpy.status !== 0)('the Python client reads them: raw, of several choices, and known', async () => {
    const { bytes } = await fetchBytes({ ...asked(null), n: 2 }, RAW);
    const { answer, rows } = readPackedAnswer(bytes);
    const have = { end: 25, crc32: crc32((toArray(rows[0]!, 255) as Uint8Array).subarray(0, 25 * 4)) };
    const { bytes: turn } = await fetchBytes(asked('packed', { routed_experts_known: have }), RAW);
    const script = `
import sys, json
sys.path.insert(0, ${JSON.stringify(PYTHON)})
from packed_rows import read_answer, known_rows
data = sys.stdin.buffer.read()
n = int(sys.argv[1])
answer, parts = read_answer(data[:n])
_, turn = read_answer(data[n:], known=parts[0])
lists = [part.ids.tolist() for part in parts + turn]
print(json.dumps({"n": len(answer["choices"]), "rows": lists, "known": known_rows(parts[0], 25)}))
`;
    const run = spawnSync('python3', ['-c', script, String(bytes.length)], { input: Buffer.concat([bytes, turn]) });
    expect(run.stderr.toString()).toBe('');
    const read = JSON.parse(run.stdout.toString()) as {
      n: number;
      rows: number[][][][];
      known: Json;
    };
    expect(read.n).toBe((answer as { choices: unknown[] }).choices.length);
    expect(read.known).toEqual(have);
    for (const [i, ids] of read.rows.entries()) {
      expect(ids.flat(2)).toEqual(Array.from(toArray(rows[i % 2]!, 255)));
    }
  });
});
