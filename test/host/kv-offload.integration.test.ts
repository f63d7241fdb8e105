/**
 * KV that a small pool gives up comes back from host memory and from files, with its rows; files that cannot be used
 * are misses, told once.
 */

import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest';
import { createEngine, toArray, type Engine, type EngineOptions, type KvOffloadOptions } from '../../src/index.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { oracle } from '../../src/kernels/model/oracle.ts';

const MODEL = modelPreset('tiny');
const [FIRST, SECOND, THIRD] = [3, 5, 7].map((step) => Array.from({ length: 41 }, (_, i) => (i * step + 1) % 97));
const ROWS = { maxTokens: 4, returnRoutedExperts: true } as const;

function smallOptions(kvOffload: Partial<KvOffloadOptions>): EngineOptions {
  return {
    model: 'tiny',
    device: 'cpu',
    engine: { blockSize: 4, maxModelLen: 64, numBlocks: 20 },
    kvOffload: { hostBlocks: 100, ...kvOffload },
  };
}

async function smallEngine(
  kvOffload: Partial<KvOffloadOptions>,
  options: Partial<EngineOptions> = {},
): Promise<Engine> {
  const engine = await createEngine({ ...smallOptions(kvOffload), ...options });
  onTestFinished(() => engine.close());
  return engine;
}

/** Tokens whose KV came back; the rows must be the oracle's, and none may be missing. */
async function loadedTokens(engine: Engine, prompt: readonly number[]): Promise<number> {
  const before = engine.stats().numExternalTokens;
  const { tokenIds, rows } = await engine.generate(prompt, ROWS);
  expect(rows!.missing).toEqual([]);
  const truth = oracle(MODEL, [...prompt, ...tokenIds.slice(0, -1)]);
  expect(Array.from(toArray(rows!, 255))).toEqual(Array.from(truth.rows));
  expect(tokenIds.at(-1)).toBe(truth.nextTokens.at(-1));
  return engine.stats().numExternalTokens - before;
}

