/**
 * A design of the caller's own in an engine with worker threads: it is found by path and URL, it is refused with what
 * is wrong with its module, and what it does wrong in a thread ends the requests that it concerns.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { createEngine, toArray, type Engine, type EngineOptions } from '../../src/index.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { oracle } from '../../src/kernels/model/oracle.ts';
import type { Fault } from '../capture/guard/broken-design.ts';

const MINE = join(import.meta.dirname, 'designs', 'mine.ts');
const BROKEN = pathToFileURL(join(import.meta.dirname, '..', 'capture', 'guard', 'broken-design.ts')).href;
const PROMPT = Array.from({ length: 40 }, (_, i) => (i * 7) % 97);
const folder = mkdtempSync(join(tmpdir(), 'own-design-'));
afterAll(() => rmSync(folder, { recursive: true }));

function start(design: string | URL, options: Partial<EngineOptions> = {}): Promise<Engine> {
  return createEngine({ model: 'tiny', device: 'cpu', design, engine: { maxModelLen: 128 }, ...options });
}

/** A module in a folder outside the repository. */
function module(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

/** A module with a design whose hook is broken in each thread. `breaks` is source text. */
function broken(name: string, { half, hook }: Pick<Fault, 'half' | 'hook'>, breaks = 'undefined'): string {
  const fault = `{ half: '${half}', hook: '${hook}', breaks: ${breaks} }`;
  return module(`${name}.mjs`, `import { brokenParts } from '${BROKEN}';\nexport default brokenParts(${fault});\n`);
}

async function expectRows(engine: Engine): Promise<void> {
  const { tokenIds, rows } = await engine.generate(PROMPT, { maxTokens: 6, returnRoutedExperts: true });
  expect([rows!.count, rows!.missing]).toEqual([PROMPT.length + 5, []]);
  const expected = oracle(modelPreset('tiny'), [...PROMPT, ...tokenIds]).rows;
  const all = toArray(rows!, 0xff);
  expect([...all]).toEqual([...expected.subarray(0, all.length)]);
}

describe('a module is found', () => {
  test.each([
    ['by its path', MINE],
    ['by its path from the working directory', `./${relative(process.cwd(), MINE)}`],
    ['by its URL', pathToFileURL(MINE)],
    ['by the text of its URL', pathToFileURL(MINE).href],
  ])('%s, and its rows are those of the oracle, on two ranks', async (_how, design) => {
    const engine = await start(design, { numRanks: 2 });
    try {
      await expectRows(engine);
    } finally {
      await engine.close();
    }
  });
});

const HALVES = 'export const engineHalf = () => null;\nexport const workerHalf = () => null;\n';
const wrongModules: readonly (readonly [what: string, text: string | null, problem: string])[] = [
  ['that is not there', null, 'there is no such file'],
  ['that does not parse', 'export const = ;', 'it cannot be imported: '],
  ['that throws', 'throw new Error("not today");', 'it cannot be imported: Error: not today at '],
  ['that exports nothing', 'export {};', 'it exports no name, no gaps, no engineHalf, no workerHalf'],
  [
    'without a half',
    'export const name = "x", gaps = [];\nexport const engineHalf = () => null;',
    'it exports no workerHalf',
  ],
  [
    'with a half that is no function',
    `${HALVES.replace('() => null', '7')}export const name = "x", gaps = [];`,
    'its engineHalf is 7',
  ],
  [
    'with the name of a built-in design',
    `${HALVES}export const name = "deltas", gaps = [];`,
    'is that of a built-in design',
  ],
  ['with a name that is none', `${HALVES}export const name = "a b", gaps = [];`, 'its name is "a b"'],
  ['with gaps that are no list', `${HALVES}export const name = "x", gaps = "L1";`, 'its gaps are "L1"'],
  [
    'with a gap of no law',
    `${HALVES}export const name = "x", gaps = [{ law: "L99", reason: "" }];`,
    'gaps[0].law is "L99"',
  ],
  [
    'with a gap without a reason',
    `${HALVES}export const name = "x", gaps = [{ law: "L1" }];`,
    'gaps[0].reason is undefined',
  ],
  [
    'with a gap of unknown rows',
    `${HALVES}export const name = "x", gaps = [{ law: "L1", reason: "", missing: "some" }];`,
    'gaps[0].missing is "some"',
  ],
];

describe('a module is refused', () => {
  test.each(wrongModules)('%s', async (what, text, problem) => {
    const path = join(folder, `${what.replaceAll(' ', '-')}.mjs`);
    if (text !== null) writeFileSync(path, text);
    const rejection = expect(start(path)).rejects;
    await rejection.toMatchObject({ code: 'BAD_DESIGN', message: expect.stringContaining(problem) as string });
    await expect(start(path)).rejects.toThrow(`design module ${path}: `);
  });

  test('for a URL that is no file’s, and a word that is no design’s', async () => {
    await expect(start(new URL('https://example.org/mine.js'))).rejects.toMatchObject({ code: 'BAD_DESIGN' });
    await expect(start('https://example.org/mine.js')).rejects.toThrow(
      'https://example.org/mine.js: it is no file: URL',
    );
    await expect(start('./test')).rejects.toThrow('it is no file; name the file of the module');
    await expect(start('mine')).rejects.toMatchObject({ code: 'UNKNOWN_NAME' });
    await expect(start('mine')).rejects.toThrow('./mine.ts');
  });
});

describe('halves that cannot be made', () => {
  test.each([
    ['engineHalf', '() => { throw new Error("boom"); }', 'engineHalf: it threw Error: boom'],
    ['workerHalf', '() => { throw new Error("boom"); }', 'workerHalf: it threw Error: boom'],
    ['engineHalf', 'async () => null', 'engineHalf: it returned a promise'],
    [
      'engineHalf',
      '() => ({ wants: () => true })',
      'it returned a half without onStepOutput, take, release, liveCounts',
    ],
    ['workerHalf', '() => ({ record: 1 })', 'it returned a half without record, collect'],
    ['workerHalf', '() => ({ record() {}, collect() {}, forget: 1 })', 'forget of the half is 1'],
    ['workerHalf', '() => 7', 'it returned 7; return a half or null'],
  ])('%s: %s', async (part, source, problem) => {
    const halves = HALVES.replace(`${part} = () => null`, `${part} = ${source}`);
    const path = module(
      `half-${problem.replaceAll(/\W+/g, '-')}.mjs`,
      `${halves}export const name = 'x', gaps = [];\n`,
    );
    const rejection = expect(start(path)).rejects;
    await rejection.toMatchObject({ code: 'DESIGN_FAILED', message: expect.stringContaining(problem) as string });
  });
});

describe('a half that breaks its contract in its thread', () => {
  test.each([
    ['engineHalf', 'take', 'undefined', 'it threw Error: boom'],
    ['engineHalf', 'onStepOutput', 'undefined', 'it threw Error: boom'],
    ['workerHalf', 'record', 'undefined', 'it threw Error: boom'],
    ['workerHalf', 'collect', 'undefined', 'it threw Error: boom'],
    [
      'workerHalf',
      'record',
      '(work, ...args) => ({ ...work(...args), byteLength: 4e9 })',
      'it asked for 4000000000 bytes',
    ],
    ['workerHalf', 'collect', '() => ({ rows: new Uint8Array(8), numRows: 9, index: [] })', 'no index (Uint32Array)'],
    [
      'workerHalf',
      'collect',
      '(work, ...args) => ({ ...work(...args), index: Uint32Array.of(99, 99, 99), indexLength: 3 })',
      'engineHalf.onStepOutput: it threw',
    ],
    ['workerHalf', 'collect', 'async () => { throw new Error("late"); }', 'it returned a promise'],
  ] as const)('%s.%s, %s', async (half, hook, breaks, problem) => {
    const engine = await start(broken(`${half}-${hook}-${problem.replaceAll(/\W+/g, '-')}`, { half, hook }, breaks));
    try {
      const plain = engine.generate(PROMPT, { maxTokens: 20 });
      const asked = engine.generate(PROMPT, { maxTokens: 20, returnRoutedExperts: true });
      const rejection = expect(asked).rejects;
      await rejection.toMatchObject({ code: 'DESIGN_FAILED' });
      await expect(asked).rejects.toThrow(problem);
      await expect(asked).rejects.toThrow('design "mine" broke its contract in ');
      expect(await plain).toMatchObject({ finishReason: 'length', rows: null });
      expect((await engine.generate(PROMPT.slice(1), { maxTokens: 4 })).tokenIds).toHaveLength(4);
      expect(engine.stats()).toMatchObject({ numRunning: 0, numWaiting: 0, numUsedBlocks: 0 });
    } finally {
      await engine.close();
    }
  });
});
