/** A server for tests, clients for it, and decoders written from the consumers' descriptions, not from the encoders. */

import { once } from 'node:events';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { expect, onTestFinished, vi } from 'vitest';
import type { EngineConfig, ModelConfig } from '../../src/contract/config.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { oracle } from '../../src/kernels/model/oracle.ts';
import type { EngineHostOptions } from '../../src/serve/engine-host.ts';
import type { KvExchangeOptions } from '../../src/serve/kv/kv-exchange.ts';
import type { HttpLimits, ServeConfig } from '../../src/serve/serve-config.ts';
import { defaultLimits } from '../../src/serve/serve-config.ts';
import { Server } from '../../src/serve/server.ts';
import { expectSame } from '../kernels/harness.ts';

export const tiny: ModelConfig = modelPreset('tiny');

export const smallEngine: EngineConfig = {
  blockSize: 4,
  numBlocks: 4097,
  maxNumSeqs: 64,
  maxNumBatchedTokens: 256,
  maxModelLen: 4096,
  policy: 'fcfs',
  asyncScheduling: true,
  enablePrefixCaching: true,
  enableChunkedPrefill: true,
  longPrefillTokenThreshold: 0,
  reserveFullIsl: true,
  watermark: 0,
  numSpeculativeTokens: 0,
};

type Overrides = Partial<Omit<ServeConfig, 'engine' | 'limits'>> &
  Readonly<{
    host?: Partial<EngineHostOptions>;
    engine?: Partial<EngineConfig>;
    limits?: Partial<HttpLimits>;
  }>;

/** On the CPU, with the smallest model, unless told otherwise; closed with its test. */
export async function startServer({
  host,
  engine,
  limits,
  ...rest
}: Omit<Overrides, 'host'> & { host?: Partial<EngineHostOptions> } = {}): Promise<Server> {
  const server = await Server.start({
    servedModel: 'tiny',
    dialect: 'auto',
    isEveryRowReturned: false,
    saveRows: null,
    port: 0,
    apiKey: null,
    logLevel: 'silent',
    log: { write: () => {} },
    ...rest,
    host: '127.0.0.1',
    limits: { ...defaultLimits, ...limits },
    engine: {
      design: 'deltas',
      model: tiny,
      device: 'cpu',
      adapter: null,
      numRanks: 1,
      queueDepth: 2,
      ballastMs: 0,
      prefixRows: 'complete',
      maxRestarts: 0,
      stepTimeoutMs: 0,
      kv: null,
      epoch: 0,
      pace: null,
      followsSteps: rest.saveRows !== undefined,
      fault: null,
      ...host,
      engine: { ...smallEngine, ...engine },
    },
  });
  return server;
}

/** KV for and from other servers; each test changes what it is about. */
export const smallKv: KvExchangeOptions = {
  role: 'both',
  rows: 'with-kv',
  host: '127.0.0.1',
  port: 0,
  leaseMs: 30_000,
  loadMs: 2000,
  onLoadFailure: 'recompute',
  peers: [],
};

export function closeAfterTest(server: Server): Server {
  onTestFinished(() => server.close(0));
  return server;
}

/** An answer as it came, in the words of all three endpoints. */
export type WireChoice = Readonly<{
  index: number;
  text: string;
  message: Readonly<{ role: string; content: string; routed_experts: string }>;
  delta: Readonly<{ role?: string; content: string; routed_experts: string }>;
  finish_reason: string | null;
  stop_reason: number | null;
  token_ids: readonly number[];
  prompt_token_ids: readonly number[];
  routed_experts: string;
  routed_experts_missing: readonly (readonly [number, number])[];
  meta_info: Readonly<{ routed_experts: string; routed_experts_dtype: string }>;
}>;

export type WireBody = Readonly<{
  object: string;
  request_id: string;
  /** Of a chat. */
  prompt_token_ids?: readonly number[];
  choices: readonly WireChoice[];
  usage: Readonly<{
    prompt_tokens: number;
    completion_tokens: number;
    prompt_tokens_details: Readonly<{ cached_tokens: number }>;
  }> | null;
  error: Readonly<{ message: string; type: string; param: string | null; code: string | null }>;
}>;

/** What the official client hands out, with the fields that its types do not know. */
export function wire(body: unknown): WireBody {
  return body as WireBody;
}

export type Answer = Readonly<{ status: number; headers: Headers; body: WireBody }>;

/** `body` is sent as it is if it is a string or bytes. */
export async function post(
  server: Pick<Server, 'url'>,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const isRaw = typeof body === 'string' || body instanceof Uint8Array;
  const response = await fetch(server.url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: isRaw ? (body as string) : JSON.stringify(body),
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: JSON.parse(text) as WireBody };
}

