// Engines of one group: an engine that begins a pass calls the others to it, none begins more than were called but as
// the first, and a group is drained when all of its engines are.

import { expect, test } from 'vitest';
import { EnginePasses } from '../../../src/worker/pipeline/lockstep/engine-passes.ts';
import { random } from '../../../src/workload/random.ts';

function engines(count: number): EnginePasses[] {
  const words = new Int32Array(EnginePasses.numWords(count));
  return Array.from({ length: count }, (_, engine) => new EnginePasses(words, count, engine));
}

test('a pass that one engine begins is owed by the others, and an event tells of it once', () => {
  const [a, b, c] = engines(3) as [EnginePasses, EnginePasses, EnginePasses];
  a.begin();
  a.begin();
  expect([a.numOwed, b.numOwed, c.numOwed, a.numEvents]).toEqual([0, 2, 2, 2]);
  b.begin();
  c.begin();
  expect([a.numOwed, b.numOwed, c.numOwed, a.numEvents]).toEqual([0, 1, 1, 2]);
  b.begin();
  b.begin();
  expect([a.numOwed, b.numOwed, c.numOwed, a.numEvents]).toEqual([1, 0, 2, 3]);
});

test('whichever engine begins when: once nothing is owed, all have begun as many', () => {
  for (let seed = 0; seed < 50; seed++) {
    const all = engines(4);
    const stream = random(seed, 'passes');
    const begun = [0, 0, 0, 0];
    const begin = (engine: number): void => {
      all[engine]!.begin();
      begun[engine]!++;
    };
    for (let i = 0; i < 40; i++) begin(stream.below(4));
    for (let engine = 0; engine < 4; engine++) while (all[engine]!.numOwed > 0) begin(engine);
    expect(new Set(begun).size).toBe(1);
  }
});

test('a group is drained when each engine has drained as often', () => {
  const [a, b] = engines(2) as [EnginePasses, EnginePasses];
  for (let run = 0; run < 3; run++) {
    a.drain();
    expect([a.isGroupDrained, b.isGroupDrained]).toEqual([false, true]);
    b.drain();
    expect([a.isGroupDrained, b.isGroupDrained]).toEqual([true, true]);
  }
});
