/** A design of the caller's own on the command line: measured, put through the storm, replayed, and refused. */

import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runHere } from './run-cli.ts';

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const MINE = fileURLToPath(new URL('../host/designs/mine.ts', import.meta.url));
const BROKEN = new URL('../capture/guard/broken-design.ts', import.meta.url).href;
const folder = mkdtempSync(join(tmpdir(), 'own-design-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Ended = Readonly<{ code: number; stdout: string; stderr: string }>;

/** Runs in the temporary folder. */
function run(...args: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], { timeout: 100_000, cwd: folder }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
      resolve({ code, stdout, stderr: stderr.replaceAll(/^run \d+ of \d+: .*\n/gm, '') });
    });
  });
}

writeFileSync(join(folder, 'mine.mjs'), `export { default } from '${pathToFileURL(MINE).href}';\n`);
writeFileSync(
  join(folder, 'shifted.mjs'),
  `import { brokenParts } from '${BROKEN}';
const breaks = (work, ...args) => {
  const rows = work(...args);
  return rows === null ? null : { ...rows, chunks: [...rows.chunks].reverse() };
};
export default brokenParts({ half: 'engineHalf', hook: 'take', breaks });\n`,
);
writeFileSync(
  join(folder, 'throws.mjs'),
  `import { brokenParts } from '${BROKEN}';
export default brokenParts({ half: 'engineHalf', hook: 'onStepOutput' });\n`,
);
writeFileSync(
  join(folder, 'imports.mjs'),
  `import { rowShape } from 'routed-experts/designs';
import whole from './mine.mjs';
if (typeof rowShape !== 'function') throw new Error('no rowShape');
export default whole;\n`,
);
writeFileSync(join(folder, 'half.mjs'), `export const name = 'half', gaps = [], engineHalf = () => null;\n`);

type Report = { designs: { design: string; hash: string }[]; violations: { file: string }[] };
const SMALL = ['--model', 'tiny', '--device', 'cpu', '--repeats', '1', '--requests', '6', '--ballast-ms', '0'];

describe('fuzz', () => {
  test('a module beside a built-in design: the same storms, and one hash however many threads there are', async () => {
    const flags = ['fuzz', '--design', './mine.mjs,deltas', '--seeds', '600', '--json'];
    const [one, two] = await Promise.all([run(...flags, '--jobs', '1'), run(...flags, '--jobs', '2')]);
    expect([one.code, one.stderr, two.code]).toEqual([0, '', 0]);
    const reports = [one, two].map(({ stdout }) => JSON.parse(stdout) as Report);
    const [mine, deltas] = reports[0]!.designs;
    expect([mine!.design, deltas!.design]).toEqual(['./mine.mjs', 'deltas']);
    expect(mine!.hash).toBe(deltas!.hash);
    expect(reports[1]!.designs).toEqual(reports[0]!.designs);
  });

  test('a module in a folder without the package imports what the checkout has', async () => {
    const { code, stdout } = await run('fuzz', '--design', './imports.mjs', '--seeds', '20', '--jobs', '1');
    expect([code, stdout.includes('20 scenarios')]).toEqual([0, true]);
  });

  test('a failing case names its module, and is replayed by it', async () => {
    const { code, stdout } = await run('fuzz', '--design', './shifted.mjs', '--seeds', '300', '--save', 'cases');
    expect([code, stdout.includes('fuzz --replay cases/shifted.mjs-')]).toEqual([1, true]);
    const [file] = readdirSync(join(folder, 'cases'));
    expect(JSON.parse(readFileSync(join(folder, 'cases', file!), 'utf8'))).toMatchObject({ design: './shifted.mjs' });
    const replayed = await run('fuzz', '--replay', join('cases', file!));
    expect([replayed.code, replayed.stdout.includes(' broken, event log ')]).toEqual([1, true]);
  });

  test('a hook that throws in the storm is a crash, told with the line that threw', async () => {
    const { code, stdout } = await run('fuzz', '--design', './throws.mjs', '--seed', '1');
    expect(code).toBe(4);
    expect(stdout).toMatch(/L8 broken \(crash\): Error: boom\n.*at .*broken-design\.ts:\d+/);
  });
});

describe('bench', () => {
  test('a module beside a built-in design, every row right', async () => {
    const json = join(folder, 'bench.json');
    const { code, stderr } = await run('bench', ...SMALL, '--design', 'deltas,./mine.mjs', '--json', json);
    expect([code, stderr]).toEqual([0, '']);
    const { cells } = JSON.parse(readFileSync(json, 'utf8')) as { cells: { design: string; rows: unknown }[] };
    expect([...new Set(cells.map(({ design }) => design))]).toEqual(['off', 'deltas', 'mine']);
    const rowsOf = (name: string): unknown => cells.filter(({ design }) => design === name).map(({ rows }) => rows);
    expect(rowsOf('mine')).toEqual(rowsOf('deltas'));
  });

  test('a hook that throws is a problem that names design and hook', async () => {
    const json = join(folder, 'throws.json');
    const { code } = await run('bench', ...SMALL, '--design', './throws.mjs', '--json', json);
    const { problems } = JSON.parse(readFileSync(json, 'utf8')) as { problems: string[] };
    expect(code).toBe(1);
    expect(problems.join('\n')).toContain('design "mine" broke its contract in engineHalf.onStepOutput: it threw');
  });

  test('two modules whose designs have one name: exit code 2', async () => {
    const { code, stderr } = await run('bench', ...SMALL, '--design', './mine.mjs,./throws.mjs');
    expect([code, stderr.includes('its name, "mine", is that of file://')]).toEqual([2, true]);
  });
});

// In this process: each of these ends before it does anything.
describe.each(['fuzz', 'matrix', 'bench', 'serve'])('%s ends with exit code 2 for', (command) => {
  const before = process.cwd();
  beforeAll(() => process.chdir(folder));
  afterAll(() => process.chdir(before));

  test.each([
    ['./absent.mjs', 'absent.mjs: there is no such file'],
    ['./half.mjs', 'half.mjs: it exports no workerHalf'],
    ['mien', 'unknown design "mien"'],
  ])('%s', async (design, problem) => {
    const { code, stdout, stderr } = await runHere(command, '--design', design);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain(problem);
    expect(stderr).not.toContain('    at ');
  });
});
