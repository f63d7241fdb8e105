/**
 * The storm tells a design of the caller's own which hook returned what it may not, and tells it nothing else: storms
 * of a design that keeps its contract run as they do without the checks, event for event.
 */

import { expect, test } from 'vitest';
import { strictDesign } from '../../src/capture/guard/strict-design.ts';
import { designs } from '../../src/capture/designs.ts';
import { runSeeds } from '../../src/sim/campaign.ts';
import { testedDesignOf } from '../../src/sim/tested-design.ts';
import { brokenParts, type Fault } from '../capture/guard/broken-design.ts';

test.each([
  ['deltas', false],
  ['deltas', true],
  ['slot-store', false],
  ['shm-flock', false],
] as const)('%s, with a prefill engine in front: %s', (name, pd) => {
  const bare = testedDesignOf(designs[name]);
  const strict = { ...bare, design: strictDesign(designs[name]) };
  const seeds = { from: 1, to: pd ? 61 : 101, pd, twice: false, stopAfter: 0 };
  expect(runSeeds(strict, seeds)).toEqual(runSeeds(bare, seeds));
});

test('halves may be frozen', () => {
  const { engineHalf, workerHalf } = designs.deltas;
  const frozen = testedDesignOf({
    name: 'mine',
    gaps: [],
    engineHalf: (...args) => Object.freeze(hooksOf(engineHalf(...args)!)),
    workerHalf: (...args) => Object.freeze(hooksOf(workerHalf(...args)!)),
  });
  expect(runSeeds(frozen, { from: 1, to: 41, twice: false, stopAfter: 1 }).violations).toEqual([]);
});

/** A half as plain fields, which `freeze` makes constant. */
function hooksOf<H extends object>(half: H): H {
  const fields: Record<string, unknown> = {};
  for (let made: object = half; made !== Object.prototype; made = Object.getPrototypeOf(made) as object) {
    for (const name of Object.getOwnPropertyNames(made)) {
      const value: unknown = Reflect.get(half, name, half);
      fields[name] ??= typeof value === 'function' ? value.bind(half) : value;
    }
  }
  return fields as H;
}

type Rows = { rows: Uint8Array } | null;
const faults: readonly (readonly [what: string, fault: Fault, told: string])[] = [
  ['no boolean', { half: 'engineHalf', hook: 'wants', breaks: () => undefined }, 'engineHalf.wants: it returned undef'],
  ['no rows', { half: 'engineHalf', hook: 'take', breaks: () => undefined }, 'engineHalf.take: it returned undefined'],
  [
    'a promise',
    { half: 'engineHalf', hook: 'take', breaks: async () => null },
    'engineHalf.take: it returned a promise',
  ],
  ['no counts', { half: 'engineHalf', hook: 'liveCounts', breaks: () => ({}) }, 'liveCounts: it returned no counts'],
  ['no word', { half: 'workerHalf', hook: 'record', breaks: withLength(3) }, 'workerHalf.record: it asked for 3 bytes'],
  ['too much', { half: 'workerHalf', hook: 'record', breaks: withLength(1e9) }, 'there may be '],
  ['no index', { half: 'workerHalf', hook: 'collect', breaks: () => ({}) }, 'workerHalf.collect: it returned no rows'],
  ['a view', { half: 'workerHalf', hook: 'collect', breaks: viewed }, 'its rows do not fill an ArrayBuffer'],
];

test.each(faults)('a hook that returns %s is named', (_what, fault, told) => {
  const [violation] = runUntilBroken(fault);
  expect(violation).toMatchObject({ kind: 'crash', law: 'L8', what: expect.stringContaining(told) as string });
});

test('a hook that throws what is no error is a crash of the design, and not of the storm', () => {
  const [violation] = runUntilBroken({ half: 'workerHalf', hook: 'collect', breaks: throwsText });
  expect(violation).toMatchObject({ kind: 'crash', law: 'L8', what: 'threw a text' });
});

function runUntilBroken(fault: Fault): ReturnType<typeof runSeeds>['violations'] {
  return runSeeds(testedDesignOf(brokenParts(fault)), { from: 1, to: 101, twice: false, stopAfter: 1 }).violations;
}

function throwsText(): never {
  // oxlint-disable-next-line no-throw-literal, typescript/only-throw-error
  throw 'a text';
}

function withLength(byteLength: number): Fault['breaks'] & {} {
  return (work, ...args) => {
    const range = work(...args) as object | null;
    return range === null ? null : { ...range, byteLength };
  };
}

function viewed(...[work, ...args]: Parameters<Fault['breaks'] & {}>): Rows {
  const deltas = work(...args) as Rows;
  return deltas === null ? null : { ...deltas, rows: deltas.rows.subarray(0, deltas.rows.length - 1) };
}
