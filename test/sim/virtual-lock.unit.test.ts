/** The lock of shared memory in virtual time: a slow holder makes its waiters stand still, never for ever (L6). */

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { readCase } from '../../src/sim/case-file.ts';
import { Judge } from '../../src/sim/laws/judge.ts';
import { findTestedDesign } from '../../src/sim/mutants/mutants.ts';
import type { Moment } from '../../src/sim/fault.ts';
import { reportRun } from '../../src/sim/run-report.ts';
import { VirtualLock } from '../../src/sim/virtual/virtual-lock.ts';

describe('a lock', () => {
  const L6 = [{ law: 'L6', reason: 'locks' }] as const;

  test('makes a thread stand still for as long as another process holds it, and no longer (L6)', () => {
    const judge = new Judge(L6);
    const lock = new VirtualLock(judge);
    lock.acquire('worker');
    lock.release();
    expect(lock.takeWait('worker')).toBeNull();
    lock.hold(700);
    lock.acquire('engine');
    lock.release();
    expect([lock.takeWait('worker'), lock.takeWait('engine'), lock.takeWait('engine')]).toEqual([null, 700, null]);
    expect(judge.declared.get('L6')).toBe(1);
    lock.letGo(700);
    lock.acquire('worker');
    expect(lock.takeWait('worker')).toBeNull();
    expect(judge.declared.get('L6')).toBe(1);
  });

  test('that the engine takes is a broken promise even where nobody holds it (L6)', () => {
    expect(() => new VirtualLock(new Judge([])).acquire('engine')).toThrow(
      /a lock is taken inside the scheduler’s step/,
    );
  });

  test('of two holders the later one decides', () => {
    const lock = new VirtualLock(new Judge(L6));
    lock.hold(700);
    lock.hold(50);
    lock.letGo(50);
    expect(lock.tryAcquire('engine')).toBe(false);
    lock.letGo(700);
    expect(lock.tryAcquire('engine')).toBe(true);
  });

  test('that its own side holds already would be waited for for ever, and is refused', () => {
    const lock = new VirtualLock(new Judge(L6));
    lock.acquire('engine');
    expect(() => lock.acquire('worker')).toThrow(/worker waits for a lock that engine holds/);
  });
});

/** One request of two tokens, and a process that holds the lock from when a step has come so far. */
function stormWithHolder(when: Moment, ticks: number): string[] {
  const saved = readCase(readFileSync(new URL('bank/shm-flock-slow-holder.json', import.meta.url), 'utf8'), 'bank');
  const faults = saved.scenario.faults.map((fault) =>
    fault.kind === 'slow-lock-holder' ? { ...fault, when, ticks } : fault,
  );
  return reportRun({ ...saved.scenario, faults }, findTestedDesign('shm-flock'));
}

test.each([
  ['rank 0', { step: 0, phase: 'submitted' }],
  ['the engine', { step: 1, phase: 'arrived' }],
] as const)('a slow lock holder holds up %s, and the storm goes on behind it', (name, when) => {
  expect(stormWithHolder(when, 0).join('\n')).not.toContain('stands still');
  const report = stormWithHolder(when, 700);
  expect(report.filter((line) => /stands still until tick \d+/.test(line))).toEqual([expect.stringContaining(name)]);
  expect(report.at(-1)).toMatch(/all laws kept/);
});