/** The ids of the prompt: of a chat beside its choices, of completions in each of them. */
export function promptIdsOf({ prompt_token_ids: ofChat, choices }: WireBody): readonly number[] {
  return ofChat ?? choices[0]!.prompt_token_ids;
}

/** The data of each event of a stream. */
export function eventsOf(text: string): string[] {
  return text
    .split('\n\n')
    .filter((event) => event !== '')
    .map((event) => event.replace(/^data: /, ''));
}

/** A connection on which a test writes what it likes. */
export async function rawConnection(server: Pick<Server, 'url'>): Promise<Socket> {
  const { hostname, port } = new URL(server.url);
  const socket = connect(Number(port), hostname);
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket;
}

/** Everything that comes until the server closes the connection. */
export async function readAll(socket: Socket): Promise<string> {
  let text = '';
  socket.setEncoding('latin1');
  socket.on('data', (part: string) => (text += part));
  socket.resume();
  if (!socket.closed) await once(socket, 'close');
  return text;
}

export function httpRequest(path: string, body: unknown): string {
  const text = JSON.stringify(body);
  const head = `POST ${path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n`;
  return `${head}content-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`;
}

/** No request, block, row or place is held any more (L7). */
export async function expectNothingLeft(server: Server): Promise<void> {
  await vi.waitFor(
    async () => {
      expect(server.numActive).toBe(0);
      expect(server.host.numRequests).toBe(0);
      const { capture, ...stats } = server.host.engine.stats();
      expect(stats).toMatchObject({ numRunning: 0, numWaiting: 0, numStepsInFlight: 0, numUsedBlocks: 0 });
      expect(capture).toMatchObject({ requests: 0, bytes: 0 });
      const workers = await server.host.engine.workerLiveCounts();
      expect(workers).toMatchObject({
        batchEntries: 0,
        ringSlots: 0,
        lentBuffers: 0,
        capture: { requests: 0, bytes: 0 },
      });
    },
    { timeout: 10_000, interval: 5 },
  );
}

export type DecodedRows = Readonly<{ shape: readonly number[]; ids: readonly number[] }>;

type DtypeName = 'uint8' | 'uint16' | 'int8' | 'int16' | 'int32';

function elements(bytes: Buffer, dtype: DtypeName): number[] {
  const read = {
    uint8: [1, (at: number) => bytes.readUInt8(at)],
    int8: [1, (at: number) => bytes.readInt8(at)],
    uint16: [2, (at: number) => bytes.readUInt16LE(at)],
    int16: [2, (at: number) => bytes.readInt16LE(at)],
    int32: [4, (at: number) => bytes.readInt32LE(at)],
  } as const satisfies Record<DtypeName, readonly [number, (at: number) => number]>;
  const [size, at] = read[dtype];
  expect(bytes.length % size).toBe(0);
  return Array.from({ length: bytes.length / size }, (_, i) => at(i * size));
}

/** `np.load`, for what https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html calls version 1.0. */
export function decodeNpy(base64: string): DecodedRows {
  const bytes = Buffer.from(base64, 'base64');
  expect(bytes.subarray(0, 8).toString('latin1')).toBe('\u{93}NUMPY\u{1}\u{0}');
  const headerLength = bytes.readUInt16LE(8);
  expect((10 + headerLength) % 64).toBe(0);
  const header = bytes.subarray(10, 10 + headerLength).toString('latin1');
  expect(header.endsWith('\n')).toBe(true);
  const match = /^\{'descr': '(\|u1|<u2)', 'fortran_order': False, 'shape': \((\d+), (\d+), (\d+)\), \} *\n$/.exec(
    header,
  )!;
  const shape = match.slice(2).map(Number);
  const ids = elements(bytes.subarray(10 + headerLength), match[1] === '|u1' ? 'uint8' : 'uint16');
  expect(ids.length).toBe(shape.reduce((a, b) => a * b, 1));
  return { shape, ids };
}

/** SGLang: the reader knows L and K. */
export function decodeSglang(
  meta: { routed_experts: string; routed_experts_dtype: string },
  numLayers: number,
  topK: number,
): DecodedRows {
  expect(meta.routed_experts_dtype).toBe('int32');
  const ids = elements(Buffer.from(meta.routed_experts, 'base64'), 'int32');
  return { shape: [ids.length / (numLayers * topK), numLayers, topK], ids };
}

export function decodeObject(given: unknown): DecodedRows & Readonly<{ start: number }> {
  const value = given as { data: string; shape: number[]; start: number; dtype: 'uint8' | 'uint16' };
  expect(['uint8', 'uint16']).toContain(value.dtype);
  const ids = elements(Buffer.from(value.data, 'base64'), value.dtype);
  return { shape: value.shape, start: value.start, ids };
}

