/** Cases that once broke a law, shrunk: they keep every law since. `fuzz --replay test/sim/bank` runs the same. */

import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { readCase, writeCase } from '../../src/sim/case-file.ts';
import { findTestedDesign } from '../../src/sim/mutants/mutants.ts';
import { runScenario } from '../../src/sim/run-scenario.ts';

const BANK = new URL('bank/', import.meta.url);
const names = readdirSync(BANK).filter((name) => name.endsWith('.json'));

test('the bank is not empty', () => {
  expect(names.length).toBeGreaterThan(0);
});

for (const name of names) {
  const saved = readCase(readFileSync(new URL(name, BANK), 'utf8'), name);
  test(`${name}: ${saved.note}`, () => {
    const tested = findTestedDesign(saved.design);
    const { violation, hash } = runScenario(saved.scenario, tested);
    expect(violation?.message ?? null, `fuzz --replay test/sim/bank/${name}`).toBeNull();
    expect(runScenario(saved.scenario, tested).hash).toBe(hash);
  });
}

test('what is no saved case is refused by name', () => {
  const saved = { design: 'deltas', law: null, note: '' };
  for (const text of ['', '{}', '3', 'null', JSON.stringify(saved), JSON.stringify({ ...saved, scenario: 1 })]) {
    expect(() => readCase(text, 'x.json'), text).toThrow(/x\.json/);
  }
  const first = readCase(readFileSync(new URL(names[0]!, BANK), 'utf8'), names[0]!);
  expect(readCase(writeCase(first), 'again.json')).toEqual(first);
});
