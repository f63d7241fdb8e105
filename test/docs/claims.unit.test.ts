/**
 * `docs/claims.md` is held to the facts: each claim of the sources has a verdict and a section, and each command that
 * the page names is one that a reader can run. What the commands print, whoever changes them reads again.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { describe, expect, test } from 'vitest';
import { benchCommand } from '../../src/cli/bench/command.ts';
import { clusterCommand } from '../../src/cli/cluster/command.ts';
import { fuzzCommand } from '../../src/cli/fuzz.ts';
import { proxyCommand } from '../../src/cli/proxy.ts';
import { serveCommand } from '../../src/cli/serve.ts';
import { designsOf } from '../../src/cli/fuzz/campaign-flags.ts';
import { findTestedDesign } from '../../src/sim/mutants/mutants.ts';
import { allMutations } from '../mutations/all.ts';

const repository = join(import.meta.dirname, '..', '..');
const page = readFileSync(join(repository, 'docs', 'claims.md'), 'utf8');
const factsPath = join(repository, '..', 'shared', 'facts', 'claims.md');
const hasFacts = existsSync(factsPath);
if (!hasFacts) console.warn('SKIPPED: the claims of the sources are not in ../shared/facts');

const VERDICTS = ['holds', 'holds with a limit', 'refuted', 'open in part', 'open', 'not testable here'];

/** A line of a table that begins with a claim's id. */
const ROW = /^\| *([A-Z]\d+) *\|(.*)\|$/gm;

/** Of each claim the last cell of its row, in the page's order. */
const verdicts: readonly (readonly [id: string, verdict: string])[] = [...page.matchAll(ROW)].map(([, id, cells]) => [
  id!,
  cells!.split('|').at(-1)!.trim(),
]);

/** Of each claim the text below its heading. */
const sections: ReadonlyMap<string, string> = new Map(
  page
    .split(/^(?=##+ )/m)
    .map((text) => [/^### ([A-Z]\d+)$/m.exec(text)?.[1] ?? '', text] as const)
    .filter(([id]) => id !== ''),
);

const COMMAND = /^(?:[A-Z]+=\S+ )?(?:npx routed-experts|npm (?:test|run)) /;

/** What stands in code and begins as a command does; a line of a block may end with a comment or go on in the next. */
function commandsIn(text: string): string[] {
  const blocks = [...text.matchAll(/```sh\n([^]*?)```/g)].map(([, block]) => block!);
  const lines = blocks.flatMap((block) => block.replaceAll(/\\\n/g, ' ').split('\n'));
  const spans = [...text.replaceAll(/```[^]*?```/g, '').matchAll(/`([^`]+)`/g)].map(([, span]) => span!);
  return [...lines, ...spans]
    .map((line) => line.replace(/ # .*/, '').replaceAll(/\s+/g, ' ').trim())
    .filter((line) => COMMAND.test(`${line} `));
}

const commands = [...new Set(commandsIn(page))];

const programs: Readonly<Record<string, () => Command>> = {
  bench: benchCommand,
  cluster: clusterCommand,
  fuzz: fuzzCommand,
  proxy: proxyCommand,
  serve: serveCommand,
};

/** Throws what the command line itself would say of a flag or a value. */
async function parse(name: string, args: readonly string[]): Promise<void> {
  const program = programs[name];
  if (program === undefined) throw new Error(`there is no command ${name}`);
  let flags: Readonly<{ design?: unknown }> = {};
  const command = program()
    .exitOverride()
    .configureOutput({ writeErr: () => {} });
  await command.action((given: typeof flags) => void (flags = given)).parseAsync(args, { from: 'user' });
  if (name === 'fuzz') (await designsOf({ design: flags.design as string[] })).forEach(findTestedDesign);
}

function benchNames(): string[] {
  const { stdout } = spawnSync(process.execPath, ['bench/run.ts', '--help'], { cwd: repository, encoding: 'utf8' });
  return /micro-benchmarks ([^;]+);/.exec(stdout)![1]!.split(', ');
}

/** Throws, or fails an expectation, for what a reader could not run. */
async function checkCommand(line: string): Promise<void> {
  const [program, called, ...args] = line.replace(/^[A-Z]+=\S+ /, '').split(' ');
  if (program === 'npx') return parse(args[0]!, args.slice(1));
  if (called === 'test') {
    expect(args[0], line).toBe('--');
    expect(args.length, line).toBeGreaterThan(1);
    for (const path of args.slice(1)) expect(existsSync(join(repository, path)), path).toBe(true);
    return undefined;
  }
  const [script, dashes, ...rest] = args;
  expect(dashes, line).toBe('--');
  if (script === 'mutations') {
    expect(rest[0], line).toBe('--only');
    expect(allMutations.map(({ name }) => name)).toContain(rest[1]);
    return undefined;
  }
  expect(script, line).toBe('bench');
  const names = rest.filter((arg) => !/^\d+$/.test(arg));
  expect(names.length, line).toBeGreaterThan(0);
  for (const name of names) expect(benchNames()).toContain(name);
  return undefined;
}

describe('the claims', () => {
  test.skipIf(!hasFacts)('are those of the sources, each once, in their order', () => {
    const ids = [...readFileSync(factsPath, 'utf8').matchAll(ROW)].map(([, id]) => id);
    expect(ids.length).toBeGreaterThan(0);
    expect(verdicts.map(([id]) => id)).toEqual(ids);
  });

  test('have a section each, and each section a claim', () => {
    expect([...sections.keys()]).toEqual(verdicts.map(([id]) => id));
  });

  test.each(verdicts)('%s has one of the verdicts that the page explains: %s', (_, verdict) => {
    expect(VERDICTS).toContain(verdict);
    expect(page).toMatch(new RegExp(`^\\| ${verdict} +\\| `, 'm'));
  });

  test.each(verdicts)('%s, %s: what was seen has a command, what is open says what it needs', (id, verdict) => {
    const text = sections.get(id)!;
    if (verdict.startsWith('open')) expect(text).toMatch(/Open: /);
    else expect(text).not.toMatch(/Open: /);
    if (verdict !== 'open' && verdict !== 'not testable here') expect(commandsIn(text)).not.toEqual([]);
  });
});

describe('a command of the page can be run', () => {
  test.each(commands)('%s', async (line) => {
    await checkCommand(line);
  });

  test.each([
    'npx routed-experts benchmark --design off',
    'npx routed-experts bench --no-such-flag',
    'npx routed-experts bench --device abacus',
    'npx routed-experts fuzz --design mutant/no-such-defect',
    'npm test -- test/no-such.unit.test.ts',
    'npm run bench -- no-such-bench',
    'npm run mutations -- --only no-such-mutation',
  ])('which %s could not', async (line) => {
    await expect(checkCommand(line)).rejects.toThrow();
  });
});
