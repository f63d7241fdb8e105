/**
 * Every known defect can be patched into the source as it is; and what counts as killed. Whether each dies, `npm run
 * mutations` says.
 */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { allMutations } from './all.ts';
import { patchedText } from './patch.ts';
import type { SourceMutation } from './source-mutation.ts';
import { commandVerdict, testVerdict, type ProcessEnd, type VitestReport } from './trial.ts';

const repository = join(import.meta.dirname, '..', '..');

const ended = (code: number): ProcessEnd => ({ code, signal: null, timedOut: false });
const report = (status: string, tests: readonly string[]): VitestReport => ({
  testResults: [
    {
      name: 'a.unit.test.ts',
      status,
      message: 'Cannot find module',
      assertionResults: tests.map((each, i) => ({ fullName: `test ${i}`, status: each })),
    },
  ],
});
const isNamed = (file: string): boolean => file === 'a.unit.test.ts';

describe('the mutations', () => {
  test('have names of their own, in kebab-case', () => {
    const names = allMutations.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^[a-z0-9]+(-[a-z0-9]+)*$/);
  });

  test('of every list in this folder are in the list of lists', async () => {
    for (const file of readdirSync(import.meta.dirname)) {
      // The command and this file run when they are imported, and hold no list.
      if (file === 'run.ts' || file.endsWith('.test.ts')) continue;
      const path = join(import.meta.dirname, file);
      const exported = (await import(/* @vite-ignore */ path)) as Readonly<Record<string, unknown>>;
      for (const list of Object.values(exported).filter(Array.isArray)) {
        for (const mutation of list) expect(allMutations, file).toContain(mutation);
      }
    }
  });

  test.each(allMutations.map((mutation) => [mutation.name, mutation] as const))(
    '%s: its text is found once, and there is what must fail',
    (_, mutation) => {
      const text = readFileSync(join(repository, mutation.file), 'utf8');
      expect(patchedText(text, mutation)).not.toBe(text);
      const { killedBy } = mutation;
      if ('test' in killedBy) {
        expect(killedBy.test).toMatch(/^test\/.*\.(unit|contract|wgsl|integration)\.test\.ts$/);
        expect(existsSync(join(repository, killedBy.test))).toBe(true);
      } else expect(killedBy.command.length).toBeGreaterThan(0);
    },
  );
});

describe('a patch', () => {
  const mutation: SourceMutation = {
    name: 'm',
    defect: 'none',
    file: 'a.ts',
    find: 'x + 1',
    replace: 'x - 1',
    killedBy: { command: ['fuzz'] },
  };

  test('changes one place', () => {
    expect(patchedText('const y = x + 1;\n', mutation)).toBe('const y = x - 1;\n');
    expect(patchedText('const y = x + 1;\n', { ...mutation, replace: '"$&"' })).toBe('const y = "$&";\n');
  });

  test.each([
    ['a text that is not there', 'const y = 1;', mutation.replace, 'occurs 0 times'],
    ['a text that is there twice', 'const y = x + 1, z = x + 1;', mutation.replace, 'occurs 2 times'],
    ['no change', 'const y = x + 1;', mutation.find, 'changes nothing'],
    ['code that does not parse', 'const y = x + 1;', 'x -', 'does not parse'],
  ])('refuses %s', (_, text, replace, problem) => {
    expect(() => patchedText(text, { ...mutation, replace })).toThrow(problem);
  });
});

describe('the verdict', () => {
  test.each([
    ['a failing test', 1, report('failed', ['passed', 'failed']), 'killed', 'test 1'],
    ['a test process that ends', 1, report('failed', ['passed', 'pending']), 'killed', 'process'],
    ['an error that no test catches', 1, report('passed', ['passed']), 'killed', 'outside'],
    ['tests that pass', 0, report('passed', ['passed']), 'passed', '1 tests'],
    ['a file that cannot be loaded', 1, report('failed', []), 'invalid', 'Cannot find module'],
    ['a set-up that fails', 1, report('failed', ['skipped']), 'invalid', 'no test ran'],
    ['skipped tests only', 0, report('passed', ['skipped']), 'invalid', 'no test ran'],
    ['no such test file', 1, { testResults: [] }, 'invalid', 'no test ran'],
    ['no report', 1, null, 'invalid', 'without a report'],
  ] as const)('of a test file: %s', (_, code, given, state, how) => {
    const verdict = testVerdict(ended(code), given, isNamed);
    expect(verdict.state).toBe(state);
    expect(verdict.how).toContain(how);
  });

  test('a hang kills', () => {
    const hung: ProcessEnd = { code: null, signal: 'SIGKILL', timedOut: true };
    expect(testVerdict(hung, null, isNamed)).toEqual({ state: 'killed', how: 'hangs' });
    expect(commandVerdict(hung)).toEqual({ state: 'killed', how: 'hangs' });
  });

  test.each([
    [0, 'passed'],
    [1, 'killed'],
    [2, 'invalid'],
    [3, 'killed'],
    [4, 'killed'],
  ])('of a command with exit code %i: %s', (code, state) => {
    expect(commandVerdict(ended(code)).state).toBe(state);
  });
});
