// Hidden states between two stages: each step's go to the same step behind, in turn, and nobody waits for ever.

import { expect, test } from 'vitest';
import { StageLinks } from '../../../src/worker/pipeline/stages/stage-links.ts';

const sizes = { tensorParallel: 2, numStages: 3, depth: 2, maxNumBatchedTokens: 3 };
const open = (): StageLinks => new StageLinks(sizes, new Int32Array(StageLinks.numWords(sizes)));

test('what a rank sends comes to the rank of its number in the next stage, step by step', () => {
  const links = open();
  const ends = [0, 1].flatMap((stage) =>
    [0, 1].map((rank) => ({ sender: links.sender(stage, rank)!, reader: links.reader(stage + 1, rank)! })),
  );
  for (let step = 0; step < 5; step++) {
    for (const [i, { sender }] of ends.entries()) sender.send(step, Uint32Array.of(i, step, 0xffff_ffff, 4));
    for (const [i, { reader }] of ends.entries())
      expect(reader.take(step)).toEqual(Uint32Array.of(i, step, 0xffff_ffff, 4));
  }
  expect(links.sender(2, 0)).toBeNull();
  expect(links.reader(0, 1)).toBeNull();
});

test('a reader that comes first finds nothing; several steps may lie ready, and no more than are in flight', () => {
  const links = open();
  const [sender, reader] = [links.sender(0, 0)!, links.reader(1, 0)!];
  expect(reader.take(0)).toBeNull();
  sender.send(0, Uint32Array.of(1, 2));
  sender.send(2, Uint32Array.of(3, 4));
  expect(() => sender.send(3, Uint32Array.of(5, 6))).toThrow('step 3 finds its place in a link full');
  expect(reader.take(0)).toEqual(Uint32Array.of(1, 2));
  expect(reader.take(2)).toEqual(Uint32Array.of(3, 4));
});

test('hidden states of another step are refused', () => {
  const links = open();
  links.sender(0, 0)!.send(7, Uint32Array.of(1, 2));
  expect(() => links.reader(1, 0)!.take(8)).toThrow('those of step 7 came');
});

test('once a link is closed its reader is told, at every word at which it may wait', () => {
  const links = open();
  const reader = links.reader(2, 1)!;
  expect(links.close()).toContain(reader.stateWord);
  expect(() => reader.take(0)).toThrow('the link is closed');
  links.sender(1, 1)!.send(0, Uint32Array.of(1, 2));

  const others = open();
  const states = others.sender(0, 0)!.close();
  expect(states).toContain(others.reader(1, 0)!.stateWord);
  expect(() => others.reader(1, 0)!.take(0)).toThrow('the link is closed');
  expect(others.reader(1, 1)!.take(0)).toBeNull();
});