/** The rows of all tokens but the last, whose row is made up: `0 … K − 1` in each layer. */
export function decodeNrlre1(text: string): DecodedRows {
  const match = /^nrlre1:(int8|int16|int32):(\d+)x(\d+)x(\d+):([A-Za-z0-9+/]*=*)$/.exec(text)!;
  const [numTokens = 0, numLayers = 0, topK = 0] = match.slice(2, 5).map(Number);
  const ids = elements(Buffer.from(match[5]!, 'base64'), match[1] as DtypeName);
  const width = numLayers * topK;
  expect(ids.length).toBe(numTokens * width);
  expect(ids.slice(-width)).toEqual(Array.from({ length: width }, (_, i) => i % topK));
  return { shape: [numTokens - 1, numLayers, topK], ids: ids.slice(0, -width) };
}

/** SkyRL: the narrowest type for the largest id, and no other. */
export function decodeSigned(given: unknown): DecodedRows {
  const value = given as { data: string; shape: number[]; dtype: 'uint8' | 'int16' | 'int32' };
  const ids = elements(Buffer.from(value.data, 'base64'), value.dtype);
  const largest = ids.reduce((a, b) => Math.max(a, b), 0);
  expect(value.dtype).toBe(largest < 256 ? 'uint8' : largest < 32_768 ? 'int16' : 'int32');
  expect(Math.min(0, ...ids.slice(0, 1000))).toBe(0);
  return { shape: value.shape, ids };
}

export function decodeLists(rows: readonly (readonly (readonly (number | null)[])[])[]): DecodedRows {
  return {
    shape: [rows.length, rows[0]?.length ?? 0, rows[0]?.[0]?.length ?? 0],
    ids: rows.flat(2).map((id) => id ?? -1),
  };
}

/** `packed` without compression and prefix, bit by bit, from its description; a missing row is −1. */
export function decodePacked(bytes: Buffer): DecodedRows & Readonly<{ start: number; missing: [number, number][] }> {
  expect(bytes.toString('latin1', 0, 4)).toBe('rxp1');
  expect(bytes[5]).toBe(0);
  const bits = bytes[4]!;
  const topK = bytes.readUInt16LE(6);
  const [numLayers, start, count, rowsOfBlock, prefixEnd, , numMissing] = Array.from({ length: 7 }, (_, i) =>
    bytes.readUInt32LE(8 + 4 * i),
  ) as [number, number, number, number, number, number, number];
  expect(prefixEnd).toBe(start);
  const missing = Array.from({ length: numMissing }, (_, i): [number, number] => [
    bytes.readUInt32LE(36 + 8 * i),
    bytes.readUInt32LE(40 + 8 * i),
  ]);
  const width = numLayers * topK;
  const isMissing = (position: number): boolean => missing.some(([from, to]) => position >= from && position < to);
  const present = Array.from({ length: count }, (_, i) => start + i).filter((position) => !isMissing(position));
  const ids = Array.from<number>({ length: count * width }).fill(-1);
  let at = 36 + 8 * numMissing;
  for (let from = 0; from < present.length; from += rowsOfBlock) {
    const rows = present.slice(from, from + rowsOfBlock);
    const numBytes = bytes.readUInt32LE(at);
    expect(numBytes).toBe(Math.ceil((rows.length * width * bits) / 8));
    at += 4;
    for (const [r, position] of rows.entries()) {
      for (let entry = 0; entry < width; entry++) {
        let id = 0;
        for (let bit = 0; bit < bits; bit++) {
          const n = (r * width + entry) * bits + bit;
          id |= ((bytes[at + (n >> 3)]! >> (n & 7)) & 1) << bit;
        }
        ids[(position - start) * width + entry] = id;
      }
    }
    at += numBytes;
  }
  expect(bytes.readUInt32LE(at)).toBe(0);
  expect(bytes.length).toBe(at + 4);
  return { shape: [count, numLayers, topK], ids, start, missing };
}

/** Tokens and rows of an answer are those of the model alone with the prompt (L1, L2). */
export function expectOracle(
  prompt: ArrayLike<number>,
  output: readonly number[],
  rows: DecodedRows,
  start: number = 0,
  model: ModelConfig = tiny,
): void {
  const tokens = [...Array.from(prompt), ...output];
  const expected = oracle(model, tokens);
  expectSame(output, expected.nextTokens.subarray(prompt.length - 1, prompt.length - 1 + output.length), 'tokens');
  const numRows = tokens.length - 1 - start;
  expect(rows.shape).toEqual([numRows, model.numLayers, model.topK]);
  const width = model.numLayers * model.topK;
  expectSame(rows.ids, expected.rows.subarray(start * width, (start + numRows) * width), 'rows');
}