function folder(): string {
  const dir = mkdtempSync(join(tmpdir(), 'kv-offload-'));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

let whole = '';

beforeAll(async () => {
  whole = mkdtempSync(join(tmpdir(), 'kv-offload-'));
  const engine = await createEngine(smallOptions({ dir: whole }));
  for (const prompt of [FIRST!, SECOND!, THIRD!]) expect(await loadedTokens(engine, prompt)).toBe(0);
  await engine.close();
  expect(engine.offloadStats()!.files!.writes).toBeGreaterThan(0);
});

afterAll(() => rmSync(whole, { recursive: true }));

/** A folder in which an engine has left the blocks of the first prompt. */
function filledFolder(): string {
  const dir = folder();
  cpSync(whole, dir, { recursive: true });
  return dir;
}

function hearsStderr(): string[] {
  const lines: string[] = [];
  const spy = vi.spyOn(process.stderr, 'write').mockImplementation((text) => lines.push(String(text)) > 0);
  onTestFinished(() => spy.mockRestore());
  return lines;
}

test('a prefix that the pool gave up comes back with its rows, and a request without rows pays for none', async () => {
  const engine = await smallEngine({});
  for (const prompt of [FIRST!, SECOND!, THIRD!]) expect(await loadedTokens(engine, prompt)).toBe(0);
  expect(await loadedTokens(engine, FIRST!)).toBe(40);
  const { bytesToHost, bytesFromHost, files } = engine.offloadStats()!;
  expect(bytesToHost).toBeGreaterThan(0);
  // Ten blocks: 8 bytes of key, and 2 · 2 of rows, for each token.
  expect(bytesFromHost).toBe(10 * 4 * (8 + 4));
  expect(files).toBeNull();

  const plain = await smallEngine({});
  for (const prompt of [FIRST!, SECOND!, THIRD!, FIRST!]) await plain.generate(prompt, { maxTokens: 4 });
  expect(plain.offloadStats()!.bytesFromHost).toBe(10 * 4 * 8);
  // Nobody asked when they were computed: who asks later computes them again.
  expect(await loadedTokens(plain, SECOND!)).toBe(0);
});

test('a reset of the prefix cache takes the blocks outside the device along', async () => {
  const dir = folder();
  const engine = await smallEngine({ dir });
  for (const prompt of [FIRST!, SECOND!, THIRD!]) await loadedTokens(engine, prompt);
  expect(engine.resetPrefixCache()).toBe(true);
  expect(engine.offloadStats()).toMatchObject({ hostBlocks: 0, files: { blocks: 0 } });
  expect(await loadedTokens(engine, FIRST!)).toBe(0);
  await engine.close();
});

test('blocks in files outlive the engine, for the same weights only', async () => {
  const dir = filledFolder();
  const lines = hearsStderr();
  expect(await loadedTokens(await smallEngine({ dir, weightVersion: 'step 2' }), FIRST!)).toBe(0);
  expect(await loadedTokens(await smallEngine({ dir }), FIRST!)).toBeGreaterThan(0);
  expect(lines).toEqual([]);
});

test.each<readonly [string, (bytes: Buffer, other: Buffer, i: number) => Uint8Array, RegExp]>([
  [
    'corrupt',
    (bytes) => bytes.fill(bytes.at(-40)! ^ 1, bytes.length - 40, bytes.length - 39),
    /is a miss: it is corrupt: its checksum is wrong/,
  ],
  ['cut short, or another block', (bytes, other, i) => (i % 2 ? bytes.subarray(0, 99) : other), /is a miss: it /],
])('a file that is %s is a miss, told once', async (_, spoil, message) => {
  const dir = filledFolder();
  const files = readdirSync(dir).map((name) => join(dir, name));
  const last = readFileSync(files.at(-1)!);
  for (const [i, file] of files.slice(0, -1).entries()) writeFileSync(file, spoil(readFileSync(file), last, i));
  rmSync(files.at(-1)!);
  const lines = hearsStderr();
  const engine = await smallEngine({ dir });
  expect(await loadedTokens(engine, FIRST!)).toBe(0);
  expect(await loadedTokens(engine, SECOND!)).toBe(0);
  expect(lines).toEqual([expect.stringMatching(/^--kv-offload-dir: the file of block /)]);
  expect(lines[0]).toMatch(message);
  expect(engine.offloadStats()!.fileProblems).toBeGreaterThan(0);
});

test('a folder that cannot be made, or not be written to, costs its blocks and nothing else', async () => {
  const lines = hearsStderr();
  const without = await smallEngine({ dir: '/proc/none' });
  expect(without.offloadStats()).toMatchObject({ files: null, fileProblems: 1 });
  expect(lines).toEqual([expect.stringContaining('--kv-offload-dir: the folder is not used: ENOENT')]);
  for (const prompt of [FIRST!, SECOND!, THIRD!]) await loadedTokens(without, prompt);
  expect(await loadedTokens(without, FIRST!)).toBe(40);

  // Root may write to a read-only folder: one that is gone serves as well.
  const gone = folder();
  const engine = await smallEngine({ dir: gone });
  rmSync(gone, { recursive: true });
  lines.length = 0;
  for (const prompt of [FIRST!, SECOND!, THIRD!]) await loadedTokens(engine, prompt);
  expect(await loadedTokens(engine, FIRST!)).toBe(40);
  await engine.close();
  expect(lines).toEqual([expect.stringContaining('--kv-offload-dir: a block could not be written: ENOENT')]);
});

test('options that cannot be are refused by name', async () => {
  const wrong = [
    [{ hostBlocks: -1 }, 'kvOffload.hostBlocks is -1'],
    [{ hostBlocks: 0, dir: '/tmp/x' }, 'kvOffload.dir is /tmp/x; give it with kvOffload.hostBlocks'],
    [{ blocks: 3 }, 'unknown option of kvOffload "blocks"'],
  ] as const;
  for (const [kvOffload, message] of wrong) {
    await expect(smallEngine(kvOffload as Partial<KvOffloadOptions>)).rejects.toThrow(message);
  }
  const engine = { enablePrefixCaching: false };
  await expect(smallEngine({}, { engine })).rejects.toThrow('give 0 without engine.enablePrefixCaching');
});

test('on two pipeline stages the keys of both come back, from host memory and from files of two stages', async () => {
  const dir = folder();
  const stages = { pipelineParallel: 2 } as const;
  const engine = await smallEngine({ dir }, stages);
  for (const prompt of [FIRST!, SECOND!, THIRD!]) expect(await loadedTokens(engine, prompt)).toBe(0);
  expect(await loadedTokens(engine, FIRST!)).toBe(40);
  await engine.close();
  const again = await smallEngine({ dir }, stages);
  expect(await loadedTokens(again, FIRST!)).toBe(40);
  // What one stage wrote is another file's name.
  const alone = await smallEngine({ dir });
  expect(await loadedTokens(alone, FIRST!)).toBe(0);
});
